"""Drafts: what a container's packets promise, frames handed on while the video is decoded once, and the truth afterwards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from extract.spec import DecodeSpec
from extract.video import DraftError, VideoSource, open_source
from store.errors import DecodeError

PLAIN = DecodeSpec()
Encode = Callable[..., Path]
Frames = Callable[..., list[np.ndarray]]


def counted(source: VideoSource, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by one with every frame that ``source`` decodes."""
    calls: list[int] = []
    decode = source._decode  # type: ignore[attr-defined]
    monkeypatch.setattr(source, "_decode", lambda: (calls.append(1) or frame for frame in decode()))
    return calls


@pytest.mark.parametrize(("fps", "shown"), [(0, 50), (12.5, 25), (60, 120)])
def test_a_draft_that_holds_costs_one_pass(
    fps: float, shown: int, tmp_path: Path, encode_video: Encode, numbered_frames: Frames, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_video(tmp_path / "a.mp4", numbered_frames(50), codec="libx264", options={"bf": "3"})
    with open_source(path, DecodeSpec(fps=fps)) as exact, open_source(path, DecodeSpec(fps=fps), draft=True) as source:
        calls = counted(source, monkeypatch)
        assert (source.num_frames, source.is_draft, calls) == (shown, True, [])
        indices = np.array([0, 3, shown - 9])
        given = list(source.frames(indices))
        assert len(calls) < 50
        assert source.settle()
        assert len(calls) == 50
        assert (source.is_draft, source.times.tolist(), source.end) == (False, exact.times.tolist(), exact.end)
        assert all(np.array_equal(ours, theirs) for ours, theirs in zip(given, exact.frames(indices), strict=True))
        assert source.settle()
        assert len(calls) == 50


def test_a_draft_that_does_not_hold_is_corrected(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    path = encode_video(tmp_path / "a.mov", numbered_frames(60), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [index for index in range(len(data)) if data[index : index + 8] == b"\x89PNG\r\n\x1a\n"]
    data[starts[20]] = data[starts[21]] = 0
    path.write_bytes(data)
    with open_source(path, PLAIN) as exact, open_source(path, PLAIN, draft=True) as source:
        assert (exact.num_frames, source.num_frames) == (58, 60)
        frames = source.frames(np.array([0, 30, 59]))
        assert np.array_equal(next(frames), next(exact.frames(np.array([0]))))
        next(frames)
        with pytest.raises(DraftError, match="frame 59 is promised but does not decode"):
            next(frames)
        assert not source.settle()
        assert (source.num_frames, source.times.tolist()) == (58, exact.times.tolist())
        assert all(
            np.array_equal(ours, theirs)
            for ours, theirs in zip(list(source.frames(np.arange(58))), list(exact.frames(np.arange(58))), strict=True)
        )
    with open_source(path, PLAIN, draft=True) as source:
        list(source.frames(np.array([0, 5])))  # right by chance, yet the clips were cut by a wrong number
        assert not source.settle()


def test_a_draft_of_a_damaged_file_ends_in_the_same_error(tmp_path: Path, encode_video: Encode, numbered_frames: Frames) -> None:
    whole = encode_video(tmp_path / "whole.avi", numbered_frames(60), options={"g": "10"})
    path = tmp_path / "cut.avi"
    path.write_bytes(whole.read_bytes()[: int(whole.stat().st_size * 0.6)])
    with pytest.raises(DecodeError, match="the file is cut short") as exact, open_source(path, PLAIN):
        pass
    with open_source(path, PLAIN, draft=True) as source, pytest.raises(DecodeError) as late:
        list(source.frames(np.array([0])))
        source.settle()
    assert str(late.value) == str(exact.value)


@pytest.mark.parametrize("name", ["torchvision_assets", "c3d_examples", "kth", "ut_interaction/set1/0_1_4.avi", "video_features_sample"])
def test_drafts_of_real_videos(name: str, shared_data: Path) -> None:
    place = shared_data / "videos" / name
    for path in sorted(place.glob("*.*[4i]")) if place.is_dir() else [place]:
        with open_source(path, PLAIN) as exact, open_source(path, PLAIN, draft=True) as source:
            first = next(source.frames(np.array([0])))
            assert source.settle()  # else each video of these data sets would be decoded twice
            assert (source.num_frames, source.times.tolist(), source.end) == (exact.num_frames, exact.times.tolist(), exact.end)
            assert np.array_equal(first, next(exact.frames(np.array([0]))))
