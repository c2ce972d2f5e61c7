"""Whether what a spec makes of a video is what a network takes: RGB, flow, or both; and flow's bytes. Imports no torch."""

import re
from dataclasses import replace
from typing import TYPE_CHECKING

from extract.spec import FLOW_FILES, FeatureSpec, FlowSpec
from store.errors import SpecError

if TYPE_CHECKING:
    from extract.backbones import BackboneInfo

RGB_CHANNELS = 3


def flow_channels(spec: FlowSpec) -> int:
    """Channels of one frame: 3 for RGB and for flow drawn as an image, two a pair of a stack, and 3 more for RGB before it."""
    if not spec.method or spec.encoding == "image":
        return 3
    return 2 * spec.pairs + (RGB_CHANNELS if spec.with_rgb else 0)


def with_quantise(flow: FlowSpec, info: "BackboneInfo") -> FlowSpec:
    """Write into ``flow`` how its bytes are made where it does not say: as for the network's training, else symmetric."""
    return replace(flow, quantise=flow.quantise or info.quantise or "symmetric")


def check_channels(spec: FeatureSpec, info: "BackboneInfo") -> None:
    """Raise ``SpecError`` when the frames that ``spec`` gives are not those that the network takes, with the flags that fit."""
    flow = spec.flow
    if not flow.method and flow.encoding != "image":
        raise SpecError(f"flow.encoding is {flow.encoding} but no flow.method is set; set --flow.method, e.g. dis, or leave it out")
    given = "rgb" if not flow.method or flow.encoding == "image" else "rgb+flow" if flow.with_rgb else "flow"
    if given == info.modality and flow_channels(flow) == info.channels:
        return
    raise SpecError(f"{info.name} takes {_taken(info)}, but this spec gives it {_given(flow)}; {_flags(info)}")


def flow_warning(spec: FeatureSpec, info: "BackboneInfo") -> str | None:
    """That a network is fed another flow than it was trained on, in words; None where it is not, or where nobody says what it was."""
    method, trained = spec.flow.method, info.flow_method
    if not method or not trained or method == trained:
        return None
    if method == FLOW_FILES:
        named = trained in re.sub(r"[^a-z0-9]", "", spec.flow.origin.lower())  # "TV-L1, dense_flow" names tvl1
        return None if named else f"{info.name} was trained on {trained} flow, which flow.origin {spec.flow.origin!r} does not name"
    return f"{info.name} was trained on {trained} flow; with --flow.method {method} its features may be worse than with {trained}"


def _given(flow: FlowSpec) -> str:
    channels = f"({flow_channels(flow)} channels)"
    if not flow.method:
        return f"RGB {channels}"
    if flow.encoding == "image":
        return f"flow drawn as an image {channels}"
    return f"{'RGB and ' if flow.with_rgb else ''}{_pairs(flow.pairs)} {channels}"


def _taken(info: "BackboneInfo") -> str:
    channels = f"({info.channels} channels)"
    if info.modality == "rgb":
        return f"RGB, or flow drawn as an image {channels}"
    return f"{'RGB and ' if info.modality == 'rgb+flow' else ''}{_pairs(_stack(info))} {channels}"


def _flags(info: "BackboneInfo") -> str:
    if info.modality == "rgb":
        return "leave --flow.method out, or set --flow.encoding image --flow.pairs 1 --flow.offset 0 --no-flow.with-rgb"
    rgb = "--flow.with-rgb" if info.modality == "rgb+flow" else "--no-flow.with-rgb"
    return f"set --flow.method, e.g. dis, and --flow.encoding pairs --flow.pairs {_stack(info)} {rgb}"


def _stack(info: "BackboneInfo") -> int:
    return (info.channels - (RGB_CHANNELS if info.modality == "rgb+flow" else 0)) // 2


def _pairs(count: int) -> str:
    return f"{count} flow field{'s' * (count > 1)}"
