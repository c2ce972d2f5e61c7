"""The flow of a few frames of a video, with the numbers that tell whether it is any good. ``extract.flow_picture`` draws it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.clips import clip_indices
from extract.flow import FLOWS, LearnedFamily
from extract.flow_bytes import dequantised, quantised
from extract.flow_frames import as_bytes, read_flows, resolve_flow, walk_flows
from extract.modality import with_quantise
from extract.presets import preset as preset_settings
from extract.spec import FLOW_FILES, ClipSpec, DecodeSpec, FlowSpec
from extract.video import open_source
from store.digest import Checked
from store.errors import SpecError
from store.options import merge, resolve

if TYPE_CHECKING:
    from extract.backbones import BackboneInfo


@dataclass(frozen=True)
class ShowSpec(Checked):
    """What to show of a video."""

    decode: DecodeSpec = field(default_factory=DecodeSpec)
    flow: FlowSpec = field(default_factory=FlowSpec)


def resolve_shown(
    preset: str | None, overrides: Mapping[str, Any], methods: Sequence[str], weights: str
) -> tuple[DecodeSpec, list[tuple[FlowSpec, str]]]:
    """How to decode, and resolved flow specs with their weights: one for each of ``methods`` (``NAME`` or ``NAME:KEY=NUMBER,...``).

    Without ``methods`` it is that of ``overrides`` or of the preset. Bytes are made as for the preset's network, else ``symmetric``.
    """
    plain = preset_settings(preset) if preset else {}
    base = merge({name: plain[name] for name in ("decode", "flow") if name in plain}, overrides)
    chosen = list(methods) or [name for name in [base.get("flow", {}).get("method", "")] if name]
    if not chosen:
        raise SpecError(f"there is no flow method to show; give --method, e.g. dis; known: {', '.join([*FLOWS, FLOW_FILES])}")
    specs = [_with_method(base, text) for text in chosen]
    networks = [spec for spec in specs if spec.method in FLOWS.names() and isinstance(FLOWS.get(spec.method), LearnedFamily)]
    info = _network(plain["backbone"]) if preset else None
    found = []
    for spec in specs:
        own = weights if spec in networks or not networks else ""
        flow = resolve_flow(spec, own)
        found.append((with_quantise(flow, info) if info else replace(flow, quantise=flow.quantise or "symmetric"), own))
    return resolve(DecodeSpec, base.get("decode", {})), found


def _with_method(base: Mapping[str, Any], text: str) -> FlowSpec:
    """The flow spec of ``base`` with the method and parameters of ``NAME:KEY=NUMBER,...``."""
    name, _, words = text.partition(":")
    pairs = [word.partition("=") for word in words.split(",") if word.strip()]
    try:
        params = {key.strip(): float(value) for key, _, value in pairs}
    except ValueError:
        raise SpecError(f"method {text!r}: write METHOD or METHOD:KEY=NUMBER,KEY=NUMBER") from None
    flow = merge(base.get("flow", {}), {"method": name, "params": params})
    flow["origin"] = (flow.get("origin") or "not told") if name == FLOW_FILES else ""
    return resolve(FlowSpec, flow)


def _network(name: str) -> "BackboneInfo":
    from extract.backbones import backbone_info

    return backbone_info(name)


@dataclass(frozen=True)
class Moment:
    """One frame: its number and time, RGB uint8 [h, w, 3], flow float32 [h, w, 2] in pixels, and that as bytes, uint8 [h, w, 2 or 3].

    ``clipped`` is the share of displacements (x and y each count) beyond the bound; of flow that is bytes already, at the bound.
    """

    index: int
    seconds: float
    rgb: np.ndarray
    flow: np.ndarray
    values: np.ndarray
    clipped: float

    @property
    def lengths(self) -> np.ndarray:
        """Displacement of each pixel in pixels, float32 [h, w]."""
        return np.hypot(self.flow[..., 0], self.flow[..., 1])


@dataclass(frozen=True)
class Strip:
    """Frames of one video under one flow spec."""

    name: str
    spec: FlowSpec
    num_frames: int
    fps: float
    size: tuple[int, int]  # height and width of the frames, pixels
    moments: tuple[Moment, ...]


def sample_strip(
    path: Path, decode: DecodeSpec, spec: FlowSpec, count: int, root: Path | None = None, video_id: str = "", weights: str = ""
) -> Strip:
    """Frames from ``count`` equal parts of a video (fewer where it has fewer) and their flow; ``spec`` is resolved.

    ``root`` and ``video_id`` say where flow from files is. Raises ``DecodeError`` and ``FeatureError``.
    """
    with open_source(path, decode) as source:
        indices = np.unique(clip_indices(source.num_frames, ClipSpec(rule="segments", segments=count, length=1)))
        pairs = np.clip(indices, 0, max(0, source.num_frames - 2))  # the last frame repeats the flow before it
        if spec.method == FLOW_FILES:
            parts = read_flows(source, np.unique(pairs), indices, spec, root, video_id or path.name)
        else:
            parts = walk_flows(source, np.unique(pairs), indices, spec, weights)
        flows, colours = {}, {}
        for index, flow, colour in parts:
            if flow is not None:
                flows[index] = flow
            if colour is not None:
                colours[index] = colour
        moments = tuple(
            _moment(index, float(source.times[index]), colours[index], flows[pair], spec)
            for index, pair in zip(indices.tolist(), pairs.tolist(), strict=True)
        )
        return Strip(path.name, spec, source.num_frames, source.fps, (source.height, source.width), moments)


def _moment(index: int, seconds: float, rgb: np.ndarray, flow: np.ndarray, spec: FlowSpec) -> Moment:
    values = as_bytes(flow, spec)
    if flow.dtype == np.uint8:
        ends = quantised(np.array([-spec.bound, spec.bound], np.float32), spec.bound, spec.quantise)
        clipped = float(np.isin(flow, ends).mean())
        flow = dequantised(flow, spec.bound, spec.quantise)
    else:
        clipped = float((np.abs(flow) > spec.bound).mean())
    return Moment(index, seconds, rgb, flow, values, clipped)


def colour_scale(strips: list[Strip]) -> float:
    """Displacement in pixels that gets the full colour: 99 of 100 pixels of all frames are at most so fast. At least 1."""
    lengths = np.concatenate([moment.lengths.ravel() for strip in strips for moment in strip.moments])
    return max(1.0, float(np.quantile(lengths, 0.99)))


def strip_text(strip: Strip) -> list[str]:
    """The numbers of a strip, a line a frame."""
    lines = [method_words(strip.spec)]
    for moment in strip.moments:
        lengths = moment.lengths
        lines.append(
            f"  frame {moment.index:5}  {moment.seconds:8.2f} s  largest {lengths.max():7.2f} px  mean {lengths.mean():6.2f} px  "
            f"clipped {100 * moment.clipped:.2f} %"
        )
    return lines


def method_words(spec: FlowSpec) -> str:
    """A resolved spec's method in words: name, version, parameters."""
    if spec.method == FLOW_FILES:
        return f"files: {spec.origin}"
    params = ", ".join(f"{name} {value:g}" for name, value in spec.params.items())
    return f"{spec.method} ({spec.version}): {params}" if params else f"{spec.method} ({spec.version})"
