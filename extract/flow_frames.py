"""Optical flow of the frames that clips need, as 8-bit images. Runs in decode workers, so it imports no torch.

The meaning of a flow image stands in ``FlowSpec``.
"""

import difflib
from collections.abc import Iterator
from dataclasses import replace

import cv2
import numpy as np

from extract.flow import FLOWS, FlowMethod
from extract.spec import FlowSpec
from extract.video import VideoSource
from store.errors import FeatureError, SpecError


def resolve_flow(spec: FlowSpec) -> FlowSpec:
    """Write the method's version and every parameter's value into the spec, so that its digest tells them.

    Raises ``SpecError`` for a parameter or value that the method does not know, and for a spec that another version of the method resolved.
    """
    family = FLOWS.get(spec.method)
    for name in spec.params:
        if name not in family.defaults:
            near = difflib.get_close_matches(name, family.defaults, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(family.defaults)}"
            raise SpecError(f"flow method {spec.method} has no parameter {name!r}; {hint}")
    if spec.version not in ("", family.version):
        raise SpecError(f"flow.version is {spec.version!r} but {family.version!r} is installed; install that one or leave it empty")
    resolved = replace(spec, params={**family.defaults, **spec.params}, version=family.version)
    family(resolved.params)
    return resolved


def flow_frames(source: VideoSource, indices: np.ndarray, spec: FlowSpec) -> Iterator[np.ndarray]:
    """Yield the flow image uint8 [h, w, 3] from frame i to frame i + 1 for each i of ``indices`` (sorted, each once), in order.

    The last frame repeats the flow before it, and a video of one frame has zero flow. Each frame is decoded once, each pair computed
    once, and two frames are held. ``spec`` is resolved. Raises ``FeatureError`` when the method gives NaN or Inf.
    """
    indices = np.asarray(indices, dtype=np.int64)
    if source.num_frames == 1:
        grey = (flow_grey(frame, spec.short_side) for frame in source.frames(indices))
        yield from (encode_flow(np.zeros((*image.shape, 2), np.float32), spec.bound) for image in grey)
        return
    pairs, repeats = np.unique(np.minimum(indices, source.num_frames - 2), return_counts=True)
    for index, flow, count in zip(pairs, _flows(source, pairs, spec), repeats, strict=True):
        if not np.isfinite(flow).all():
            raise FeatureError(f"{source.path}: flow method {spec.method} gives NaN or Inf between frames {index} and {index + 1}")
        image = encode_flow(flow, spec.bound)
        for _ in range(count):
            yield image


def _flows(source: VideoSource, pairs: np.ndarray, spec: FlowSpec) -> Iterator[np.ndarray]:
    """The flow of each pair (i, i + 1), float32 [h, w, 2]."""
    method: FlowMethod = FLOWS.get(spec.method)(spec.params)
    wanted = set(pairs.tolist())
    needed = np.unique(np.concatenate([pairs, pairs + 1]))
    before: np.ndarray | None = None
    for index, frame in zip(needed.tolist(), source.frames(needed), strict=True):
        grey = flow_grey(frame, spec.short_side)
        if index - 1 in wanted and before is not None:
            yield method(before, grey)
        before = grey


def flow_grey(frame: np.ndarray, short_side: int) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> grey uint8 [h, w] with the given short side (0: as it is); the long side is rounded down.

    Shrunk by area averages, enlarged bilinearly.
    """
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    height, width = grey.shape
    short = min(height, width)
    if short_side in (0, short):
        return grey
    size = (short_side * width // short, short_side * height // short)
    return cv2.resize(grey, size, interpolation=cv2.INTER_AREA if short_side < short else cv2.INTER_LINEAR)


def encode_flow(flow: np.ndarray, bound: float) -> np.ndarray:
    """Flow float32 [H, W, 2] in pixels -> uint8 [H, W, 3] (x, y, magnitude).

    A component v becomes round(128 + 127 clip(v, -bound, bound) / bound), from 1 to 255 with 128 for no motion; the magnitude m = sqrt(x²
    + y²) of the flow before clipping becomes round(255 min(m, bound) / bound), with 0 for no motion. Halves are rounded to even, so that
    the mirror of a byte b is exactly 256 - b.
    """
    flow = flow.astype(np.float32, copy=False)
    image = np.empty((*flow.shape[:2], 3), np.uint8)
    image[..., :2] = np.rint(128 + np.clip(flow, -bound, bound) * np.float32(127 / bound))
    image[..., 2] = np.rint(np.minimum(np.hypot(flow[..., 0], flow[..., 1]), bound) * np.float32(255 / bound))
    return image
