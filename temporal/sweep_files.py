"""What a sweep leaves to be read: text, Markdown, CSV, JSON, and the names of the pictures."""

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from store.digest import to_plain
from store.files import write_bytes, write_text
from temporal.sweep import Figure, Row, Sweep
from temporal.sweep_before import JSON
from temporal.sweep_plot import PICTURES, sweep_plots
from temporal.tables import markdown, plain

SHOWN = 40  # rows of a table for a terminal


def write_sweep(sweep: Sweep) -> list[Path]:
    """Write sweep.json, .csv, .md, .png and .svg into the sweep's folder; pictures of an earlier table go where there are none now."""
    pictures = sweep_plots(sweep)
    texts = {JSON: json_text(sweep), "sweep.csv": csv_text(sweep), "sweep.md": markdown_text(sweep, tuple(pictures))}
    for name, text in texts.items():
        write_text(sweep.path / name, text)
    for name in PICTURES:
        if name in pictures:
            write_bytes(sweep.path / name, pictures[name])
        else:
            (sweep.path / name).unlink(missing_ok=True)
    return [sweep.path / name for name in [*texts, *pictures]]


def header(sweep: Sweep) -> list[str]:
    """Titles of the columns."""
    return ["rank", *(axis.name for axis in sweep.axes), "validation %", "validation loss", "epochs", "test %"]


def cells(sweep: Sweep, row: Row) -> list[str]:
    """One setting's figures as text."""
    labels = [row.setting.labels[axis.name] for axis in sweep.axes]
    if row.trained.failure:
        return ["failed", *labels, "", "", "", ""]
    loss, epochs = row.val_loss, row.epochs
    shown = [percent(row.val_accuracy), spread(loss, 3), "" if epochs is None else f"{epochs.mean:.0f}", percent(row.top1)]
    return ["-" if row.rank is None else str(row.rank), *labels, *shown]


def percent(figure: Figure | None) -> str:
    """``91.67 ± 1.20``; empty without a figure."""
    return spread(figure and Figure(100 * figure.mean, None if figure.deviation is None else 100 * figure.deviation), 2)


def spread(figure: Figure | None, digits: int) -> str:
    """Mean ± deviation."""
    if figure is None:
        return ""
    return f"{figure.mean:.{digits}f}" + ("" if figure.deviation is None else f" ± {figure.deviation:.{digits}f}")


def notes(sweep: Sweep) -> list[str]:
    """What a reader of the figures must know."""
    seeds = len(sweep.plan.seeds)
    over = "one seed" if seeds == 1 else f"mean ± deviation of {seeds} seeds ({', '.join(map(str, sweep.plan.seeds))})"
    by = "accuracy (ties by its loss)" if sweep.rank_by == "accuracy" else "loss"
    found = [f"{over}; ranked by the {by} of the validation part. Test figures stand beside and decide nothing."]
    if any(row.rank is None and not row.trained.failure for row in sweep.rows):
        found.append("- has no rank: it was trained without a validation part, or has no such figure; it stands in the order of the grid.")
    if sweep.plan.cross_validate:
        found.append(_nested_note(sweep))
    if sweep.missing:
        found.append(f"{sweep.missing} videos of the list have no features and were left out.")
    return found


def _nested_note(sweep: Sweep) -> str:
    found, start = sweep.nested, "A fold's validation videos are test videos of other folds, so the first rank was chosen with a view to"
    if found is None:
        return f"{start} its own test figure."
    if isinstance(found, str):
        return f"{start} its own test figure, and there is none to report instead: {found}."
    number = len(set(found.choices.values()))
    return (
        f"{start} its own test figure: report {percent(found.top1)} instead, the test figure of what each fold chose by its own "
        f"validation videos ({number} of {len(sweep.rows)} in {len(found.choices)} folds)."
    )


def text(sweep: Sweep, written: bool = True) -> str:
    """The table for a terminal; of a long one the first rows, unless the whole is not ``written`` to files."""
    rows = [cells(sweep, row) for row in (sweep.rows[:SHOWN] if written else sweep.rows)]
    lines = [plain(header(sweep), rows, 1 + len(sweep.axes))]
    if len(sweep.rows) > len(rows):
        lines.append(f"... and {len(sweep.rows) - SHOWN} more in {sweep.path / 'sweep.csv'}")
    return "\n".join([*lines, *notes(sweep), *(f"failed {row.setting.text()}: {row.trained.failure}" for row in sweep.failed)])


def markdown_text(sweep: Sweep, pictures: Sequence[str] = PICTURES[:1]) -> str:
    """The table as Markdown; it shows the first of ``pictures``."""
    parts = [f"# Sweep {sweep.path.name}", markdown(header(sweep), [cells(sweep, row) for row in sweep.rows], 1 + len(sweep.axes))]
    parts += ["\n".join(notes(sweep)), *(f"![validation accuracy over the settings]({name})" for name in pictures[:1])]
    if sweep.failed:
        parts.append("\n".join(["Failed:\n", *(f"- {row.setting.text()}: {row.trained.failure}" for row in sweep.failed)]))
    return "\n\n".join(parts) + "\n"


def csv_text(sweep: Sweep) -> str:
    """One line a setting and seed, figures in full."""
    names = ["rank", *(axis.name for axis in sweep.axes), "seed", "val_accuracy", "val_loss", "epochs", "test_top1", "run", "failure"]
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(names)
    for row in sweep.rows:
        labels = [row.setting.labels[axis.name] for axis in sweep.axes]
        rank = "" if row.rank is None else row.rank
        for each in row.trained.figures:
            writer.writerow([rank, *labels, each.seed, each.val_accuracy, each.val_loss, each.epochs, each.top1, each.path, ""])
        if row.trained.failure:
            writer.writerow([rank, *labels, "", "", "", "", "", row.path, row.trained.failure])
    return buffer.getvalue()


def json_text(sweep: Sweep) -> str:
    """Everything, for programs."""
    rows = [_row_data(row) for row in sweep.rows]
    axes = {axis.name: axis.texts for axis in sweep.axes}
    data = {
        "axes": axes,
        "seeds": sweep.plan.seeds,
        "cross_validate": sweep.plan.cross_validate,
        "ranked_by": f"validation {sweep.rank_by}",
        "list": dict(sweep.videos),
        "stores": list(sweep.stores),
    }
    if sweep.nested and not isinstance(sweep.nested, str):
        data["chosen_in_each_fold"] = {"test_top1": asdict(sweep.nested.top1), "settings": sweep.nested.choices}
    return json.dumps({**data, "notes": notes(sweep), "settings": rows}, indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _row_data(row: Row) -> dict[str, Any]:
    figures = {"val_accuracy": row.val_accuracy, "val_loss": row.val_loss, "epochs": row.epochs, "test_top1": row.top1}
    return {
        "rank": row.rank,
        "labels": dict(row.setting.labels),
        "features": [str(path) for path in row.setting.features],
        "spec": to_plain(row.setting.spec),
        **{name: None if figure is None else asdict(figure) for name, figure in figures.items()},
        "seeds": [asdict(each) for each in row.trained.figures],
        "run": str(row.path),
        "failure": row.trained.failure or None,
    }
