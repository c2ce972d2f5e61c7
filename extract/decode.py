"""The work of one decode worker: from a file to the frames that its clips need. Imports no torch, so that workers start fast."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import numpy as np

from extract.clips import clip_indices, frame_spans, time_spans
from extract.flow import flow_method
from extract.flow_frames import FileWalk, FlowInputs, FlowWalk, Stacks
from extract.flow_stacks import FlowPlan
from extract.spec import FLOW_FILES, FeatureSpec
from extract.video import DraftError, VideoSource, open_source
from extract.worker import Emitter, StageError
from store.errors import DecodeError, PipelineError

BLOCK_BYTES = 8 << 20  # large enough that a message costs nothing, small enough that a few are no memory
BLOCK_FRAMES = 64  # small frames are enlarged by the resize: ten 224-crops of so many are 96 MB, whatever the video's size
HELD_BYTES = 64 << 20  # frames kept back while it is not yet certain which ones are wanted


@dataclass(frozen=True)
class Stream:
    """What one store wants of a video."""

    spec: FeatureSpec
    flow_weights: str = ""  # of a flow method that is a network
    inputs: Literal["", "grey", "colour"] = ""  # send what flow is computed from, for the job to compute it; see ``extract.flow_device``


@dataclass(frozen=True)
class DecodeJob:
    """One video, and the streams to cut it into, by number; they share ``FeatureSpec.decode``."""

    path: Path
    streams: Mapping[int, Stream]
    video_id: str = ""
    flow_root: Path | None = None  # of flow that another tool computed
    hold: bool = True  # the first frames back until it is certain which ones are wanted


@dataclass(frozen=True)
class ClipPlan:
    """The clips of one video: ``indices`` [N, T] of frames, ``frames`` [N, 2] first and one past last, ``times`` [N, 2] in seconds."""

    indices: np.ndarray
    frames: np.ndarray
    times: np.ndarray
    num_frames: int = 0  # of the video

    @property
    def wanted(self) -> np.ndarray:
        """Frames that any clip uses, sorted, each once: int64 [U]. They are sent in this order."""
        return np.unique(self.indices)


class Refused(NamedTuple):
    """Why one stream of a video has failed, while others may go on."""

    stage: str
    reason: str


def decode_clips(job: DecodeJob, emitter: Emitter) -> dict[int, ClipPlan | Refused]:
    """Send each stream's ``ClipPlan``, then its wanted frames in order: RGB, the flow of each, or what flow is computed from.

    The video is decoded once for all streams, by a draft; where that turns out wrong, plans and frames are sent a second time. Returns
    the plans with the true times, and for streams whose flow cannot be had the reason.
    """
    emitter.alive()
    specs = [stream.spec for stream in job.streams.values()]
    draft = all(spec.flow.method != FLOW_FILES for spec in specs)  # their number is compared with the frames'
    try:
        with open_source(job.path, specs[0].decode, on_progress=emitter.alive, draft=draft) as source:
            while (refused := _send(source, job, emitter)) is None:
                pass
            return {number: refused.get(number) or clip_plan(source, stream.spec) for number, stream in job.streams.items()}
    except DecodeError as error:
        raise StageError("decode", str(error)) from None


def clip_plan(source: VideoSource, spec: FeatureSpec) -> ClipPlan:
    """The clips that a spec cuts from a video."""
    indices = clip_indices(source.num_frames, spec.clips, spec.flow)
    return ClipPlan(indices, frame_spans(indices), time_spans(indices, source.times, source.end), source.num_frames)


def _send(source: VideoSource, job: DecodeJob, emitter: Emitter) -> dict[int, Refused] | None:
    """Send plans and frames; what failed, or None when they were made by a draft that was wrong."""
    senders, cuts, refused = {}, {}, {}
    for number, stream in job.streams.items():
        plan = clip_plan(source, stream.spec)
        senders[number] = _Sender(plan, emitter, number)
        try:
            cuts[number] = _cut(source, plan.wanted, stream, job)
        except (DecodeError, MemoryError):  # of the video, or of the worker
            raise
        except Exception as error:  # whatever flow does, the other streams go on
            refused[number] = _refusal(error, job.streams[number])
    try:
        for number, images in one_pass(source, cuts):
            try:
                for image in images:
                    senders[number].frame(image, held=source.is_draft and job.hold)
            except MemoryError:
                raise
            except Exception as error:
                refused[number] = _refusal(error, job.streams[number])
                del cuts[number]
    except DraftError:
        source.settle()
        return None
    if not source.settle():
        return None
    for number in cuts:
        try:
            senders[number].release()
        except MemoryError:
            raise
        except Exception as error:
            refused[number] = _refusal(error, job.streams[number])
    return refused


def _refusal(error: Exception, stream: Stream) -> Refused:
    stage = "flow" if stream.spec.flow.method else "decode"
    return Refused(stage, str(error) if isinstance(error, PipelineError) else f"{type(error).__name__}: {error}")


class Cut(Protocol):
    """Turns frames of a video into a stream's: ``take`` the frames at ``needed`` (sorted, each once) in order, then ``rest``."""

    needed: np.ndarray

    def take(self, index: int, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Take a frame, RGB uint8 [H, W, 3]; yield what it completes, in the order of the plan."""
        ...

    def rest(self) -> Iterator[np.ndarray]:
        """Yield what is left."""
        ...


def one_pass(source: VideoSource, cuts: Mapping[int, Cut]) -> Iterator[tuple[int, Iterator[np.ndarray]]]:
    """Decode every frame that any of ``cuts`` needs once; yield (number, what its cut makes of it), to be used up at once.

    A cut that the caller takes out of the mapping on the way is asked nothing more.
    """
    union = np.unique(np.concatenate([np.zeros(0, np.int64), *(cut.needed for cut in cuts.values())]))
    needing = {number: np.isin(union, cut.needed) for number, cut in cuts.items()}
    for place, (index, frame) in enumerate(zip(union.tolist(), source.frames(union), strict=True)):
        for number in [number for number in cuts if needing[number][place]]:
            yield number, cuts[number].take(index, frame)
    for number in list(cuts):
        yield number, cuts[number].rest()


class Frames:
    """A ``Cut``: the frames as they are."""

    def __init__(self, needed: np.ndarray) -> None:
        self.needed = needed

    def take(self, index: int, frame: np.ndarray) -> Iterator[np.ndarray]:
        """The frame."""
        yield frame

    def rest(self) -> Iterator[np.ndarray]:
        """There is nothing left."""
        yield from ()


def _cut(source: VideoSource, wanted: np.ndarray, stream: Stream, job: DecodeJob) -> Cut:
    flow = stream.spec.flow
    if not flow.method:
        return Frames(wanted)
    plan = FlowPlan.of(wanted, source.num_frames, flow)
    if stream.inputs:
        return FlowInputs(plan, flow, colour=stream.inputs == "colour")
    if flow.method == FLOW_FILES:
        return Stacks(plan, FileWalk(plan, source, flow, job.flow_root, job.video_id), flow)
    return Stacks(plan, FlowWalk(plan, flow_method(flow, stream.flow_weights), flow, source.path), flow)


class _Sender:
    """Sends a stream's frames in blocks. Those of a draft are kept back at first, so that most videos are known to be whole before
    anything is computed of them."""

    def __init__(self, plan: ClipPlan, emitter: Emitter, stream: int) -> None:
        self._plan, self._emitter, self._stream = plan, emitter, stream
        self._gathered: list[np.ndarray] = []
        self._blocks: list[list[np.ndarray]] = []
        self._bytes, self._released = 0, False

    def frame(self, frame: np.ndarray, held: bool) -> None:
        """Take the next frame; ``held`` says that it is not certain yet."""
        self._gathered.append(frame)
        if len(self._gathered) * frame.nbytes >= BLOCK_BYTES or len(self._gathered) == BLOCK_FRAMES:
            self._block(held)

    def release(self) -> None:
        """All frames are here and certain."""
        if self._gathered:
            self._block(held=True)
        self._send()

    def _block(self, held: bool) -> None:
        block, self._gathered = self._gathered, []
        self._blocks.append(block)
        self._bytes += len(block) * block[0].nbytes
        if self._released or not held or self._bytes > HELD_BYTES:
            self._send()

    def _send(self) -> None:
        if not self._released:
            self._emitter.header(self._plan, self._stream)
        self._released = True
        for block in self._blocks:
            self._emitter.block(block, self._stream)
        self._blocks.clear()
