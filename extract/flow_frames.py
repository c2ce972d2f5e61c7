"""Optical flow of the frames that clips need, as 8-bit images or stacks. Runs in decode workers, so it imports no torch.

What a frame's flow is stands in ``FlowSpec``, its bytes in ``extract.flow_bytes``.
"""

import difflib
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np

from extract.flow import FLOWS, FlowMethod, build_method, flow_method, in_colour
from extract.flow_bytes import dequantised, flow_bytes
from extract.flow_files import check_written, find_flow, written_folders
from extract.flow_stacks import FlowPlan, Gathering
from extract.spec import FLOW_FILES, LARGEST_SIDE, FlowSpec
from extract.video import VideoSource
from store.errors import FeatureError, SpecError

Part = tuple[int, np.ndarray | None, np.ndarray | None]
"""Index of a frame; its flow, float32 [h, w, 2] in pixels or, from image files, uint8 [h, w, 2]; its RGB, uint8 [h, w, 3]."""


class Walk(Protocol):
    """Turns frames of a video into parts: ``take`` the frames at ``needed`` (sorted, each once) in order, then ``rest``."""

    needed: np.ndarray

    def take(self, index: int, frame: np.ndarray) -> Iterator[Part]:
        """Take a frame, RGB uint8 [H, W, 3]; yield what can be said now."""
        ...

    def rest(self) -> Iterator[Part]:
        """Yield what is left."""
        ...


def resolve_flow(spec: FlowSpec, weights: str = "") -> FlowSpec:
    """Write the method's version and every parameter's value into the spec, so that its digest tells them.

    ``weights`` are those of a method that is a network; their identity becomes part of the version. Raises ``SpecError`` for a parameter
    or value that the method does not know, and for a spec that another version of the method resolved.
    """
    if spec.method == FLOW_FILES:
        if spec.params:
            raise SpecError(f"flow.params is {spec.params}, but flow from files has no parameters; say how it was made in --flow.origin")
        if weights:
            raise SpecError(f"flow weights {weights!r} were given, but flow from files is computed already; leave --flow-weights out")
        return replace(spec, short_side=0)  # the files' size is what it is
    family = FLOWS.get(spec.method)
    for name in spec.params:
        if name not in family.defaults:
            near = difflib.get_close_matches(name, family.defaults, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(family.defaults)}"
            raise SpecError(f"flow method {spec.method} has no parameter {name!r}; {hint}")
    params = {**family.defaults, **spec.params}
    version = getattr(build_method(spec.method, params, weights), "version", family.version)  # a network's tells its weights
    if spec.version not in ("", version):
        raise SpecError(f"flow.version is {spec.version!r} but {version!r} is installed; install that one or leave it empty")
    return replace(spec, params=params, version=version)


def flow_frames(source: VideoSource, indices: np.ndarray, spec: FlowSpec, weights: str = "") -> Iterator[np.ndarray]:
    """Yield the flow of each frame of ``indices`` (sorted, each once), in order: uint8 [h, w, C], C = ``extract.modality.flow_channels``.

    Each frame is decoded once and each flow computed once, whatever stacks share it; two frames, the flows of one stack and, with RGB,
    the frames that wait for theirs are held. ``spec`` is resolved. Raises ``FeatureError`` when the method gives NaN or Inf.
    """
    return _stacked(source, indices, spec, lambda plan: FlowWalk(plan, flow_method(spec, weights), spec, source.path))


def flow_frames_from_files(
    source: VideoSource, indices: np.ndarray, spec: FlowSpec, root: Path | None, video_id: str
) -> Iterator[np.ndarray]:
    """As ``flow_frames``, of the flow that ``extract.flow_files`` finds for the video. With RGB, frames are brought to the flow's size.

    Bytes of images are taken as they are (``spec.bound`` and ``spec.quantise`` say how they were made); encoding image turns them back
    into pixels first. Raises ``FeatureError`` for flow that is not there, does not add up or cannot be read.
    """
    return _stacked(source, indices, spec, lambda plan: FileWalk(plan, source, spec, root, video_id))


