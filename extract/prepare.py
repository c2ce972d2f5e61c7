"""From names to an extraction that can start: the spec resolved to its last default, the weights loaded, the store opened."""

import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from extract.backbones import Backbone, resolve_levels
from extract.device import resolve_device
from extract.dry_run import Coming, Forecast, forecast
from extract.fit import as_trained, check_fit, notes, with_format
from extract.flow import weights_for
from extract.flow_device import check_flow_on
from extract.flow_files import check_root
from extract.flow_frames import resolve_flow
from extract.fold import fold
from extract.modality import with_quantise
from extract.precision import compiled, prepare
from extract.presets import preset, store_name
from extract.run import Prepared, Summary, extract_together
from extract.spec import FLOW_FILES, FeatureSpec, RunOptions
from extract.weights import load_backbone
from extract.wishes import Wish
from store.digest import to_plain
from store.errors import SpecError
from store.features import FeatureStore
from store.options import resolve
from store.videos import VideoList


def extract_list(
    videos: VideoList,
    wishes: Sequence[Wish],
    options: RunOptions,
    out: Path,
    part: str = "main",
    stopped: Callable[[], bool] = lambda: False,
) -> list[tuple[Path, Summary]]:
    """Everything that ``actioncache extract`` does; returns each store's folder and summary. ``part`` names its shards."""
    prepared = prepare_wishes(wishes, options)
    told = [tuple(notes(spec, backbone.info)) for spec, backbone in prepared]
    for note in dict.fromkeys(note for each in told for note in each):  # now, and not only in the summary hours later
        print(f"note: {note}", file=sys.stderr, flush=True)
    streams = [
        Prepared(spec, backbone, FeatureStore.create(out, wish.name or store_name(wish.preset), to_plain(spec)))
        for wish, (spec, backbone) in zip(wishes, prepared, strict=True)
    ]
    summaries = extract_together(videos, streams, options, part, stopped)
    return [
        (stream.store.path, replace(summary, notes=(*each, *summary.notes)))
        for stream, summary, each in zip(streams, summaries, told, strict=True)
    ]


def forecast_list(
    videos: VideoList,
    wishes: Sequence[Wish],
    options: RunOptions,
    out: Path,
    stopped: Callable[[], bool] = lambda: False,
) -> list[tuple[Path, Forecast]]:
    """What ``extract_list`` would do; returns the folder of each store, which is not made, and the forecast."""
    places, coming = [], []
    for wish, (spec, backbone) in zip(wishes, prepare_wishes(wishes, options), strict=True):
        places.append(FeatureStore.place(out, wish.name or store_name(wish.preset), to_plain(spec)))
        coming.append(Coming(spec, backbone, FeatureStore.open(places[-1]) if places[-1].exists() else None))
    return list(zip(places, forecast(videos, coming, options, stopped), strict=True))


def prepare_wishes(wishes: Sequence[Wish], options: RunOptions) -> list[tuple[FeatureSpec, Backbone]]:
    """The resolved spec and the network of each; ``SpecError`` for what cannot be done in one pass over the videos."""
    device = resolve_device(options.device)
    plain = [resolve(FeatureSpec, preset(wish.preset) if wish.preset else {}, wish.overrides) for wish in wishes]
    learned = [weights_for(spec.flow, options.flow_weights) for spec in plain]
    weights = learned if any(learned) else [options.flow_weights] * len(wishes)  # the wrong ones are told where they are used
    prepared = [prepare_spec(wish.preset, wish.overrides, wish.weights, device, each) for wish, each in zip(wishes, weights, strict=True)]
    for spec, _ in prepared:
        check_flow_on(spec.flow, options)
        if spec.flow.method == FLOW_FILES and options.flow_root:
            check_root(Path(options.flow_root), spec.flow)
    first, *others = [spec for spec, _ in prepared]
    for other in others:
        if other == first:
            raise SpecError(
                "both streams have one and the same spec, so they would be one store; leave the second out, or change a setting"
            )
        if other.decode != first.decode:
            raise SpecError(
                f"one pass over a video decodes it in one way, but the streams have {first.decode} and {other.decode}; "
                "set --decode.* flags, which go for both, or run two commands"
            )
    return prepared


def prepare_spec(
    preset_name: str | None, overrides: Mapping[str, Any], weights: str | None, device: torch.device, flow_weights: str = ""
) -> tuple[FeatureSpec, Backbone]:
    """Resolve a spec completely (preset < overrides; weights' identity, levels, flow parameters) and load its network."""
    spec = resolve(FeatureSpec, preset(preset_name) if preset_name else {}, overrides)
    loaded = load_backbone(spec.backbone, weights or spec.weights or None, spec.levels)  # --weights, else a config file's
    info = loaded.backbone.info
    if flow_weights and not spec.flow.method:
        raise SpecError(
            f"flow weights {flow_weights!r} were given, but the spec has no flow; set --flow.method or leave --flow-weights out"
        )
    flow = with_quantise(resolve_flow(spec.flow, flow_weights), info) if spec.flow.method else spec.flow
    spec = as_trained(replace(spec, weights=loaded.identity, levels=resolve_levels(info, spec.levels), flow=flow), info)
    spec = with_format(spec, info, loaded.backbone.extras)
    check_fit(spec, info)
    backbone = fold(loaded.backbone, spec.levels) if spec.fold_bn else loaded.backbone
    prepare(backbone, spec.precision, spec.channels_last, device)
    return spec, compiled(backbone) if spec.compile else backbone
