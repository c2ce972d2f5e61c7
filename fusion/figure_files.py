"""The report's figures as SVG and PDF for papers, drawn by matplotlib; the same numbers and colours as on the page."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from fusion.categories import by_category
from fusion.examples import Example
from fusion.figures import by_categories
from fusion.results import Results
from fusion.words import clean
from store.files import atomic_path

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BLUE, GREEN, RED, GREY, INK = "#2563b8", "#24824f", "#c23b33", "#a9b1ba", "#1b1f24"
_ROLES = {"truth": BLUE, "right": GREEN, "wrong": RED, "other": GREY}
SUFFIXES = (".svg", ".pdf")


def write_figures(results: Results, examples: Sequence[Example], folder: Path, suffixes: Sequence[str] = SUFFIXES) -> list[Path]:
    """Write every figure that these results have; the paths of the files."""
    figures = {"accuracy": accuracy(results), "confusion": confusion(results)}
    if results.best_single not in (None, results.best):
        figures |= {"confusion_difference": confusion_difference(results), "gain_per_class": gain_per_class(results)}
    if results.categories is not None:
        figures["categories"] = category_bars(results, results.categories)
    if examples:
        figures["examples"] = example_bars(examples)
    paths = []
    for name, figure in figures.items():
        for suffix in suffixes:
            path = folder / f"{name}{suffix}"
            with atomic_path(path) as aside:
                dates: dict[str, Any] = {"Date": None} if suffix == ".svg" else {"CreationDate": None}
                figure.savefig(aside, format=suffix[1:], metadata=dates, bbox_inches="tight")
            paths.append(path)
    return paths


def _figure(width: float, height: float) -> tuple["Figure", Any]:
    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "actioncache"  # equal input, equal bytes
    mpl.rcParams["pdf.fonttype"] = 42
    figure = Figure(figsize=(width, height))
    axes = figure.subplots()
    axes.spines[["top", "right"]].set_visible(False)
    return figure, axes


def _name(text: str) -> str:
    """A name as matplotlib may print it: dollar signs would start a formula."""
    return clean(text).replace("$", r"\$")


def accuracy(results: Results) -> "Figure":
    """Top-1 of every table with its interval."""
    figure, axes = _figure(5.2, 0.34 * len(results.tables) + 0.9)
    for row, table in enumerate(reversed(results.tables)):
        spread = table.evaluation.top1_interval
        axes.plot([100 * spread.low, 100 * spread.high], [row, row], color=INK, linewidth=1.2)
        axes.plot([100 * table.evaluation.top1], [row], "o", color=GREEN if table.name == results.best else INK, markersize=5)
    axes.set_yticks(range(len(results.tables)), [_name(table.name) for table in reversed(results.tables)])
    axes.set_xlabel(f"top-1 in per cent, {100 * results.spec.level:g} % interval")
    axes.grid(axis="x", color="#e3e6ea")
    return figure


def _matrix(results: Results, values: np.ndarray, limit: float, label: str) -> "Figure":
    order, breaks, _ = by_categories(results)
    number = len(order)
    side = float(np.clip(0.1 * number, 3.6, 11))
    figure, axes = _figure(side, side)
    from matplotlib.colors import LinearSegmentedColormap

    signed = bool((values < 0).any())
    colours = LinearSegmentedColormap.from_list("ours", [RED, "white", GREEN] if signed else ["white", BLUE])
    picture = axes.imshow(values[np.ix_(order, order)], cmap=colours, vmin=-limit if signed else 0, vmax=limit)
    names = [_name(results.aligned.classes[place]) for place in order]
    size = float(np.clip(72 * side * 0.72 / number, 3.2, 9))
    axes.set_xticks(range(number), names, rotation=90, fontsize=size)
    axes.set_yticks(range(number), names, fontsize=size)
    axes.tick_params(length=0)
    for place in breaks:
        axes.axhline(place - 0.5, color=INK, linewidth=0.5)
        axes.axvline(place - 0.5, color=INK, linewidth=0.5)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    beyond = "both" if np.abs(values).max(initial=0) > limit else "neither"
    figure.colorbar(picture, ax=axes, fraction=0.04, pad=0.02, label=label, extend=beyond)
    return figure


def confusion(results: Results) -> "Figure":
    """Confusion matrix of the best table in per cent of each row, classes ordered by category where they have one."""
    counts = results.table(results.best).evaluation.confusion
    shares = 100 * counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    return _matrix(results, shares, 100, f"{_name(results.best)}: per cent of the true class")


def confusion_difference(results: Results) -> "Figure":
    """Confusion of the best table minus that of the best single stream, in points, signed so that green is better."""
    counts, other = (results.table(str(name)).evaluation.confusion for name in (results.best, results.best_single))
    shares = 100 * (counts - other) / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    better = np.where(np.eye(len(shares), dtype=bool), shares, -shares)  # fewer confusions are better off the diagonal
    changed = np.abs(shares[shares != 0])
    limit = max(1.0, float(np.quantile(changed, 0.95))) if changed.size else 1.0  # one class that gains a third would leave all others pale
    return _matrix(results, better, limit, f"{_name(results.best)} against {_name(str(results.best_single))}, points; green is better")


def gain_per_class(results: Results) -> "Figure":
    """Gain in accuracy of each class by the best table over the best single stream, sorted."""
    best, single = (results.table(str(name)).evaluation.per_class for name in (results.best, results.best_single))
    gains = [(100 * float(a - b), name) for a, b, name in zip(best, single, results.aligned.classes, strict=True) if np.isfinite(a - b)]
    gains.sort()
    figure, axes = _figure(5.2, 0.13 * len(gains) + 0.8)
    values = [gain for gain, _ in gains]
    axes.barh(range(len(gains)), values, color=[GREEN if gain >= 0 else RED for gain in values], height=0.75)
    axes.set_yticks(range(len(gains)), [_name(name) for _, name in gains], fontsize=6 if len(gains) > 20 else 9)
    axes.set_ylim(-0.6, len(gains) - 0.4)
    axes.axvline(0, color=INK, linewidth=0.8)
    axes.set_xlabel(f"gain in points, {_name(results.best)} over {_name(str(results.best_single))}")
    return figure


def category_bars(results: Results, categories: Sequence[str]) -> "Figure":
    """Accuracy of every table over the videos of each category."""
    each = [by_category(table.evaluation.confusion, categories) for table in results.tables]
    names = [row.name for row in each[0]]
    figure, axes = _figure(5.6, 0.16 * len(names) * (len(each) + 1) + 0.9)
    height = 0.8 / len(each)
    shades = np.linspace(0.35, 0.95, len(each))
    import matplotlib as mpl

    colours = mpl.colormaps["Blues"]
    for number, (table, figures) in enumerate(zip(results.tables, each, strict=True)):
        places = np.arange(len(names)) + number * height
        axes.barh(places, [100 * row.accuracy for row in figures], height, label=_name(table.name), color=colours(shades[number]))
    axes.set_yticks(np.arange(len(names)) + 0.4 - height / 2, [_name(name) for name in names])
    axes.invert_yaxis()
    axes.set_xlabel("accuracy in per cent")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(1, 1))
    return figure


def example_bars(examples: Sequence[Example]) -> "Figure":
    """The papers' figure: a frame of each example video and its best classes as bars; blue truth, green correct, red wrong prediction."""
    import base64
    import io

    import matplotlib as mpl
    from matplotlib.figure import Figure

    mpl.rcParams["svg.hashsalt"] = "actioncache"
    columns = min(4, len(examples))
    rows = -(-len(examples) // columns)
    pictured = any(example.pictures for example in examples)
    above_share = 0.8 if pictured else 0.1
    figure = Figure(figsize=(2.6 * columns, (1.3 + 1.3 * above_share) * rows))
    spaces = {"height_ratios": [above_share, 1] * rows, "hspace": 0.25 if pictured else 0.4, "wspace": 0.15}
    grid = figure.subplots(2 * rows, columns, squeeze=False, gridspec_kw=spaces)
    for axes in grid.ravel():
        axes.axis("off")
    for number, example in enumerate(examples):
        above, below = grid[2 * (number // columns)][number % columns], grid[2 * (number // columns) + 1][number % columns]
        if example.pictures:
            import matplotlib.image

            data = base64.b64decode(example.pictures[len(example.pictures) // 2].partition(",")[2])
            above.imshow(matplotlib.image.imread(io.BytesIO(data), format="jpg"))
        (above if pictured else below).set_title(_name(example.truth), fontsize=8, color=BLUE)
        for place, bar in enumerate(reversed(example.bars)):
            below.barh(place, max(bar.share, 0.004), color=_ROLES[bar.role], height=0.8)
            colour = "white" if bar.role != "other" and bar.share > 0.4 else INK
            below.text(0.02, place, _name(bar.name), fontsize=6.5, va="center", color=colour)
        below.set_xlim(0, 1)
    return figure
