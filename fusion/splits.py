"""Several splits judged together: each one's figures, their mean as papers print it, and intervals that respect videos shared by splits."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from fusion.metrics import Interval, interval, resamples
from fusion.results import Results, TableResult, judge
from fusion.spec import EvaluateSpec
from fusion.words import percent, signed
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
    """Results of each split, means in the order of the tables, and the name of the table that others are compared with."""

    splits: tuple[Results, ...]
    means: tuple[MeanFigures, ...]
    reference: str


def judge_splits(splits: Sequence[Mapping[str, ScoreTable]], spec: EvaluateSpec | None = None) -> SplitResults:
    """Judge the same named tables on each split. Reference: ``spec.against``, else the table with the best mean.

    A resample draws videos from all that occur in any split and takes each split's share of it, since a video may be tested in several.
    """
    spec = spec or EvaluateSpec()
    names = list(splits[0])
    for number, tables in enumerate(splits, 1):
        if list(tables) != names:
            raise SpecError(f"split {number} has the tables {', '.join(tables)}, the first one {', '.join(names)}; give the same for each")
    if spec.against and spec.against not in names:
        raise SpecError(f"there is no table {spec.against!r} to compare with; tables: {', '.join(names)}")
    results = tuple(judge(tables, spec) for tables in splits)
    rows = {name: [split.table(name) for split in results] for name in names}
    top1 = {name: float(np.mean([row.evaluation.top1 for row in rows[name]])) for name in names}
    reference = spec.against or max(names, key=lambda name: top1[name])
    draws = _draws(results, rows, spec)
    return SplitResults(results, tuple(_mean(name, rows[name], top1, draws, reference, spec) for name in names), reference)


def _draws(results: Sequence[Results], rows: Mapping[str, Sequence[TableResult]], spec: EvaluateSpec) -> dict[str, np.ndarray]:
    """Mean over splits of top-1 in each resample, float64 [samples], of each table."""
    place = {name: index for index, name in enumerate(dict.fromkeys(one for split in results for one in split.aligned.ids))}
    own = [np.array([place[name] for name in split.aligned.ids]) for split in results]
    found: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    for counts in resamples(len(place), spec.samples, spec.seed):
        for name, parts in rows.items():
            shares = []
            for part, split, index in zip(parts, results, own, strict=True):
                hits = (part.predicted == split.labels).astype(np.float32)
                drawn = counts[:, index]
                shares.append(drawn @ hits / np.maximum(drawn.sum(axis=1), 1))
            found[name].append(np.mean(shares, axis=0))
    return {name: np.concatenate(blocks).astype(np.float64) for name, blocks in found.items()}


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
    return columns(lines) + f"top-1 in per cent, gains in points; {videos} scored videos{note}\n"


def splits_data(judged: SplitResults) -> dict[str, Any]:
    """The same for JSON."""
    from fusion.report import table_data

    return {
        "reference": judged.reference,
        "means": [
            {key: value if not isinstance(value, Interval) else vars(value) for key, value in vars(row).items()} for row in judged.means
        ],
        "splits": [[table_data(table) for table in split.tables] for split in judged.splits],
    }
