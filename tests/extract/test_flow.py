"""Flow: known motion, signs, quantisation, and which pairs are computed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from extract.crops import crop_boxes, cut
from extract.flow import FLOWS, LearnedFamily
from extract.flow_bytes import flow_bytes
from extract.flow_frames import flow_frames, flow_grey, resolve_flow
from extract.spec import DecodeSpec, FlowSpec
from extract.video import Scan, VideoSource, open_source
from store.errors import FeatureError, SpecError, UnknownNameError

DIS = resolve_flow(FlowSpec(method="dis"))
METHODS = [name for name in FLOWS if not isinstance(FLOWS.get(name), LearnedFamily)]  # those that are networks: test_raft.py
STILL_PIXELS = {"farneback": 0.5}  # the most that a method finds between equal images; OpenCV's Farneback errs along the borders


def texture(shift_x: float = 0.0, shift_y: float = 0.0, height: int = 96, width: int = 128) -> np.ndarray:
    """A smooth random texture moved to the right and down by sub-pixel amounts, as a sum of waves: uint8 [H, W]."""
    random = np.random.default_rng(7)
    rows, columns = np.mgrid[:height, :width].astype(np.float64)
    image = np.zeros((height, width))
    for _ in range(60):
        frequency_x, frequency_y = random.normal(0, 0.35, 2)
        image += np.cos(frequency_x * (columns - shift_x) + frequency_y * (rows - shift_y) + random.uniform(0, 2 * np.pi))
    return np.clip(128 + 18 * image, 0, 255).round().astype(np.uint8)


class Clip(VideoSource):
    """Frames from memory that counts how often each is read."""

    def __init__(self, frames: list[np.ndarray]) -> None:
        super().__init__(Path("memory"), DecodeSpec())
        self.images = frames
        self.reads: list[int] = []

    def _scan(self) -> Scan:
        count = len(self.images)
        return Scan(np.arange(count) / 25, count / 25, *self.images[0].shape[:2])

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index in indices:
            self.reads.append(int(index))
            yield self.images[index]

    def _close(self) -> None:
        pass


def colour(grey: np.ndarray) -> np.ndarray:
    return np.repeat(grey[..., None], 3, 2)


def moving(count: int, speed: float = 2.0) -> list[np.ndarray]:
    return [colour(texture(speed * number)) for number in range(count)]


# The methods


@pytest.mark.parametrize("name", METHODS)
def test_methods_find_known_translations(name: str) -> None:
    """x is motion to the right, y is motion down, in pixels."""
    method = FLOWS.get(name)(FLOWS.get(name).defaults)
    for x, y in [(3.0, 0.0), (0.0, -2.0), (1.25, 2.5), (-0.4, 0.3)]:
        flow = method(texture(), texture(x, y))
        assert flow.shape == (96, 128, 2)
        assert flow.dtype == np.float32
        error = np.linalg.norm(flow[12:-12, 12:-12] - (x, y), axis=-1)
        assert error.mean() < 0.15
        assert np.abs(np.median(flow[12:-12, 12:-12], (0, 1)) - (x, y)).max() < 0.1


@pytest.mark.parametrize("name", METHODS)
def test_methods_keep_nothing_of_earlier_pairs(name: str) -> None:
    family = FLOWS.get(name)
    method, fresh = family(family.defaults), family(family.defaults)
    method(texture(height=60, width=40), texture(5, 5, 60, 40))
    method(texture(9, 9), texture(-9, 3))
    assert np.array_equal(method(texture(), texture(2, 1)), fresh(texture(), texture(2, 1)))


@pytest.mark.parametrize("name", METHODS)
def test_methods_do_not_depend_on_opencvs_threads(name: str) -> None:
    flows = []
    for threads in (1, 2, 5):
        cv2.setNumThreads(threads)
        flows.append(FLOWS.get(name)(FLOWS.get(name).defaults)(texture(), texture(2, 1)))
    cv2.setNumThreads(-1)
    assert all(np.array_equal(flow, flows[0]) for flow in flows)


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("size", [(1, 1), (8, 8), (2, 300), (300, 9), (31, 31), (33, 40)])
def test_methods_take_the_smallest_images(name: str, size: tuple[int, int]) -> None:
    still = FLOWS.get(name)(FLOWS.get(name).defaults)(texture(0, 0, *size), texture(0, 0, *size))
    assert still.shape == (*size, 2)
    assert np.abs(still).max() < STILL_PIXELS.get(name, 0.01)


def test_every_preset_of_dis_takes_small_images() -> None:
    for preset in (0, 1, 2):
        for size in (8, 15, 16, 31, 32):
            flow = FLOWS.get("dis")({"preset": preset})(texture(0, 0, size, size), texture(1, 0, size, size))
            assert np.isfinite(flow).all()


def test_dis_is_opencvs() -> None:
    for preset in (0, 1, 2):
        theirs = cv2.DISOpticalFlow_create(preset).calc(texture(), texture(3, 1), None)
        assert np.array_equal(FLOWS.get("dis")({"preset": preset})(texture(), texture(3, 1)), theirs)


# The spec


def test_resolving_writes_the_defaults_down() -> None:
    assert DIS.params == {"preset": 2.0}
    assert DIS.version == f"opencv-{cv2.__version__}"
    assert resolve_flow(DIS) == DIS
    assert resolve_flow(FlowSpec(method="dis", params={"preset": 1})).params == {"preset": 1.0}


def test_unknown_settings_are_refused() -> None:
    with pytest.raises(SpecError, match="flow method dis has no parameter 'presett'; did you mean 'preset'"):
        resolve_flow(FlowSpec(method="dis", params={"presett": 1}))
    with pytest.raises(SpecError, match=r"preset is 3; presets of dis: 0 \(ultrafast\), 1 \(fast\), 2 \(medium\)"):
        resolve_flow(FlowSpec(method="dis", params={"preset": 3}))
    with pytest.raises(UnknownNameError, match="no flow method is called 'diss'; did you mean dis"):
        resolve_flow(FlowSpec(method="diss"))
    with pytest.raises(SpecError, match=r"flow.version is 'opencv-1.0' but 'opencv-.*' is installed"):
        resolve_flow(FlowSpec(method="dis", version="opencv-1.0"))


# Quantisation


@pytest.mark.parametrize("bound", [1.0, 15.0, 20.0])
def test_encoding_follows_its_formula(bound: float) -> None:
    flow = np.random.default_rng(0).normal(0, bound, (40, 50, 2)).astype(np.float32)
    image = flow_bytes(flow, FlowSpec(bound=bound))
    exact = flow.astype(np.float64)
    components = 128 + 127 * np.clip(exact, -bound, bound) / bound
    magnitude = 255 * np.minimum(np.sqrt((exact**2).sum(-1)), bound) / bound
    assert image.dtype == np.uint8
    assert np.abs(image[..., :2] - components).max() <= 0.5 + 1e-4
    assert np.abs(image[..., 2] - magnitude).max() <= 0.5 + 1e-4
    assert image[..., :2].min() >= 1


def test_encoding_of_the_ends_and_of_no_motion() -> None:
    flow = np.array([[[0, 0], [20, -20], [1e30, -1e30], [np.float32(0.01), 0]]], np.float32)
    assert flow_bytes(flow, FlowSpec()).tolist() == [[[128, 128, 0], [255, 1, 255], [255, 1, 255], [128, 128, 0]]]


def test_the_mirror_of_a_byte_is_the_byte_of_the_mirror() -> None:
    values = np.linspace(-25, 25, 20_001, dtype=np.float32).reshape(1, -1, 1)
    right, left = (flow_bytes(np.concatenate([sign * values, values * 0], -1), FlowSpec())[..., 0].astype(int) for sign in (1, -1))
    assert (right == 256 - left).all()


def test_a_mirrored_crop_is_the_flow_of_the_mirrored_video() -> None:
    frames = [colour(texture(3 * number, number)) for number in range(2)]
    with Clip(frames) as source, Clip([frame[:, ::-1] for frame in frames]) as mirrored:
        (plain,) = flow_frames(source, np.array([0]), FlowSpec(method="dis", params=DIS.params, short_side=0))
        (other,) = flow_frames(mirrored, np.array([0]), FlowSpec(method="dis", params=DIS.params, short_side=0))
    centre, centre_mirrored = (
        cut(torch.from_numpy(image).permute(2, 0, 1)[None], crop_boxes(96, 128, 64, 10), DIS)[0] for image in (plain, other)
    )
    difference = (centre_mirrored[4].int() - centre[9].int()).abs().float()
    assert difference.mean() < 1
    assert centre[4, 0].float().median() > 140 > 128 > 116 > centre_mirrored[4, 0].float().median()


# Which frames


@pytest.mark.parametrize("wanted", [[0], [5], [4, 5], [0, 2, 4], [0, 1, 2, 3, 4, 5], []])
def test_each_wanted_frame_gets_the_flow_to_the_next(wanted: list[int]) -> None:
    frames = [colour(texture(number**2 / 2)) for number in range(6)]  # faster and faster, so that every pair differs
    method = FLOWS.get("dis")(DIS.params)
    grey = [flow_grey(frame, 0) for frame in frames]
    pairs = [min(index, 4) for index in wanted]  # the last frame repeats the flow before it
    with Clip(frames) as source:
        ours = list(flow_frames(source, np.array(wanted, np.int64), FlowSpec(method="dis", params=DIS.params, short_side=0)))
    assert len(ours) == len(wanted)
    for image, pair in zip(ours, pairs, strict=True):
        assert np.array_equal(image, flow_bytes(method(grey[pair], grey[pair + 1]), FlowSpec()))
    assert source.reads == sorted({index for pair in pairs for index in (pair, pair + 1)})  # each once, and no others


def test_flow_does_not_depend_on_what_else_is_wanted() -> None:
    spec = FlowSpec(method="dis", params=DIS.params, short_side=64)
    with Clip(moving(8)) as source:
        together = list(flow_frames(source, np.arange(8), spec))
        for index in range(8):
            (alone,) = flow_frames(source, np.array([index]), spec)
            assert np.array_equal(alone, together[index])
    assert np.array_equal(together[7], together[6])


def test_one_frame_and_equal_frames_have_no_motion() -> None:
    for count in (1, 3):
        with Clip([moving(1)[0]] * count) as source:
            images = list(flow_frames(source, np.arange(count), DIS))
        assert [image.shape for image in images] == [(256, 341, 3)] * count
        assert all((image == [128, 128, 0]).all() for image in images)


def test_a_video_of_eight_pixels(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    path = encode_video(tmp_path / "tiny.mp4", list(random.integers(0, 256, (5, 8, 8, 3), np.uint8)))
    for short_side in (0, 8, 256):
        spec = FlowSpec(method="dis", params=DIS.params, short_side=short_side)
        with open_source(path, DecodeSpec()) as source:
            assert [image.shape for image in flow_frames(source, np.arange(5), spec)] == [((short_side or 8), (short_side or 8), 3)] * 5


@pytest.mark.parametrize(
    ("height", "width", "short", "expected"), [(240, 320, 256, (256, 341)), (320, 240, 120, (160, 120)), (48, 64, 0, (48, 64))]
)
def test_frames_are_grey_and_resized(height: int, width: int, short: int, expected: tuple[int, int]) -> None:
    frame = colour(texture(0, 0, height, width))
    frame[..., 0] //= 2
    grey = flow_grey(frame, short)
    assert grey.shape == expected
    weights = frame @ np.array([0.299, 0.587, 0.114])
    assert abs(grey.mean() - weights.mean()) < 1
    if short == 0:
        assert np.abs(grey - weights).max() <= 0.51


def test_nan_in_flow_is_an_error_that_names_the_pair(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken:
        version = "1"
        defaults: dict[str, float] = {}  # noqa: RUF012 a stand-in

        def __call__(self, params: object) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
            return lambda first, second: np.full((*first.shape, 2), np.nan, np.float32)

    monkeypatch.setitem(FLOWS._entries, "broken", Broken())
    with Clip(moving(4)) as source, pytest.raises(FeatureError, match="memory: flow method broken gives NaN or Inf between frames 2 and 3"):
        list(flow_frames(source, np.array([2]), FlowSpec(method="broken")))
