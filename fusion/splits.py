"""Several splits judged together: each one's figures, their mean as papers print it, and intervals that respect videos shared by splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.bootstrap import Interval, Units, interval, resamples
from fusion.results import Results, TableResult, judge, units_of
from fusion.spec import EvaluateSpec
from fusion.words import drawn, percent, signed
from store.errors import SpecError
from store.scores import ScoreTable


@dataclass(frozen=True)
class MeanFigures:
    """Means over splits of one table's figures; ``gain`` is over the reference table, with its paired interval (None for itself)."""

    name: str
    top1: float
    top5: float
    mean_class: float
    top1_interval: Interval
    gain: float | None
    gain_interval: Interval | None


@dataclass(frozen=True)
class SplitResults:
    """Results of each split, means in the order of the tables, the table that others are compared with, what a resample of all draws."""

    splits: tuple[Results, ...]
    means: tuple[MeanFigures, ...]
    reference: str
    units: Units


def judge_splits(
    splits: Sequence[Mapping[str, ScoreTable]], spec: EvaluateSpec | None = None, groups: Mapping[str, str] | None = None
) -> SplitResults:
    """Judge the same named tables on each split. Reference: ``spec.against``, else the table with the best mean.

    A resample draws groups, or videos without ``groups``, from all that occur in any split and takes each split's share of it, since a
    video may be tested in several.
    """
    spec = spec or EvaluateSpec()
    names = list(splits[0])
    for number, tables in enumerate(splits, 1):
        if list(tables) != names:
            raise SpecError(f"split {number} has the tables {', '.join(tables)}, the first one {', '.join(names)}; give the same for each")
    if spec.against and spec.against not in names:
        raise SpecError(f"there is no table {spec.against!r} to compare with; tables: {', '.join(names)}")
    results = tuple(judge(tables, spec, groups) for tables in splits)
    rows = {name: [split.table(name) for split in results] for name in names}
    top1 = {name: float(np.mean([row.evaluation.top1 for row in rows[name]])) for name in names}
    reference = spec.against or max(names, key=lambda name: top1[name])
    ids = list(dict.fromkeys(one for split in results for one in split.aligned.ids))
    units = units_of(ids, spec, groups)
    draws = _draws(results, rows, dict(zip(ids, units.of.tolist(), strict=True)), units.count, spec)
    return SplitResults(results, tuple(_mean(name, rows[name], top1, draws, reference, spec) for name in names), reference, units)


def _draws(
    results: Sequence[Results], rows: Mapping[str, Sequence[TableResult]], unit_of: Mapping[str, int], count: int, spec: EvaluateSpec
) -> dict[str, np.ndarray]:
    """Mean over splits of top-1 in each resample, float64 [samples], of each table; a split that a resample misses is left out of it."""
    own = [Units(np.array([unit_of[name] for name in split.aligned.ids]), count) for split in results]
    sizes = [units.sums(np.ones(len(units.of))).astype(np.float32) for units in own]
    right = {
        name: [
            units.sums(part.predicted == split.labels).astype(np.float32) for part, split, units in zip(parts, results, own, strict=True)
        ]
        for name, parts in rows.items()
    }
    found: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    for counts in resamples(count, spec.samples, spec.seed):
        drawn_videos = [counts @ size for size in sizes]
        for name, parts in right.items():
            shares = [
                np.divide(counts @ hits, videos, out=np.full(len(videos), np.nan, np.float32), where=videos > 0)
                for hits, videos in zip(parts, drawn_videos, strict=True)
            ]
            found[name].append(np.nanmean(np.array(shares, np.float64), axis=0))
    return {name: np.concatenate(blocks) for name, blocks in found.items()}


def _mean(
    name: str, rows: Sequence[TableResult], top1: Mapping[str, float], draws: Mapping[str, np.ndarray], reference: str, spec: EvaluateSpec
) -> MeanFigures:
    figures = [row.evaluation for row in rows]
    other = name != reference
    return MeanFigures(
        name,
        top1[name],
        float(np.mean([one.top5 for one in figures])),
        float(np.mean([one.mean_class for one in figures])),
        interval(draws[name], spec.level),
        top1[name] - top1[reference] if other else None,
        interval(draws[name] - draws[reference], spec.level) if other else None,
    )


def splits_text(judged: SplitResults) -> str:
    """Top-1 of each table on each split and the mean, and how far each is from the reference."""
    from fusion.report import columns

    count = len(judged.splits)
    level = f"{100 * judged.splits[0].spec.level:g} % interval"
    lines = [["table", *(f"split {number}" for number in range(1, count + 1)), f"mean of {count}", level, "top-5", "mean class",
              f"against {judged.reference}", level, ""]]  # fmt: skip
    for row in judged.means:
        each = [percent(split.table(row.name).evaluation.top1, 2) for split in judged.splits]
        spread = f"{percent(row.top1_interval.low)} to {percent(row.top1_interval.high)}"
        gain, gains = "", ""
        if row.gain is not None and row.gain_interval is not None:
            gain = signed(row.gain, 2)
            gains = f"{signed(row.gain_interval.low, 2)} to {signed(row.gain_interval.high, 2)}"
        shown = [percent(row.top1, 2), spread, percent(row.top5, 2), percent(row.mean_class, 2), gain, gains, ""]
        lines.append([row.name, *each, *shown])
    videos = sum(len(split.labels) for split in judged.splits)
    shared = videos - len({name for split in judged.splits for name in split.aligned.ids})
    note = f"; {shared} videos are tested in more than one split" if shared else ""
    spec = judged.splits[0].spec
    return columns(lines) + f"top-1 in per cent, gains in points; {videos} scored videos{note}\n{drawn(spec, judged.units)}\n"


def splits_data(judged: SplitResults) -> dict[str, Any]:
    """The same for JSON."""
    from fusion.report import bootstrap_data, table_data

    return {
        "reference": judged.reference,
        "bootstrap": bootstrap_data(judged.splits[0].spec, judged.units),
        "means": [
            {key: value if not isinstance(value, Interval) else vars(value) for key, value in vars(row).items()} for row in judged.means
        ],
        "splits": [[table_data(table) for table in split.tables] for split in judged.splits],
    }
