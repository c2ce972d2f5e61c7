"""When imported rows were: arithmetic, stamps, and what is refused."""

import numpy as np
import pytest

from store.errors import FeatureError, SpecError
from store.exchange.spec import TimingSpec
from store.exchange.timing import resolve, spans

STAMPS = {"timestamps_ms": np.array([1600.0, 2400.0, 3200.0]), "fps": np.array(15.0)}  # I3D of video_features: stack 24, step 12, 15 fps


def test_nothing_known_counts_rows() -> None:
    timing = resolve(TimingSpec(), {})
    assert (timing.frames, timing.times) == ("rows", "rows")
    frames, times = spans(3, timing, {})
    assert frames.tolist() == [[0, 1], [1, 2], [2, 3]]
    assert frames.dtype == np.int64
    assert times.tolist() == [[0.0, 1.0], [1.0, 2.0], [2.0, 3.0]]
    assert times.dtype == np.float64


def test_arithmetic() -> None:
    timing = resolve(TimingSpec(stride=8, length=16, start=4, fps=25.0), {})
    assert (timing.frames, timing.times) == ("stride", "fps")
    frames, times = spans(3, timing, {})
    assert frames.tolist() == [[4, 20], [12, 28], [20, 36]]
    np.testing.assert_allclose(times, np.array([[4, 20], [12, 28], [20, 36]]) / 25)


def test_a_stride_alone_puts_rows_side_by_side_and_leaves_times_unknown() -> None:
    timing = resolve(TimingSpec(stride=16), {})
    assert (timing.length, timing.times) == (16, "rows")
    frames, times = spans(2, timing, {})
    assert frames.tolist() == [[0, 16], [16, 32]]
    assert times.tolist() == [[0, 1], [1, 2]]


def test_a_stride_with_the_rate_of_each_file() -> None:
    timing = resolve(TimingSpec(stride=10), {"fps": np.array(20.0)})
    assert timing.times == "files"
    assert spans(2, timing, {"fps": np.array([40.0])})[1].tolist() == [[0.0, 0.25], [0.25, 0.5]]
    with pytest.raises(FeatureError, match=r"nothing beside the features says when its rows were"):
        spans(2, timing, {})


def test_stamps_that_mark_ends() -> None:
    timing = resolve(TimingSpec(stamps="end", length=24), STAMPS)
    assert (timing.frames, timing.times) == ("files", "files")
    frames, times = spans(3, timing, STAMPS)
    assert frames.tolist() == [[0, 24], [12, 36], [24, 48]]  # stacks of 24 frames every 12 frames, as it was extracted
    np.testing.assert_allclose(times, [[0, 1.6], [0.8, 2.4], [1.6, 3.2]], atol=1e-12)


def test_stamps_that_mark_ends_of_rows_of_unknown_length_reach_back_to_the_row_before() -> None:
    frames, times = spans(3, resolve(TimingSpec(stamps="end"), STAMPS), STAMPS)
    np.testing.assert_allclose(times, [[0, 1.6], [1.6, 2.4], [2.4, 3.2]])
    assert frames.tolist() == [[0, 24], [24, 36], [36, 48]]


def test_stamps_that_mark_starts() -> None:
    carried = {"timestamps_ms": np.array([0.0, 500.0, 1000.0]), "fps": np.array(30)}
    frames, times = spans(3, resolve(TimingSpec(), carried), carried)
    assert frames.tolist() == [[0, 15], [15, 30], [30, 45]]
    np.testing.assert_allclose(times, [[0, 0.5], [0.5, 1], [1, 1.5]])
    frames, times = spans(3, resolve(TimingSpec(length=3), carried), carried)
    assert frames.tolist() == [[0, 3], [15, 18], [30, 33]]
    np.testing.assert_allclose(times, [[0, 0.1], [0.5, 0.6], [1, 1.1]])


def test_stamps_are_not_taken_for_starts_where_they_look_like_ends_nor_the_other_way() -> None:
    with pytest.raises(FeatureError, match=r"first time stamp is 1600 ms, which looks like the end .* --timing.stamps end"):
        spans(3, resolve(TimingSpec(), STAMPS), STAMPS)
    with pytest.raises(FeatureError, match=r"first time stamp is 3000 ms, which looks like the end"):
        spans(1, resolve(TimingSpec(), STAMPS), {"timestamps_ms": np.array([3000.0]), "fps": np.array(15.0)})
    starts = {"timestamps_ms": np.array([0.0, 800.0]), "fps": np.array(15.0)}
    with pytest.raises(FeatureError, match=r"first time stamp is 0 ms, but a row lasts 1600 ms.* --timing.stamps start"):
        spans(2, resolve(TimingSpec(stamps="end", length=24), starts), starts)