def _stacked(source: VideoSource, indices: np.ndarray, spec: FlowSpec, walk: Callable[[FlowPlan], Walk]) -> Iterator[np.ndarray]:
    plan = FlowPlan.of(np.asarray(indices, dtype=np.int64), source.num_frames, spec)
    stacks = Stacks(plan, walk(plan), spec)
    for index, frame in zip(stacks.needed.tolist(), source.frames(stacks.needed), strict=True):
        yield from stacks.take(index, frame)
    yield from stacks.rest()


class Stacks:
    """What a network gets of each wanted frame, as soon as its flows are there; a ``Walk`` whose results are uint8 [h, w, C]."""

    def __init__(self, plan: FlowPlan, walk: Walk, spec: FlowSpec) -> None:
        self.needed = walk.needed
        self._walk, self._spec, self._gathering = walk, spec, Gathering[np.ndarray](plan)

    def take(self, index: int, frame: np.ndarray) -> Iterator[np.ndarray]:
        """Take the next needed frame, RGB uint8 [H, W, 3]; yield the stacks that are complete with it."""
        return self._stack(self._walk.take(index, frame))

    def rest(self) -> Iterator[np.ndarray]:
        """Yield what is left once all frames are taken."""
        return self._stack(self._walk.rest())

    def _stack(self, parts: Iterator[Part]) -> Iterator[np.ndarray]:
        for index, flow, colour in parts:
            if flow is not None:
                self._gathering.flow(index, as_bytes(flow, self._spec))
            if colour is not None:
                self._gathering.colour(index, colour)
            for stack in self._gathering.ready():
                yield np.concatenate(stack, 2)


class FlowWalk:
    """Computes flow pair by pair: (i, flow i, None) for each of the plan's pairs and (i, None, RGB) for each of its coloured frames.

    RGB is at the flow's size. The only flow of a video of one frame is zero.
    """

    def __init__(self, plan: FlowPlan, method: FlowMethod, spec: FlowSpec, path: Path) -> None:
        self.needed = plan.needed
        self._single, self._wanted, self._shown = plan.single, set(plan.pairs.tolist()), set(plan.coloured.tolist())
        self._method, self._spec, self._path = method, spec, path
        self._before: np.ndarray | None = None

    def take(self, index: int, frame: np.ndarray) -> Iterator[Part]:
        """See ``Walk``."""
        image = flow_input(frame, self._spec.short_side, in_colour(self._method))
        before, self._before = self._before, image
        if self._single and index in self._wanted:
            yield 0, np.zeros((*image.shape[:2], 2), np.float32), None
        elif index - 1 in self._wanted and before is not None:
            flow = self._method(before, image)
            if not np.isfinite(flow).all():
                raise FeatureError(not_finite(self._path, self._spec, index - 1))
            yield index - 1, flow, None
        if index in self._shown:
            yield index, None, flow_size(frame, self._spec.short_side)

    def rest(self) -> Iterator[Part]:
        """There is nothing left."""
        yield from ()


class FlowInputs:
    """Not flow but what it is computed from, for a job that computes it on a device: uint8 [h, w, C] of each needed frame.

    C is 1 (grey), 3 (RGB, which a method in colour takes), or 4 (RGB, and the grey that the method takes).
    """

    def __init__(self, plan: FlowPlan, spec: FlowSpec, colour: bool) -> None:
        self.needed = plan.needed
        self._short_side = spec.short_side
        self._rgb, self._grey = colour or spec.with_rgb, not colour

    def take(self, index: int, frame: np.ndarray) -> Iterator[np.ndarray]:
        """The input of a frame, RGB uint8 [H, W, 3]."""
        rgb = [flow_size(frame, self._short_side)] if self._rgb else []
        grey = [flow_grey(frame, self._short_side)[..., None]] if self._grey else []
        yield np.concatenate([*rgb, *grey], 2)

    def rest(self) -> Iterator[np.ndarray]:
        """There is nothing left."""
        yield from ()


