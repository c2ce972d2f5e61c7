"""Geometry of the report's figures, in pixels of their own coordinate system; the templates draw them as inline SVG."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from fusion.categories import category_order
from fusion.results import Results

_LABEL_CHARACTERS = 26
_ROWS_PER_PANEL = 34
_WIDTH = 1160
_SMALLEST_CELL = 9.8


@dataclass(frozen=True)
class Cell:
    """One non-empty cell of a matrix; ``share`` of its row (or of the largest difference) in 0..1, ``note`` what it says when touched."""

    x: float
    y: float
    count: int
    share: float
    true: str
    predicted: str
    right: bool
    note: str


@dataclass(frozen=True)
class Matrix:
    """Heat map: class ``labels`` beside and below, cells of side ``cell``, ``font`` size of labels, lines at ``breaks`` (categories)."""

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
    breaks: tuple[float, ...]


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


def matrix(confusion: np.ndarray, classes: tuple[str, ...], breaks: Sequence[int] = ()) -> Matrix:
    """Lay out the confusion matrix: cells shrink with the number of classes as long as labels stay readable; wider ones scroll."""
    counts = confusion.sum(axis=1)
    found = []
    for i, j in zip(*np.nonzero(confusion), strict=True):
        share = float(confusion[i, j] / counts[i])
        note = f"{confusion[i, j]} ({100 * share:.1f} %)"
        found.append((int(i), int(j), int(confusion[i, j]), share, bool(i == j), note))
    return _layout(found, classes, breaks)


def difference_matrix(first: np.ndarray, second: np.ndarray, classes: tuple[str, ...], breaks: Sequence[int] = ()) -> Matrix:
    """First minus second confusion, in videos; ``right`` where that is better: more on the diagonal, fewer elsewhere."""
    change = first - second
    largest = max(1, int(np.abs(change).max()))
    found = []
    for i, j in zip(*np.nonzero(change), strict=True):
        value = int(change[i, j])
        found.append((int(i), int(j), value, abs(value) / largest, (value > 0) == bool(i == j), f"{value:+d}"))
    return _layout(found, classes, breaks)


def _layout(found: list[tuple[int, int, int, float, bool, str]], classes: tuple[str, ...], breaks: Sequence[int]) -> Matrix:
    number = len(classes)
    labels = tuple(short(name) for name in classes)
    longest = max(map(len, labels))
    # the page is 1160 wide; a label is 0.57 of its font size wide per character, and its font size at most 0.88 of the cell
    cell = float(np.clip((_WIDTH - 16) / (number + 0.88 * 0.57 * longest), _SMALLEST_CELL, np.clip(620 / number, 12, 46)))
    font = min(13.0, cell * 0.88)
    left = 14 + font * 0.57 * longest
    cells = tuple(
        Cell(left + j * cell, i * cell, count, share, classes[i], classes[j], right, note) for i, j, count, share, right, note in found
    )
    extent = number * cell
    lines = tuple(place * cell for place in breaks)
    return Matrix(left + extent + 2, extent + left, left, cell, font, extent, labels, classes, cells, cell >= 20, lines)


def by_categories(results: Results) -> tuple[list[int], list[int], list[str]]:
    """Order of the classes by category, where a new one begins, and the categories' names in that order."""
    if results.categories is None:
        return list(range(len(results.aligned.classes))), [], []
    order = category_order(results.categories)
    names = [results.categories[place] for place in order]
    return order, [place for place in range(1, len(names)) if names[place] != names[place - 1]], list(dict.fromkeys(names))


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
