"""Judge several score tables on the same labelled videos: figures of each, and how far their differences can be believed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np

from fusion.align import Aligned, align
from fusion.bootstrap import Interval, Units, bootstrap_means, each_video, interval, whole_groups
from fusion.categories import categories_of
from fusion.footing import softmax
from fusion.metrics import (
    Evaluation,
    McNemar,
    agreement,
    calibration_error,
    evaluate,
    mcnemar,
    predictions,
)
from fusion.spec import EvaluateSpec
from store.errors import ScoreError, SpecError
from store.scores import ScoreTable


@dataclass(frozen=True)
class TableResult:
    """One table's figures; ``predicted`` is int64 [V]; ``calibration`` is None for numbers that are no logits."""

    name: str
    kind: str
    fused: bool
    evaluation: Evaluation
    predicted: np.ndarray
    calibration: float | None
    source: Mapping[str, Any]


@dataclass(frozen=True)
class Comparison:
    """Top-1 of ``first`` minus top-1 of ``second`` with its paired bootstrap interval, and McNemar's test."""

    first: str
    second: str
    difference: float
    interval: Interval
    test: McNemar


@dataclass(frozen=True)
class Results:
    """``best`` and ``best_single`` are names, read off these very videos.

    Comparisons are of the best with every other table, or of every other one with ``spec.against``. ``categories``: of each class, or None.
    ``units``: what the bootstrap drew.
    """

    aligned: Aligned
    labels: np.ndarray
    tables: tuple[TableResult, ...]
    best: str
    best_single: str | None
    comparisons: tuple[Comparison, ...]
    agreements: dict[tuple[str, str], dict[str, float]]
    spec: EvaluateSpec
    units: Units
    categories: tuple[str, ...] | None = None

    def table(self, name: str) -> TableResult:
        """The figures of the table called ``name``."""
        return next(table for table in self.tables if table.name == name)

    def scores(self, name: str) -> np.ndarray:
        """Scores [V, C] of the table called ``name``."""
        return self.aligned.values[self.aligned.names.index(name)]


def judge(tables: Mapping[str, ScoreTable], spec: EvaluateSpec | None = None, groups: Mapping[str, str] | None = None) -> Results:
    """Evaluate named tables that share ids, classes and labels (see ``align``); tables without any labels raise ``ScoreError``.

    ``groups`` {id: group}, ids spelt as in the first table: what intervals draw, unless ``spec.draw`` says videos.
    """
    spec = spec or EvaluateSpec()
    aligned = align(tables, spec.common, spec.match)
    labels = aligned.labels
    if labels is None:
        raise ScoreError(
            f"{', '.join(tables)}: not every video has a label, so there is nothing to measure against; "
            "give the labels by id with --list LIST (or fusion.labels.with_labels)"
        )
    units = units_of(aligned.ids, spec, groups)
    rows = tuple(
        _result(name, table, values, labels, spec, units) for (name, table), values in zip(tables.items(), aligned.values, strict=True)
    )
    if spec.against and spec.against not in tables:
        raise SpecError(f"there is no table {spec.against!r} to compare with; tables: {', '.join(tables)}")
    best = max(rows, key=lambda row: row.evaluation.top1)
    singles = [row for row in rows if not row.fused]
    best_single = max(singles, key=lambda row: row.evaluation.top1).name if singles else None
    return Results(
        aligned=aligned,
        labels=labels,
        tables=rows,
        best=best.name,
        best_single=best_single,
        comparisons=_comparisons(rows, best, labels, spec, units),
        agreements={(a.name, b.name): agreement(a.predicted == labels, b.predicted == labels) for a, b in combinations(singles, 2)},
        spec=spec,
        units=units,
        categories=categories_of(spec.categories, aligned.classes),
    )


def units_of(ids: Sequence[str], spec: EvaluateSpec, groups: Mapping[str, str] | None) -> Units:
    """What a resample draws: groups where the videos have any and are not all of one; else videos."""
    if spec.draw == "groups" and groups is not None and any(groups.get(name) for name in ids):
        units = whole_groups(ids, groups)
        if units.count > 1:
            return units
    return each_video(len(ids))


def _comparisons(
    rows: tuple[TableResult, ...], best: TableResult, labels: np.ndarray, spec: EvaluateSpec, units: Units
) -> tuple[Comparison, ...]:
    if spec.against:
        reference = next(row for row in rows if row.name == spec.against)
        return tuple(_compare(row, reference, labels, spec, units) for row in rows if row is not reference)
    return tuple(_compare(best, row, labels, spec, units) for row in rows if row is not best)


def _result(name: str, table: ScoreTable, values: np.ndarray, labels: np.ndarray, spec: EvaluateSpec, units: Units) -> TableResult:
    ties = spec.ties
    figures = evaluate(values, labels, samples=spec.samples, level=spec.level, seed=spec.seed, ties=ties, units=units)
    calibration = None if table.kind == "decision_values" else calibration_error(softmax(values.astype(np.float64)), labels, ties=ties)
    fused = fusion_source(table.source) is not None
    return TableResult(name, table.kind, fused, figures, predictions(values, labels, ties), calibration, table.source)


def fusion_source(source: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """What ``fuse`` wrote into a table's source (of its first part, where all its joined parts are fusions); None for a single stream."""
    if source.get("made_by") == "fuse":
        return source
    parts = [fusion_source(part) if isinstance(part, Mapping) else None for part in source.get("tables") or []]
    return parts[0] if parts and None not in parts else None


def _compare(first: TableResult, second: TableResult, labels: np.ndarray, spec: EvaluateSpec, units: Units) -> Comparison:
    a, b = first.predicted == labels, second.predicted == labels
    difference = a.astype(np.float32) - b.astype(np.float32)
    spread = interval(bootstrap_means(difference, spec.samples, spec.seed, units), spec.level)
    return Comparison(first.name, second.name, float(a.mean() - b.mean()), spread, mcnemar(a, b))


@dataclass(frozen=True)
class Confusion:
    """``count`` of the ``videos`` of class ``true`` were taken for ``predicted``; ``back`` of the other class's went the other way."""

    true: str
    predicted: str
    count: int
    videos: int
    back: int


def hardest_confusions(confusion: np.ndarray, classes: tuple[str, ...], limit: int = 12) -> list[Confusion]:
    """The pairs of classes confused most: by count, then by share of the class, then by class order."""
    wrong = confusion.copy()
    np.fill_diagonal(wrong, 0)
    counts = confusion.sum(axis=1)
    true, predicted = np.nonzero(wrong)
    number = wrong[true, predicted]
    order = np.lexsort((predicted, true, -number / counts[true], -number))[:limit]
    return [
        Confusion(classes[t], classes[p], int(wrong[t, p]), int(counts[t]), int(wrong[p, t]))
        for t, p in zip(true[order], predicted[order], strict=True)
    ]
