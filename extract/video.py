"""Frames of a video in display order, with the times they are shown at. Used in decode workers, so it imports no torch.

``open_source`` takes an encoded video (``extract.video_file``) or a folder of images (``extract.video_folder``).

How many frames a video has is known for certain only after all of it is decoded. So that a long video need not be decoded twice, or held in
memory, its container's packets are counted first (a draft), the wanted frames are handed on while it is decoded once, and ``settle`` then
tells whether the draft was right. Where it was not (damage, headers that lie), the frames are read again, by the true number.
"""

import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from extract.spec import DecodeSpec
from store.errors import DecodeError, PipelineError

TIE_SECONDS = 1e-6  # times that differ by less are equal: they are sums of rounded numbers
NOTE_SECONDS = 0.5  # how often the caller is told that decoding makes progress


class DraftError(PipelineError):
    """A frame that the draft promised does not decode; ``VideoSource.settle`` finds out what does."""


@dataclass(frozen=True)
class Scan:
    """What one pass over a video found, or what its packets promise.

    ``times`` float64 [K] and ``end`` in seconds since the first frame; the upright size in pixels.
    """

    times: np.ndarray
    end: float
    height: int
    width: int


class VideoSource(ABC):
    """A video whose number of frames and time stamps are known. Enter it before asking anything; leaving it frees everything.

    With ``draft`` they are what the container promises, until ``settle`` has been called.

    Attributes (after entering)
        is_draft: whether what follows is only promised.
        num_frames: frames that really decode, after resampling to ``spec.fps`` where that is set; at least 1.
        times: float64 [num_frames], seconds since the first frame; with ``spec.fps`` frame j is at j / fps.
        end: seconds since the first frame at which the last frame's showing ends.
        fps: average frame rate.
        height, width: of the upright frames in pixels.
    """

    num_frames: int
    times: np.ndarray
    end: float
    fps: float
    height: int
    width: int

    def __init__(self, path: Path, spec: DecodeSpec, on_progress: Callable[[], None] | None = None, draft: bool = False) -> None:
        self.path = path
        self._spec = spec
        self._progress = on_progress
        self._noted = time.monotonic()
        self._wants_draft = draft

    def __enter__(self) -> Self:
        draft = self._draft() if self._wants_draft else None
        self.is_draft = draft is not None
        self._describe(draft or self._scan())
        return self

    def _describe(self, scan: Scan) -> None:
        fps = self._spec.fps
        self.height, self.width = scan.height, scan.width
        self._raw = resample_indices(scan.times, scan.end, fps) if fps else np.arange(len(scan.times))
        self.num_frames = len(self._raw)
        self.times = np.arange(self.num_frames) / fps if fps else scan.times
        self.end = max(scan.end, float(self.times[-1]))
        self.fps = fps or (self.num_frames / self.end if self.end > 0 else 0.0)

    def settle(self) -> bool:
        """Turn the draft into the truth, decoding what is left; whether the number of frames, and every frame given so far, was right.

        Times may differ from the draft's all the same. Raises ``DecodeError`` for a damaged video.
        """
        if not self.is_draft:
            return True
        promised = self._raw
        self._describe(self._scan())
        self.is_draft = False
        return np.array_equal(promised, self._raw)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def frames(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the frames at ``indices`` (sorted, each once, in [0, num_frames)) as RGB uint8 [H, W, 3], all of one size, upright.

        Memory stays bounded by a few frames. Raises ``DecodeError`` when the file changes underneath, and ``DraftError`` when a frame that
        is only promised does not come.
        """
        indices = np.asarray(indices, dtype=np.int64)
        if len(indices) and (indices[0] < 0 or indices[-1] >= self.num_frames or (np.diff(indices) <= 0).any()):
            raise IndexError(f"frame indices must be sorted, each once, from 0 to {self.num_frames - 1}; got {indices}")
        needed, repeats = np.unique(self._raw[indices], return_counts=True)
        for frame, count in zip(self._read(needed), repeats, strict=True):
            for _ in range(count):
                yield frame

    def _note(self) -> None:
        """Tell the caller now and then that work goes on, so that a long video is not taken for a hang."""
        if self._progress is not None and time.monotonic() - self._noted > NOTE_SECONDS:
            self._noted = time.monotonic()
            self._progress()

    @abstractmethod
    def _scan(self) -> Scan:
        """Find number, times and size of the frames, at least one, or ``DecodeError``. In a draft it goes on where ``_read`` ended."""

    def _draft(self) -> Scan | None:
        """What a quick look promises; None where there is none, or where the truth is as quick."""
        return None

    @abstractmethod
    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        """Yield the video's own frames at sorted unique ``indices``, one each."""

    @abstractmethod
    def _close(self) -> None:
        """Free everything."""


def open_source(
    path: Path, spec: DecodeSpec, on_progress: Callable[[], None] | None = None, stream: int | None = None, draft: bool = False
) -> VideoSource:
    """A ``VideoSource`` for a file that FFmpeg reads, or for a folder of images; nothing is read before it is entered.

    ``on_progress`` is called at most twice a second while decoding. ``stream`` is the index of a stream inside the container; without it
    FFmpeg's choice (the best video stream, usually the largest) is taken. With ``draft`` entering decodes nothing, see ``settle``. Raises
    ``DecodeError``, with the reason, when the path does not exist or is empty; entering the source, or ``settle``, raises it for everything
    else that cannot be turned into frames.
    """
    path = Path(path)
    if not path.exists():
        raise DecodeError(f"{path}: no such file; check the path in the video list and its root")
    if path.is_dir():
        from extract.video_folder import FolderSource

        return FolderSource(path, spec, on_progress)
    if not path.is_file():
        raise DecodeError(f"{path}: neither a file nor a folder")
    if path.stat().st_size == 0:
        raise DecodeError(f"{path}: the file is empty (0 bytes); copy or download it again")
    from extract.video_file import FileSource

    return FileSource(path, spec, on_progress, stream, draft)


def resample_indices(times: np.ndarray, end: float, fps: float) -> np.ndarray:
    """Index of the source frame nearest in time to j / fps for each output frame j: int64 [K], K = max(1, floor(end * fps + 1/2)).

    ``times`` float64 [n], non-decreasing seconds since the first frame; ``end`` the end of the last one. Of two frames equally near the
    earlier is taken; of frames with one and the same time the first.
    """
    targets = np.arange(max(1, int(np.floor(end * fps + 0.5 + TIE_SECONDS)))) / fps
    after = np.clip(np.searchsorted(times, targets), 0, len(times) - 1)  # first frame at or after the target
    before = np.searchsorted(times, times[np.maximum(after - 1, 0)])
    return np.where(targets - times[before] <= times[after] - targets + TIE_SECONDS, before, after).astype(np.int64)
