"""Optical flow of the frames that clips need, as 8-bit images or stacks. Runs in decode workers, so it imports no torch.

What a frame's flow is stands in ``FlowSpec``, its bytes in ``extract.flow_bytes``.
"""

import difflib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np

from extract.flow import FLOWS, build_method, flow_method, in_colour
from extract.flow_bytes import dequantised, flow_bytes
from extract.flow_files import check_written, find_flow, written_folders
from extract.spec import FLOW_FILES, FlowSpec
from extract.video import VideoSource
from store.errors import FeatureError, SpecError

Part = tuple[int, np.ndarray | None, np.ndarray | None]
"""Index of a frame; its flow, float32 [h, w, 2] in pixels or, from image files, uint8 [h, w, 2]; its RGB, uint8 [h, w, 3]."""


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
    indices = np.asarray(indices, dtype=np.int64)
    stacks = stack_indices(indices, source.num_frames, spec)
    return _stacked(indices, stacks, walk_flows(source, np.unique(stacks), indices if spec.with_rgb else indices[:0], spec, weights), spec)


def flow_frames_from_files(
    source: VideoSource, indices: np.ndarray, spec: FlowSpec, root: Path | None, video_id: str
) -> Iterator[np.ndarray]:
    """As ``flow_frames``, of the flow that ``extract.flow_files`` finds for the video. With RGB, frames are brought to the flow's size.

    Bytes of images are taken as they are (``spec.bound`` and ``spec.quantise`` say how they were made); encoding image turns them back
    into pixels first. Raises ``FeatureError`` for flow that is not there, does not add up or cannot be read.
    """
    indices = np.asarray(indices, dtype=np.int64)
    stacks = stack_indices(indices, source.num_frames, spec)
    coloured = indices if spec.with_rgb else indices[:0]
    return _stacked(indices, stacks, read_flows(source, np.unique(stacks), coloured, spec, root, video_id), spec)


def _stacked(indices: np.ndarray, stacks: np.ndarray, parts_as_they_come: Iterator[Part], spec: FlowSpec) -> Iterator[np.ndarray]:
    flows: dict[int, np.ndarray] = {}  # those that a stack to come needs
    colours: dict[int, np.ndarray] = {}
    done = 0
    for index, flow, colour in parts_as_they_come:
        if flow is not None:
            flows[index] = as_bytes(flow, spec)
        if colour is not None:
            colours[index] = colour
        while done < len(indices) and stacks[done, -1] in flows and (not spec.with_rgb or indices[done] in colours):
            parts = [flows[pair] for pair in stacks[done].tolist()]
            yield np.concatenate([colours.pop(int(indices[done])), *parts] if spec.with_rgb else parts, 2)
            done += 1
            oldest = stacks[done, 0] if done < len(indices) else np.inf
            flows = {pair: image for pair, image in flows.items() if pair >= oldest}


def stack_indices(indices: np.ndarray, num_frames: int, spec: FlowSpec) -> np.ndarray:
    """Which flows each frame's stack holds: int64 [U, N], ascending in each row, from 0 to the last flow, ``num_frames`` - 2."""
    flows = indices[:, None] + spec.offset + np.arange(spec.pairs)
    return np.clip(flows, 0, max(0, num_frames - 2))


def read_flows(
    source: VideoSource, pairs: np.ndarray, coloured: np.ndarray, spec: FlowSpec, root: Path | None, video_id: str
) -> Iterator[Part]:
    """As ``walk_flows``, of the flow that ``extract.flow_files`` finds for the video."""
    files = None
    if source.num_frames > 1:
        files = find_flow(root, source.path, video_id)
        files.check_count(source.num_frames)
        for folder in written_folders(root, source.path, video_id) if files.images else ():
            check_written(folder, spec)
    wanted, size = set(pairs.tolist()), (source.height, source.width)
    colours = zip(coloured.tolist(), source.frames(coloured), strict=True)
    for index in np.unique(np.concatenate([pairs, coloured])).tolist():
        if index in wanted:
            flow = np.zeros((*size, 2), np.float32) if files is None else files.read(index)
            size = flow.shape[:2]
            yield index, flow, None
        if len(coloured) and index in coloured:
            frame = next(colours)[1]
            yield index, None, frame if frame.shape[:2] == size else cv2.resize(frame, size[::-1], interpolation=cv2.INTER_LINEAR)


def as_bytes(flow: np.ndarray, spec: FlowSpec) -> np.ndarray:
    """What the network gets of a flow of ``walk_flows`` or ``read_flows``, see ``extract.flow_bytes``."""
    if flow.dtype != np.uint8:
        return flow_bytes(flow, spec)
    return flow if spec.encoding == "pairs" else flow_bytes(dequantised(flow, spec.bound, spec.quantise), spec)


def walk_flows(source: VideoSource, pairs: np.ndarray, coloured: np.ndarray, spec: FlowSpec, weights: str = "") -> Iterator[Part]:
    """Decode once through the video: (i, flow i, None) for each of ``pairs`` and (i, None, RGB) for each of ``coloured``, as they come.

    Both are sorted, each index once; RGB is at the flow's size. The only flow of a video of one frame is zero.
    """
    method = flow_method(spec, weights)
    colour = in_colour(method)
    wanted, shown, single = set(pairs.tolist()), set(coloured.tolist()), source.num_frames == 1
    needed = np.unique(np.concatenate([pairs, coloured] if single else [pairs, pairs + 1, coloured]))
    before: np.ndarray | None = None
    for index, frame in zip(needed.tolist(), source.frames(needed), strict=True):
        image = flow_size(frame, spec.short_side) if colour else flow_grey(frame, spec.short_side)
        if single and index in wanted:
            yield 0, np.zeros((*image.shape[:2], 2), np.float32), None
        elif index - 1 in wanted and before is not None:
            flow = method(before, image)
            if not np.isfinite(flow).all():
                raise FeatureError(f"{source.path}: flow method {spec.method} gives NaN or Inf between frames {index - 1} and {index}")
            yield index - 1, flow, None
        if index in shown:
            yield index, None, flow_size(frame, spec.short_side)
        before = image


def flow_grey(frame: np.ndarray, short_side: int) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> grey uint8 [h, w], see ``flow_size``."""
    return flow_size(cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY), short_side)


def flow_size(image: np.ndarray, short_side: int) -> np.ndarray:
    """Resize uint8 [H, W] or [H, W, 3] to the given short side (0: as it is); the long side is rounded down.

    Shrunk by area averages, enlarged bilinearly.
    """
    height, width = image.shape[:2]
    short = min(height, width)
    if short_side in (0, short):
        return image
    size = (short_side * width // short, short_side * height // short)
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if short_side < short else cv2.INTER_LINEAR)
