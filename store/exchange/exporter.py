"""A store's features become files of other tools: digests checked on reading, other files never replaced unasked."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from store.errors import Interrupted, MissingFeaturesError, PipelineError, SpecError, StoreError
from store.exchange import LAYOUTS
from store.exchange.layout import Exporter, Plan
from store.exchange.naming import check_targets, exported_names
from store.exchange.output import same_content, write_files
from store.exchange.sidecar import FILE, sidecar_text
from store.features import FeatureStore
from store.layout import Features, Level
from store.progress import Progress


@dataclass(frozen=True)
class ExportOptions:
    """What to export and how. ``levels`` and ``ids`` None: all."""

    layout: str
    levels: Sequence[str] | None = None
    ids: Sequence[str] | None = None
    float32: bool = False
    plain: bool = False
    strip_suffix: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ExportSummary:
    """How an export ended: done + there + failed + missing = the videos asked for."""

    done: int
    there: int  # equal files were there already
    failed: dict[str, str]  # id -> reason
    missing: list[str] = field(default_factory=list)  # of the list, not in the store
    notes: list[str] = field(default_factory=list)


def export_features(store: FeatureStore, out: Path, options: ExportOptions, stopped: Callable[[], bool] = lambda: False) -> ExportSummary:
    """Write the features of every video asked for into the folder ``out``.

    Raises ``PipelineError`` before anything is written where ids, levels or files of another export stand against it, and
    ``Interrupted`` once ``stopped()`` is true; then the same export goes on.
    """
    asked = list(dict.fromkeys(store.ids() if options.ids is None else options.ids))
    missing = store.missing(asked)
    absent = set(missing)
    ids = [video_id for video_id in asked if video_id not in absent]
    if not ids:
        raise MissingFeaturesError(f"{store.path} has features of none of the {len(asked)} videos asked for; nothing was written")
    levels = _levels(store, options)
    plan = Plan(levels, options.plain, options.overwrite, exported_names(ids, options.strip_suffix), _row_length(store, ids))
    exporter = LAYOUTS.get(options.layout)().exporter(out, plan)
    others = {FILE: sidecar_text(store, options.layout, exporter), **exporter.extra_files()}
    check_targets([(name, path) for name in plan.names for path in exporter.targets(name)] + [(path, path) for path in others])
    _check_others(out, others, options.overwrite)
    done, there, failed = _write(store, ids, exporter, stopped)
    write_files(out, {path: text.encode() for path, text in others.items()}, True)
    return ExportSummary(done, there, failed, missing, exporter.notes())


def _write(store: FeatureStore, ids: Sequence[str], exporter: Exporter, stopped: Callable[[], bool]) -> tuple[int, int, dict[str, str]]:
    done = there = 0
    failed: dict[str, str] = {}
    names = [level.name for level in exporter.plan.levels]
    with exporter, Progress("export", len(ids)) as progress:
        for video_id, name in zip(ids, exporter.plan.names, strict=True):
            if stopped():
                left = len(ids) - done - there - len(failed)
                raise Interrupted(f"interrupted with {left} of {len(ids)} videos left; run the command again")
            try:
                wrote = exporter.write(name, _converted(store.get(video_id, names), exporter.plan.levels))
                done, there = done + wrote, there + (not wrote)
            except PipelineError as error:
                failed[video_id] = str(error)
            progress.advance(note=f"{len(failed)} failed")
    return done, there, failed


def _levels(store: FeatureStore, options: ExportOptions) -> tuple[Level, ...]:
    known = {level.name: level for level in store.layout}
    if unknown := [name for name in options.levels or () if name not in known]:
        raise SpecError(f"{store.path} has no level {', '.join(unknown)}; it has {', '.join(known)}")
    chosen = [known[name] for name in sorted(set(options.levels))] if options.levels else list(known.values())
    return tuple(replace(level, dtype="float32") if options.float32 else level for level in chosen)


def _converted(features: Features, levels: Sequence[Level]) -> Features:
    values = {level.name: features.values[level.name].astype(np.dtype(level.dtype), copy=False) for level in levels}
    return Features(values, features.frames, features.times)


def _row_length(store: FeatureStore, ids: Sequence[str]) -> int:
    """Frames of each row of the first video that can be read, 0 where they differ."""
    for video_id in ids:
        try:
            lengths = set(np.diff(store.get(video_id, []).frames)[:, 0].tolist())
        except StoreError:
            continue
        return lengths.pop() if len(lengths) == 1 else 0
    return 0


def _check_others(out: Path, others: dict[str, str], overwrite: bool) -> None:
    for path, text in others.items():
        if (out / path).exists() and not overwrite and not same_content(out / path, text.encode()):
            raise StoreError(
                f"{out / path} is there and tells of another export (another store, levels, videos or layout), so nothing was written; "
                "give another folder, or --overwrite"
            )