def test_stamps_can_be_ignored() -> None:
    timing = resolve(TimingSpec(stamps="ignore"), {"timestamps_ms": STAMPS["timestamps_ms"]})
    assert (timing.frames, timing.times) == ("rows", "rows")


def test_stamps_without_a_rate_give_times_and_no_frames() -> None:
    carried = {"timestamps_ms": np.array([0, 40, 80])}
    timing = resolve(TimingSpec(), carried)
    assert (timing.frames, timing.times) == ("rows", "files")
    np.testing.assert_allclose(spans(3, timing, carried)[1], [[0, 0.04], [0.04, 0.08], [0.08, 0.12]])


def test_a_given_rate_counts_for_stamps_too() -> None:
    carried = {"timestamps_ms": np.array([0, 500])}
    frames, _ = spans(2, resolve(TimingSpec(fps=10.0), carried), carried)
    assert frames.tolist() == [[0, 5], [5, 10]]


def test_frames_and_times_that_are_there_are_taken_as_they_are() -> None:
    carried = {"frames": np.array([[3, 7], [4, 9]], np.int32), "times": np.array([[0.1, 0.2], [0.3, 0.35]])}
    timing = resolve(TimingSpec(), carried)
    assert (timing.frames, timing.times) == ("files", "files")
    frames, times = spans(2, timing, carried)
    assert frames.tolist() == [[3, 7], [4, 9]]
    assert frames.dtype == np.int64
    assert np.array_equal(times, carried["times"])


@pytest.mark.parametrize(
    ("carried", "words"),
    [
        ({"frames": np.array([1, 2]), "times": np.ones((2, 2))}, r"frames is int64 \[2\]; beside 2 rows .*--timing.frames rows"),
        ({"frames": np.ones((2, 2)), "times": np.ones((2, 2))}, r"frames is float64 \[2, 2\].* whole numbers"),
        ({"frames": np.ones((2, 2), int), "times": np.ones((3, 2))}, r"times is float64 \[3, 2\].* floating-point numbers \[2, 2\]"),
        ({"timestamps_ms": np.array([0.0]), "fps": np.array(5)}, r"timestamps_ms is float64 \[1\]; beside 2 rows"),
        ({"timestamps_ms": np.array([5.0, 1.0]), "fps": np.array(5)}, r"not times in ascending order.* --timing.stamps ignore"),
        ({"timestamps_ms": np.array([0.0, np.nan]), "fps": np.array(5)}, r"not times in ascending order"),
        ({"timestamps_ms": np.array([0.0, 1.0]), "fps": np.array([0.0])}, r"fps is \[0.0\]; it must be one positive number"),
        ({"timestamps_ms": np.array([0.0, 1.0]), "fps": np.array([25, 25])}, r"fps is \[25, 25\]; it must be one positive number"),
        ({"timestamps_ms": np.array([0.0, 1.0]), "fps": np.array(np.nan)}, r"fps is nan; it must be one positive number"),
        ({"timestamps_ms": np.array([0.0, 1.0])}, r"says how many frames a second has; give --timing.fps"),
        ({}, r"nothing beside the features says which frames"),
    ],
)
def test_what_contradicts_itself_is_refused(carried: dict[str, np.ndarray], words: str) -> None:
    with pytest.raises(FeatureError, match=words):
        spans(2, TimingSpec(frames="files", times="files"), carried)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"frames": "stride"}, "timing.frames is 'stride' but no timing.stride is given"),
        ({"times": "fps"}, "timing.times is 'fps' but no timing.fps is given"),
        ({"frames": "rows", "stride": 4}, "timing.stride is 4, of which timing.frames 'rows' makes no use"),
        ({"start": 4}, "timing.start is 4 but no timing.stride is given"),
        ({"fps": -1.0}, "timing.fps is -1.0; it must be 0 or positive"),
        ({"base": -1}, "timing.base is -1"),
        ({"stride": 2**62}, "timing.stride is 4611686018427387904; it must be at most 2147483647"),  # four rows on, it would be row 0 again
        ({"base": 2**70}, "timing.base is 1180591620717411303424; it must be 0 to 2147483647"),
    ],
)
def test_settings_that_contradict_one_another(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        TimingSpec(**settings)  # type: ignore[arg-type]


@pytest.mark.parametrize("settings", [{"length": 16}, {"fps": 25.0}, {"frames": "rows", "times": "fps", "fps": 25.0}])
def test_settings_without_use_are_refused(settings: dict[str, object]) -> None:
    with pytest.raises(SpecError, match=r"timing.(length|fps) is .*, but the first video says nothing of its frames; give --timing.stride"):
        resolve(TimingSpec(**settings), {})  # type: ignore[arg-type]