class FileWalk:
    """As ``FlowWalk``, of the flow that ``extract.flow_files`` finds for the video; frames are needed for their RGB only."""

    def __init__(self, plan: FlowPlan, source: VideoSource, spec: FlowSpec, root: Path | None, video_id: str) -> None:
        self.needed = plan.coloured
        self._pairs = deque(plan.pairs.tolist())
        self._files, self._size = None, (source.height, source.width)
        self._first: int | None = None  # flow that was read; all others need its size
        if plan.single:
            return
        self._files = find_flow(root, source.path, video_id)
        self._files.check_count(source.num_frames)
        for folder in written_folders(root, source.path, video_id) if self._files.images else ():
            check_written(folder, spec)

    def take(self, index: int, frame: np.ndarray) -> Iterator[Part]:
        """See ``Walk``."""
        yield from self._until(index)
        sized = frame.shape[:2] == self._size
        yield index, None, frame if sized else cv2.resize(frame, self._size[::-1], interpolation=cv2.INTER_LINEAR)

    def rest(self) -> Iterator[Part]:
        """The flows behind the last frame that is needed."""
        return self._until(None)

    def _until(self, last: int | None) -> Iterator[Part]:
        while self._pairs and (last is None or self._pairs[0] <= last):
            pair = self._pairs.popleft()
            flow = np.zeros((*self._size, 2), np.float32) if self._files is None else self._files.read(pair)
            if self._first is not None and flow.shape[:2] != self._size:
                sizes = f"{flow.shape[1]}x{flow.shape[0]} but flow {self._first} {self._size[1]}x{self._size[0]}"
                raise FeatureError(f"{self._place}: flow {pair} is {sizes}; all flow of a video needs one size")
            self._first = pair if self._first is None else self._first
            self._size = flow.shape[:2]
            yield pair, flow, None

    @property
    def _place(self) -> Path | None:
        return self._files.place if self._files else None


def as_bytes(flow: np.ndarray, spec: FlowSpec) -> np.ndarray:
    """What the network gets of a flow of ``walk_flows`` or ``read_flows``, see ``extract.flow_bytes``."""
    if flow.dtype != np.uint8:
        return flow_bytes(flow, spec)
    return flow if spec.encoding == "pairs" else flow_bytes(dequantised(flow, spec.bound, spec.quantise), spec)


def walk_flows(source: VideoSource, pairs: np.ndarray, coloured: np.ndarray, spec: FlowSpec, weights: str = "") -> Iterator[Part]:
    """Decode once through the video: (i, flow i, None) for each of ``pairs`` and (i, None, RGB) for each of ``coloured``, as they come.

    Both are sorted, each index once; see ``FlowWalk``.
    """
    plan = FlowPlan(coloured, pairs[None], pairs, coloured, source.num_frames == 1)
    return _walked(source, FlowWalk(plan, flow_method(spec, weights), spec, source.path))


def read_flows(
    source: VideoSource, pairs: np.ndarray, coloured: np.ndarray, spec: FlowSpec, root: Path | None, video_id: str
) -> Iterator[Part]:
    """As ``walk_flows``, of the flow that ``extract.flow_files`` finds for the video."""
    plan = FlowPlan(coloured, pairs[None], pairs, coloured, source.num_frames == 1)
    return _walked(source, FileWalk(plan, source, spec, root, video_id))


def _walked(source: VideoSource, walk: Walk) -> Iterator[Part]:
    for index, frame in zip(walk.needed.tolist(), source.frames(walk.needed), strict=True):
        yield from walk.take(index, frame)
    yield from walk.rest()


def flow_input(frame: np.ndarray, short_side: int, colour: bool) -> np.ndarray:
    """What a method is given of a frame, RGB uint8 [H, W, 3]: itself or its grey, [h, w, 3] or [h, w], see ``flow_size``."""
    return flow_size(frame, short_side) if colour else flow_grey(frame, short_side)


def not_finite(path: Path, spec: FlowSpec, pair: int) -> str:
    """What to say of a flow with NaN or Inf."""
    return f"{path}: flow method {spec.method} gives NaN or Inf between frames {pair} and {pair + 1}"


def flow_grey(frame: np.ndarray, short_side: int) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> grey uint8 [h, w], see ``flow_size``."""
    return flow_size(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), short_side)


def flow_size(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize uint8 [H, W] or [H, W, 3] to the given short side (0: as it is); the long side is rounded down.

    Shrunk by area averages, enlarged bilinearly. ``FeatureError`` for a strip that no memory holds.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short_side in (0, short):
        return image
    size = (short_side * width // short, short_side * height // short)
    if max(size) > LARGEST_SIDE:
        raise FeatureError(
            f"frames of {width}x{height} with flow.short_side {short_side} would be {size[0]}x{size[1]}; sides are at most {LARGEST_SIDE}"
        )
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if short_side < short else cv2.INTER_LINEAR)
