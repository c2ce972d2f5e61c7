"""The work of one decode worker: from a file to the frames that its clips need. Imports no torch, so that workers start fast."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from extract.clips import clip_indices, frame_spans, time_spans
from extract.flow_frames import flow_frames, flow_frames_from_files
from extract.pool import Emitter, StageError
from extract.spec import FLOW_FILES, FeatureSpec
from extract.video import VideoSource, open_source
from store.errors import DecodeError, PipelineError

BLOCK_BYTES = 8 << 20  # large enough that a message costs nothing, small enough that a few are no memory
BLOCK_FRAMES = 64  # small frames are enlarged by the resize: ten 224-crops of so many are 96 MB, whatever the video's size


@dataclass(frozen=True)
class DecodeJob:
    """One video and the spec to cut it by."""

    path: Path
    spec: FeatureSpec
    video_id: str = ""
    flow_root: Path | None = None  # of flow that another tool computed


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


def decode_clips(job: DecodeJob, emitter: Emitter) -> None:
    """Send the ``ClipPlan`` of a video, then its wanted frames in order: RGB, or the encoded flow from each to the next frame."""
    spec = job.spec
    try:
        source = open_source(job.path, spec.decode, on_progress=emitter.alive)
        with source:
            indices = clip_indices(source.num_frames, spec.clips)
            plan = ClipPlan(indices, frame_spans(indices), time_spans(indices, source.times, source.end))
            emitter.header(plan)
            frames = _flow(source, plan.wanted, job) if spec.flow.method else source.frames(plan.wanted)
            for block in _blocks(frames):
                emitter.block(block)
    except DecodeError as error:
        raise StageError("decode", str(error)) from None
    except PipelineError as error:
        raise StageError("flow" if spec.flow.method else "decode", str(error)) from None


def _flow(source: VideoSource, wanted: np.ndarray, job: DecodeJob) -> Iterator[np.ndarray]:
    if job.spec.flow.method != FLOW_FILES:
        return flow_frames(source, wanted, job.spec.flow)
    return flow_frames_from_files(source, wanted, job.spec.flow, job.flow_root, job.video_id)


def _blocks(frames: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    gathered: list[np.ndarray] = []
    for frame in frames:
        gathered.append(frame)
        if len(gathered) * frame.nbytes >= BLOCK_BYTES or len(gathered) == BLOCK_FRAMES:
            yield np.stack(gathered)
            gathered = []
    if gathered:
        yield np.stack(gathered)
