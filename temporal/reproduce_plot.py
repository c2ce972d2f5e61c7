"""The picture of one of a paper's tables as inline SVG: a curve, or a row a line, the paper's number beside ours."""

import re
from collections.abc import Sequence
from io import BytesIO
from typing import TYPE_CHECKING

from temporal.papers import HMDB, UCF, Table
from temporal.reproduce import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes

BLUE, COLOURS = "#2563b8", ("#2563b8", "#c2571a", "#24824f", "#8a4fb3")
MARKS = {UCF: ("D", "#8a94a0"), HMDB: ("s", "#b9a25c")}  # of the paper's numbers


def picture(table: Table, lines: Sequence[Measured]) -> str:
    """SVG text without the XML head; empty where nothing was measured."""
    if not any(each.figure for each in lines):
        return ""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    height = 3.3 if table.curve else 1.1 + 0.34 * len(lines)
    with rc_context({"svg.hashsalt": table.where + table.title, "svg.fonttype": "none", "font.family": "sans-serif", "font.size": 9.5}):
        figure = Figure(figsize=(7.6, height), layout="constrained")
        panel = figure.subplots()
        (_curve if table.curve else _rows)(panel, table, lines)
        handles, names = panel.get_legend_handles_labels()
        shown = dict(zip(names, handles, strict=True))
        figure.legend(shown.values(), shown.keys(), loc="outside right upper", frameon=False, fontsize=8.5)
        buffer = BytesIO()
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue().decode()
    return re.sub(r'width="[\d.]+pt" height="[\d.]+pt"', f'role="img" aria-label="{table.where}"', svg[svg.index("<svg") :], count=1)


def _curve(panel: "Axes", table: Table, lines: Sequence[Measured]) -> None:
    """A line a series over the last column, its values evenly apart in their order."""
    values = sorted({each.line.names[-1] for each in lines}, key=float)
    series = list(dict.fromkeys(each.line.names[:-1] for each in lines))
    for number, name in enumerate(series):
        own = [each for each in lines if each.line.names[:-1] == name]
        colour = COLOURS[number % len(COLOURS)]
        found = [(values.index(each.line.names[-1]), each.figure) for each in own if each.figure]
        label = f"ours, {', '.join(name)}" if name else "ours"
        errors = [100 * (figure.deviation or 0) for _, figure in found]
        points = [100 * figure.mean for _, figure in found]
        panel.errorbar([at for at, _ in found], points, yerr=errors, fmt="o-", color=colour, capsize=2.5, label=label)
        for dataset, (mark, grey) in MARKS.items():
            known = [(values.index(each.line.names[-1]), each.line.published[dataset]) for each in own if dataset in each.line.published]
            if known:
                edge = colour if len(series) > 1 else grey
                told = f"paper, {dataset}" + (f", {', '.join(name)}" if len(series) > 1 else "")
                panel.plot(*zip(*known, strict=True), mark, color=edge, ls=":", lw=1, mfc="none", label=told)
    panel.set_xticks(range(len(values)), values)
    panel.set(xlabel=table.columns[-1], ylabel="top-1, %")
    panel.grid(alpha=0.3)


def _rows(panel: "Axes", table: Table, lines: Sequence[Measured]) -> None:
    for place, each in enumerate(lines):
        for dataset, (mark, grey) in MARKS.items():
            if dataset in each.line.published:
                panel.plot(each.line.published[dataset], place, mark, color=grey, mfc="none", label=f"paper, {dataset}")
        if each.figure:
            spread = 100 * (each.figure.deviation or 0)
            panel.errorbar(100 * each.figure.mean, place, xerr=spread, fmt="o", color=BLUE, capsize=2.5, label="ours")
    panel.set_yticks(range(len(lines)), [", ".join(each.line.names) for each in lines])
    panel.set_ylim(len(lines) - 0.5, -0.5)
    panel.set_xlabel("top-1, %")
    panel.grid(axis="x", alpha=0.3)
