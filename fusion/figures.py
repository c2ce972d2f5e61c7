"""Geometry of the report's figures, in pixels of their own coordinate system; the templates draw them as inline SVG."""

import math
from dataclasses import dataclass

import numpy as np

from fusion.results import Results

_LABEL_CHARACTERS = 26
_ROWS_PER_PANEL = 34
_WIDTH = 1160
_SMALLEST_CELL = 9.8


@dataclass(frozen=True)
class Cell:
    """One non-empty cell of the confusion matrix; ``share`` of its row in 0..1."""

    x: float
    y: float
    count: int
    share: float
    true: str
    predicted: str
    right: bool


@dataclass(frozen=True)
class Matrix:
    """Confusion matrix heat map: class ``labels`` beside and below, cells of side ``cell``, ``font`` size of the labels."""

    width: float
    height: float
    left: float
    cell: float
    font: float
    extent: float
    labels: tuple[str, ...]
    classes: tuple[str, ...]
    cells: tuple[Cell, ...]
    numbers: bool


@dataclass(frozen=True)
class ClassRow:
    """One class of the per-class figure; accuracies and ``gain`` in 0..1, ``single`` None without a single stream to compare with."""

    label: str
    name: str
    videos: int
    accuracy: float
    single: float | None
    gain: float | None


def short(text: str, limit: int = _LABEL_CHARACTERS) -> str:
    """``text`` cut to ``limit`` characters, the cut marked."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def matrix(confusion: np.ndarray, classes: tuple[str, ...]) -> Matrix:
    """Lay out the confusion matrix: cells shrink with the number of classes as long as labels stay readable; wider ones scroll."""
    number = len(classes)
    labels = tuple(short(name) for name in classes)
    longest = max(map(len, labels))
    # the page is 1160 wide; a label is 0.57 of its font size wide per character, and its font size at most 0.88 of the cell
    cell = float(np.clip((_WIDTH - 16) / (number + 0.88 * 0.57 * longest), _SMALLEST_CELL, np.clip(620 / number, 12, 46)))
    font = min(13.0, cell * 0.88)
    left = 14 + font * 0.57 * longest
    counts = confusion.sum(axis=1)
    cells = tuple(
        Cell(
            x=left + int(j) * cell,
            y=int(i) * cell,
            count=int(confusion[i, j]),
            share=float(confusion[i, j] / counts[i]),
            true=classes[i],
            predicted=classes[j],
            right=bool(i == j),
        )
        for i, j in zip(*np.nonzero(confusion), strict=True)
    )
    extent = number * cell
    return Matrix(left + extent + 2, extent + left, left, cell, font, extent, labels, classes, cells, numbers=cell >= 20)


def class_panels(results: Results) -> list[list[ClassRow]]:
    """Classes that have videos, hardest first, cut into panels of about equal length that stand side by side."""
    best = results.table(results.best).evaluation
    single = None
    if results.best_single not in (None, results.best):
        single = results.table(str(results.best_single)).evaluation.per_class
    rows = [
        ClassRow(
            short(name, 22),
            name,
            int(best.counts[index]),
            float(best.per_class[index]),
            None if single is None else float(single[index]),
            None if single is None else float(best.per_class[index] - single[index]),
        )
        for index, name in enumerate(results.aligned.classes)
        if best.counts[index]
    ]
    rows.sort(key=lambda row: row.accuracy)
    panels = max(1, math.ceil(len(rows) / _ROWS_PER_PANEL))
    length = math.ceil(len(rows) / panels)
    return [rows[first : first + length] for first in range(0, len(rows), length)]


def largest_gain(panels: list[list[ClassRow]]) -> float:
    """The largest |gain| of any class, so that all panels share one scale; at least 0.05."""
    return max([0.05, *(abs(row.gain) for panel in panels for row in panel if row.gain is not None)])


def axis_range(results: Results) -> tuple[float, float]:
    """Range of the interval plot in the results table, on tenths of accuracy around every interval."""
    intervals = [table.evaluation.top1_interval for table in results.tables]
    low = math.floor(min(interval.low for interval in intervals) * 10) / 10
    high = math.ceil(max(interval.high for interval in intervals) * 10) / 10
    return low, max(high, low + 0.1)
