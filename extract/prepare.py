"""From names to an extraction that can start: the spec resolved to its last default, the weights loaded, the store opened."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from extract.backbones import Backbone, resolve_levels
from extract.device import resolve_device
from extract.dry_run import Forecast, forecast
from extract.engine import make_network
from extract.fit import as_trained, check_fit, notes
from extract.flow_files import check_written
from extract.flow_frames import resolve_flow
from extract.fold import fold
from extract.modality import with_quantise
from extract.precision import compiled, prepare
from extract.presets import preset, store_name
from extract.run import Summary, extract_features
from extract.spec import FLOW_FILES, FeatureSpec, RunOptions
from extract.weights import load_backbone
from store.digest import to_plain
from store.errors import SpecError
from store.features import FeatureStore
from store.options import resolve
from store.videos import VideoList


def extract_list(
    videos: VideoList,
    preset_name: str | None,
    overrides: Mapping[str, Any],
    weights: str | None,
    options: RunOptions,
    out: Path,
    name: str | None = None,
    part: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Path, Summary]:
    """Everything that ``actioncache extract`` does; returns the store's folder and the summary."""
    part_name, chosen = choose_part(videos, part)
    spec, backbone = prepare_spec(preset_name, overrides, weights, resolve_device(options.device), options.flow_weights)
    if spec.flow.method == FLOW_FILES and options.flow_root:
        check_written(Path(options.flow_root), spec.flow)
    told = tuple(notes(spec, backbone.info))
    for note in told:  # now, and not only in the summary hours later
        print(f"note: {note}", file=sys.stderr, flush=True)
    store = FeatureStore.create(out, name or store_name(preset_name), to_plain(spec))
    summary = extract_features(chosen, spec, store, backbone, options, part_name, stopped)
    return store.path, replace(summary, notes=(*told, *summary.notes))


def forecast_list(
    videos: VideoList,
    preset_name: str | None,
    overrides: Mapping[str, Any],
    weights: str | None,
    options: RunOptions,
    out: Path,
    name: str | None = None,
    part: str | None = None,
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Path, Forecast]:
    """What ``extract_list`` would do; returns the store's folder, which is not made, and the forecast."""
    _, chosen = choose_part(videos, part)
    spec, backbone = prepare_spec(preset_name, overrides, weights, resolve_device(options.device), options.flow_weights)
    path = FeatureStore.place(out, name or store_name(preset_name), to_plain(spec))
    store = FeatureStore.open(path) if path.exists() else None
    return path, forecast(chosen, spec, store, lambda: make_network(backbone, spec, options), options, stopped)


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
    check_fit(spec, info)
    backbone = fold(loaded.backbone, spec.levels) if spec.fold_bn else loaded.backbone
    prepare(backbone, spec.precision, spec.channels_last, device)
    return spec, compiled(backbone) if spec.compile else backbone


def choose_part(videos: VideoList, part: str | None) -> tuple[str, VideoList]:
    """``I/N`` -> a name for its shards and its videos; no part is the whole list, called ``main``."""
    if part is None:
        return "main", videos
    index, slash, count = part.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SpecError(f"part is {part!r}; write I/N with 1 <= I <= N, for example 1/4")
    return f"{index}of{count}", videos.part(int(index), int(count))
