"""A spec and its network: what the spec leaves to the network, and whether the two fit."""

from collections.abc import Collection
from dataclasses import replace

from extract.backbones import MAP, BackboneInfo
from extract.clips import stacked_ahead
from extract.modality import check_channels, flow_warning
from extract.spec import FeatureSpec
from store.errors import SpecError


def as_trained(spec: FeatureSpec, info: BackboneInfo) -> FeatureSpec:
    """Write in what a spec leaves to its network: frames in a clip, resize, size of the crop."""
    clips = replace(spec.clips, length=spec.clips.length or info.clip_length)
    crops = replace(spec.crops, resize=spec.crops.resize or info.resize, size=spec.crops.size or info.size)
    return replace(spec, clips=clips, crops=crops)


def with_format(spec: FeatureSpec, info: BackboneInfo, extras: Collection[str]) -> FeatureSpec:
    """Write in the format of a complete spec: later than 1 where its meaning has changed, so that stores of the old meaning stay apart.

    Since 2, whole stacks of flow are what ``segments`` samples (``extract.clips``), and ``extras``, a network's own arrays such as C3D's
    mean cube, stay float32 whatever the precision. Since 3, networks of Caffe's centre (``BackboneInfo.centre``) have it.
    """
    if info.centre != "even":
        return replace(spec, format=3)
    sampled = spec.clips.rule == "segments" and stacked_ahead(spec.flow)
    rounded = bool(extras) and spec.precision != "fp32"
    return replace(spec, format=2 if sampled or rounded else 1)


def check_fit(spec: FeatureSpec, info: BackboneInfo) -> None:
    """A complete spec that does not fit its network is a ``SpecError``, before any video is opened."""
    length, trained = spec.clips.length, info.clip_length
    if trained > 1 and length != trained and (not info.shortest_clip or length < info.shortest_clip):
        shorter = f", or any from {info.shortest_clip} on" if info.shortest_clip else ""
        raise SpecError(f"clips.length is {length} but {info.name} takes clips of {trained} frames{shorter}; set --clips.length {trained}")
    if info.fixed_size and spec.crops.size != info.size:
        raise SpecError(f"crops.size is {spec.crops.size} but {info.name} takes {info.size} and no other; set --crops.size {info.size}")
    if spec.flow.method == "" and spec.flow.params:
        raise SpecError(f"flow.params is {spec.flow.params} but no flow.method is set; set --flow.method or leave the parameters out")
    maps = [level for level in spec.levels if level.endswith(MAP)]
    if maps and spec.crops.count > 1 and not spec.crops.keep:
        mean = maps[0].removesuffix(MAP)
        raise SpecError(f"the mean of {maps[0]} over crops would mix different places; set --crops.count 1, --crops.keep or level {mean}")
    check_channels(spec, info)


def notes(spec: FeatureSpec, info: BackboneInfo) -> list[str]:
    """What fits but may not be meant, in words."""
    return [note for note in (_rate_note(spec, info), flow_warning(spec, info)) if note]


def _rate_note(spec: FeatureSpec, info: BackboneInfo) -> str | None:
    if info.clip_length == 1 or info.fps in (0.0, spec.decode.fps):
        return None
    trained, given = f"{info.name} was trained on clips of {info.fps:g} frames/s", spec.decode.fps
    if given:
        return f"{trained}; this spec has --decode.fps {given:g}"
    return f"{trained}; videos of other rates need --decode.fps {info.fps:g}, which this spec does not set"
