"""Clip arithmetic against slow formulas and against the time stamps of published features."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from extract.clips import clip_indices, frame_spans, time_spans
from extract.flow_stacks import stack_indices
from extract.spec import ClipSpec, FlowSpec
from extract.video import resample_indices

LENGTHS = range(1, 101)


def windows(num_frames: int, length: int, stride: int) -> list[list[int]]:
    """Every window that fits, found by trying each start."""
    return [list(range(start, start + length)) for start in range(0, num_frames, stride) if start + length <= num_frames]


@pytest.mark.parametrize(("length", "stride"), [(1, 1), (16, 8), (16, 16), (24, 24), (30, 8), (5, 7), (1, 10)])
def test_sliding_takes_every_window_that_fits(length: int, stride: int) -> None:
    spec = ClipSpec(rule="sliding", length=length, stride=stride)
    for num_frames in LENGTHS:
        expected = windows(num_frames, length, stride)
        if expected:
            assert len(expected) == (num_frames - length) // stride + 1  # the paper's K
        else:  # too short: the last frame stands still
            expected = [[*range(num_frames), *[num_frames - 1] * (length - num_frames)]]
        assert clip_indices(num_frames, spec).tolist() == expected


def test_sliding_equals_the_papers_formula_where_the_stride_is_half_the_clip() -> None:
    spec = ClipSpec(rule="sliding", length=16, stride=8)
    assert [len(clip_indices(num_frames, spec)) for num_frames in (16, 24, 80, 96)] == [
        num_frames // 8 - 1 for num_frames in (16, 24, 80, 96)
    ]


def test_looped_repeats_a_short_video_and_keeps_at_most_20() -> None:
    spec = ClipSpec(rule="looped", length=30, stride=8, max_clips=20)
    for num_frames in range(1, 400):
        expected = windows(num_frames, 30, 8)[:20] or [[index % num_frames for index in range(30)]]
        assert clip_indices(num_frames, spec).tolist() == expected


def test_frames_of_a_clip_may_be_apart() -> None:
    for rule in ("sliding", "segments", "every", "looped"):
        for num_frames in LENGTHS:
            spec = ClipSpec(rule=rule, length=4, step=3, stride=5, segments=3)
            dense = clip_indices(num_frames, ClipSpec(rule=rule, length=10, stride=5, segments=3))
            assert clip_indices(num_frames, spec).tolist() == dense[:, ::3].tolist()  # a clip of four frames reaches over ten


def test_spread_is_one_clip_of_tsn_segments() -> None:
    for num_frames in LENGTHS:
        segments = clip_indices(num_frames, ClipSpec(rule="segments", segments=25))
        assert clip_indices(num_frames, ClipSpec(rule="spread", length=25)).tolist() == [segments.ravel().tolist()]


def test_a_length_left_to_the_network_is_one_frame() -> None:
    assert clip_indices(30, ClipSpec(rule="every", stride=10)).tolist() == [[0], [10], [20]]


def test_every_nth_frame() -> None:
    for num_frames in LENGTHS:
        for stride in (1, 3, 10):
            indices = clip_indices(num_frames, ClipSpec(rule="every", stride=stride))
            assert indices.ravel().tolist() == list(range(0, num_frames, stride))
    assert clip_indices(5, ClipSpec(rule="every", length=3, stride=2)).tolist() == [[0, 1, 2], [2, 3, 4], [4, 4, 4]]


@pytest.mark.parametrize("segments", [1, 3, 7, 25])
@pytest.mark.parametrize("length", [1, 5])
def test_segments_are_tsn_test_time_sampling(segments: int, length: int) -> None:
    spec = ClipSpec(rule="segments", segments=segments, length=length)
    for num_frames in LENGTHS:
        possible = max(1, num_frames - length + 1)
        expected = [(2 * part + 1) * possible / (2 * segments) for part in range(segments)]  # centres of equal parts, as real numbers
        starts = clip_indices(num_frames, spec)[:, 0]
        np.testing.assert_array_equal(starts, np.floor(np.array(expected) + 1e-9))
        tick = possible / segments
        tsn = np.array([int(tick / 2 + tick * part) for part in range(segments)])
        assert np.abs(starts - tsn).max() <= 1  # TSN computes in floats, which fall below a whole number now and then
        assert (starts != tsn).mean() <= 0.2


def test_segments_of_a_frame_lie_in_the_middle_of_their_part() -> None:
    assert clip_indices(100, ClipSpec(rule="segments", segments=4)).ravel().tolist() == [12, 37, 62, 87]
    assert clip_indices(2, ClipSpec(rule="segments", segments=4)).ravel().tolist() == [0, 0, 1, 1]
    assert clip_indices(3, ClipSpec(rule="segments", segments=2, length=5)).tolist() == [[0, 1, 2, 2, 2]] * 2


@pytest.mark.parametrize("rule", ["sliding", "segments", "every", "looped"])
def test_no_video_yields_nothing_and_no_index_is_outside(rule: str) -> None:
    for length, stride, limit in [(1, 1, 0), (16, 8, 0), (30, 8, 20), (3, 50, 2)]:
        spec = ClipSpec(rule=rule, length=length, stride=stride, segments=6, max_clips=limit)
        for num_frames in LENGTHS:
            indices = clip_indices(num_frames, spec)
            assert indices.dtype == np.int64
            assert indices.shape[0] >= 1
            assert indices.shape[1] == length
            assert indices.min() >= 0
            assert indices.max() < num_frames
            assert (np.diff(indices[:, 0]) >= 0).all()
            assert limit == 0 or len(indices) <= limit


def test_no_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="0 frames; clips need at least one"):
        clip_indices(0, ClipSpec())


def test_spans_count_one_past_the_last_frame_and_end_when_the_next_begins() -> None:
    times = np.array([0.0, 0.1, 0.3, 0.35, 0.6])
    indices = clip_indices(5, ClipSpec(rule="sliding", length=2, stride=3))
    assert frame_spans(indices).tolist() == [[0, 2], [3, 5]]
    assert time_spans(indices, times, 0.7).tolist() == [[0.0, 0.3], [0.35, 0.7]]
    looped = clip_indices(5, ClipSpec(rule="looped", length=12))
    assert frame_spans(looped).tolist() == [[0, 5]]
    assert time_spans(looped, times, 0.7).tolist() == [[0.0, 0.7]]


def test_time_stamps_of_published_features(shared_data: Path) -> None:
    """I3D stamps the end of each stack, ResNet each frame, in ms; I3D takes one frame more than the stack, for flow."""
    reference = np.load(shared_data / "features" / "video_features_reference.npz")
    settings = json.loads((shared_data / "features" / "video_features_reference_args.json").read_text())
    source = np.arange(355) / 19.62  # v_GGSY1Qvo990.mp4
    checked = 0
    for key in reference:
        name = key.removesuffix("_timestamps_ms")
        if name == key or settings[key]["feature_type"] not in ("i3d", "resnet"):
            continue
        fps = settings[key].get("extraction_fps") or 19.62
        num_frames = len(resample_indices(source, 355 / 19.62, fps))
        i3d = settings[key]["feature_type"] == "i3d"
        stack = (settings[key].get("stack_size") or 64) if i3d else 1
        step = (settings[key].get("step_size") or 64) if i3d else 1
        spans = frame_spans(clip_indices(num_frames, ClipSpec(rule="sliding", length=stack + i3d, stride=step)))
        stamps = (spans[:, 0] + stack) / fps if i3d else spans[:, 0] / fps
        np.testing.assert_allclose(1000 * stamps, reference[key], rtol=1e-9, err_msg=key)
        checked += 1
    assert checked >= 9


@pytest.mark.parametrize("stack", [2, 5, 10])
def test_whole_stacks_of_flow_are_sampled_as_temporal_segment_networks_do(stack: int) -> None:
    """Their ticks of (F - N + 1) / T over F flows, the middle of each (Wang et al. 2016): no stack but a short video's repeats a flow."""
    spec, flow = ClipSpec(rule="segments", segments=25, length=1), FlowSpec(method="tvl1", encoding="pairs", pairs=stack)
    for num_frames in (stack + 1, 26, 60, 100, 333):
        tick = (num_frames - 1 - stack + 1) / 25
        starts = clip_indices(num_frames, spec, flow).ravel()
        assert starts.tolist() == [int(tick / 2 + tick * t + 1e-9) for t in range(25)]
        stacks = stack_indices(starts, num_frames, flow)
        assert (np.diff(stacks, axis=1) == 1).all()
    assert clip_indices(3, spec, flow).ravel().tolist() == [0] * 25
    for other in (replace(flow, pairs=1), replace(flow, offset=-1), FlowSpec()):
        assert np.array_equal(clip_indices(100, spec, other), clip_indices(100, spec))
