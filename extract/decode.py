"""The work of one decode worker: from a file to the frames that its clips need. Imports no torch, so that workers start fast."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.clips import clip_indices, frame_spans, time_spans
from extract.flow_frames import flow_frames, flow_frames_from_files
from extract.spec import FLOW_FILES, FeatureSpec
from extract.video import DraftError, VideoSource, open_source
from extract.worker import Emitter, StageError
from store.errors import DecodeError, PipelineError

BLOCK_BYTES = 8 << 20  # large enough that a message costs nothing, small enough that a few are no memory
BLOCK_FRAMES = 64  # small frames are enlarged by the resize: ten 224-crops of so many are 96 MB, whatever the video's size
HELD_BYTES = 64 << 20  # frames kept back while it is not yet certain which ones are wanted


@dataclass(frozen=True)
class DecodeJob:
    """One video and the spec to cut it by."""

    path: Path
    spec: FeatureSpec
    video_id: str = ""
    flow_root: Path | None = None  # of flow that another tool computed
    flow_weights: str = ""  # of a flow method that is a network
    hold: bool = True  # the first frames back until it is certain which ones are wanted


@dataclass(frozen=True)
class ClipPlan:
    """The clips of one video: ``indices`` [N, T] of frames, ``frames`` [N, 2] first and one past last, ``times`` [N, 2] in seconds."""

    indices: np.ndarray
    frames: np.ndarray
    times: np.ndarray

    @property
    def wanted(self) -> np.ndarray:
        """Frames that any clip uses, sorted, each once: int64 [U]. They are sent in this order."""
        return np.unique(self.indices)


def decode_clips(job: DecodeJob, emitter: Emitter) -> ClipPlan:
    """Send the ``ClipPlan`` of a video, then its wanted frames in order: RGB, or the flow of each; returns the plan with the true times.

    The video is decoded once, by a draft; where that turns out wrong, plan and frames are sent a second time.
    """
    spec = job.spec
    emitter.alive()
    draft = spec.flow.method != FLOW_FILES  # their number is compared with the frames'
    try:
        with open_source(job.path, spec.decode, on_progress=emitter.alive, draft=draft) as source:
            while not _send(source, job, emitter):
                pass
            return clip_plan(source, spec)
    except DecodeError as error:
        raise StageError("decode", str(error)) from None
    except PipelineError as error:
        raise StageError("flow" if spec.flow.method else "decode", str(error)) from None


def promised_clips(job: DecodeJob, emitter: Emitter) -> int:
    """The number of clips that the packets of a video promise; nothing is decoded."""
    try:
        with open_source(job.path, job.spec.decode, on_progress=emitter.alive, draft=True) as source:
            return len(clip_indices(source.num_frames, job.spec.clips))
    except DecodeError as error:
        raise StageError("decode", str(error)) from None


def clip_plan(source: VideoSource, spec: FeatureSpec) -> ClipPlan:
    """The clips that a spec cuts from a video."""
    indices = clip_indices(source.num_frames, spec.clips)
    return ClipPlan(indices, frame_spans(indices), time_spans(indices, source.times, source.end))


def _send(source: VideoSource, job: DecodeJob, emitter: Emitter) -> bool:
    """Send plan and frames; False when they were made by a draft that was wrong."""
    plan = clip_plan(source, job.spec)
    frames = _flow(source, plan.wanted, job) if job.spec.flow.method else source.frames(plan.wanted)
    sender = _Sender(plan, emitter)
    try:
        for block in _blocks(frames):
            sender.block(block, held=source.is_draft and job.hold)
    except DraftError:
        source.settle()
        return False
    if not source.settle():
        return False
    sender.release()
    return True


def _flow(source: VideoSource, wanted: np.ndarray, job: DecodeJob) -> Iterator[np.ndarray]:
    if job.spec.flow.method != FLOW_FILES:
        return flow_frames(source, wanted, job.spec.flow, job.flow_weights)
    return flow_frames_from_files(source, wanted, job.spec.flow, job.flow_root, job.video_id)


class _Sender:
    """Keeps the first blocks of a draft back, so that most videos are known to be whole before anything is computed of them."""

    def __init__(self, plan: ClipPlan, emitter: Emitter) -> None:
        self._plan, self._emitter = plan, emitter
        self._blocks: list[list[np.ndarray]] = []
        self._bytes, self._released = 0, False

    def block(self, frames: list[np.ndarray], held: bool) -> None:
        self._blocks.append(frames)
        self._bytes += len(frames) * frames[0].nbytes
        if self._released or not held or self._bytes > HELD_BYTES:
            self.release()

    def release(self) -> None:
        if not self._released:
            self._emitter.header(self._plan)
        self._released = True
        for block in self._blocks:
            self._emitter.block(block)
        self._blocks.clear()


def _blocks(frames: Iterator[np.ndarray]) -> Iterator[list[np.ndarray]]:
    gathered: list[np.ndarray] = []
    for frame in frames:
        gathered.append(frame)
        if len(gathered) * frame.nbytes >= BLOCK_BYTES or len(gathered) == BLOCK_FRAMES:
            yield gathered
            gathered = []
    if gathered:
        yield gathered
