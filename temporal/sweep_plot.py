"""Pictures of a sweep: the best settings with their spread, and the validation accuracy over each axis."""

from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from temporal.grid import FEATURES
from temporal.sweep import Row, Sweep

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PICTURES = ("sweep.png", "sweep.svg")
BEST = 20  # settings in the picture of the best
LINES = 8  # combinations of the other axes that are told apart by colour
LONGEST = 32  # characters of a value; longer ones leave the panels no room
BLUE, GREY = "#2563b8", "#a9b1ba"


def sweep_plots(sweep: Sweep) -> dict[str, bytes]:
    """``sweep.png`` and ``sweep.svg``; nothing where no setting has a validation figure."""
    if not any(row.val_accuracy for row in sweep.rows):
        return {}
    figure = draw(sweep)
    files = {}
    for name in PICTURES:
        kind = name.rpartition(".")[2]
        buffer = BytesIO()
        metadata = {"Software": None} if kind == "png" else {"Date": None}
        figure.savefig(buffer, format=kind, dpi=110, metadata=metadata)
        files[name] = buffer.getvalue()
    return files


def draw(sweep: Sweep) -> "Figure":
    """The best settings at the left, a panel for each axis with several values at the right."""
    from matplotlib.figure import Figure

    best = [row for row in sweep.rows if row.val_accuracy][:BEST]
    axes = [axis.name for axis in sweep.axes if len(axis.values) > 1]
    height = max(3.4, 1.3 + 0.27 * len(best))
    figure = Figure(figsize=(6.5 + 3.6 * len(axes), height), layout="constrained")
    panels = figure.subplots(1, 1 + len(axes), squeeze=False, width_ratios=[6.5, *[3.6] * len(axes)])[0]
    _best_panel(panels[0], best, [axis.name for axis in sweep.axes])
    for panel, name in zip(panels[1:], axes, strict=True):
        _axis_panel(panel, sweep, name)
    return figure


def _best_panel(panel: "Axes", best: list[Row], axes: list[str]) -> None:
    for place, row in enumerate(best):
        for figure, colour, face in ((row.top1, GREY, "white"), (row.val_accuracy, BLUE, BLUE)):
            if figure is not None:
                spread = None if figure.deviation is None else 100 * figure.deviation
                panel.errorbar(100 * figure.mean, place, xerr=spread, fmt="o", capsize=2, markersize=5, linewidth=1, color=colour, mfc=face)
    names = [", ".join(shown(name, row.setting.labels[name]) for name in axes) or "the one setting" for row in best]
    panel.set_yticks(range(len(best)), names, fontsize="small")
    panel.set_ylim(len(best) - 0.5, -0.5)
    panel.set_xlabel("top-1, %: ● validation (ranks), ○ test (does not)", fontsize="small")
    panel.set_title(f"best by validation ({', '.join(short(name) for name in axes)})", fontsize="medium", loc="left")
    panel.grid(axis="x", alpha=0.3)


def _axis_panel(panel: "Axes", sweep: Sweep, name: str) -> None:
    """A line for each combination of the other axes, and the mean over them."""
    texts = next(axis.texts for axis in sweep.axes if axis.name == name)
    others = [axis.name for axis in sweep.axes if axis.name != name]
    lines: dict[tuple[str, ...], dict[int, float]] = {}
    for row in sweep.rows:
        if row.val_accuracy:
            at = texts.index(row.setting.labels[name])
            lines.setdefault(tuple(row.setting.labels[other] for other in others), {})[at] = 100 * row.val_accuracy.mean
    few = 1 < len(lines) <= LINES
    for other, points in sorted(lines.items()):
        words = ", ".join(shown(*each) for each in zip(others, other, strict=True))
        label, color = (words, None) if few else (None, GREY if len(lines) > 1 else BLUE)
        panel.plot(sorted(points), [points[at] for at in sorted(points)], "o-", markersize=3, linewidth=1, color=color, label=label)
    if len(lines) > 1:
        _mean_line(panel, list(lines.values()), len(texts))
    shorter = [shown(name, text) for text in texts]
    turned = max(map(len, shorter)) > 6
    panel.set_xticks(range(len(texts)), shorter, fontsize="small", rotation=30 if turned else 0, ha="right" if turned else "center")
    panel.set(xlabel=name, ylabel="validation top-1, %")
    panel.grid(alpha=0.3)


def _mean_line(panel: "Axes", lines: list[dict[int, float]], count: int) -> None:
    """Over those values that every combination has, so that a failure does not bend it."""
    shared = [at for at in range(count) if all(at in points for points in lines)]
    means = [sum(points[at] for points in lines) / len(lines) for at in shared]
    panel.plot(shared, means, "k-", linewidth=2.2, label="mean", zorder=3)
    panel.legend(fontsize="x-small", framealpha=0.7)


def shown(name: str, text: str) -> str:
    """The value ``text`` of axis ``name`` as it fits into a picture: stores by their folders' names, long ones without their middle."""
    if name == FEATURES:
        text = "+".join(Path(part).name for part in ([text] if Path(text).is_dir() else text.split("+")))
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 13]}…{text[-12:]}"


def short(name: str) -> str:
    """``head.hidden`` -> ``hidden``."""
    return "+".join(part.rpartition(".")[2] for part in name.split("+"))
