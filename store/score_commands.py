"""Commands ``scores import``, ``scores export``, ``scores show`` and ``scores formats``: score tables and those of other tools."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.options import resolve, spec_options
from store.run_files import check_output
from store.score_import import ImportSpec

if TYPE_CHECKING:
    from store.scores import ScoreTable
    from store.video_list import VideoList

_MOST_SOURCE = 2000


@click.group("scores")
def scores() -> None:
    """Look into score tables; take them from other tools and give them to others."""


@scores.command("import")
@click.argument("source", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Score table to write (.npz).")
@click.option("--list", "listed", type=click.Path(exists=True, path_type=Path), help="Video list that gives labels by id, or the ids.")
@click.option("--fold", type=int, default=None, help="Split of an official list.")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default=None, help="Part of the list that was scored.")
@click.option(
    "--classes", "class_file", type=click.Path(exists=True, dir_okay=False, path_type=Path), help="Class names in the order of the columns."
)
@spec_options(ImportSpec, into="settings")
def import_command(
    source: Path,
    output: Path,
    listed: Path | None,
    fold: int | None,
    split: str | None,
    class_file: Path | None,
    settings: dict[str, Any],
) -> None:
    """Turn the scores of another tool into a score table.

    Columns are what --classes or the file says; where the labels contradict that, nothing is imported and the columns are named. Pickles
    (mmaction2's results) are read as plain data: what would run code is refused.
    """
    from store.list_files import read_classes
    from store.score_import import import_scores

    spec = resolve(ImportSpec, settings)
    check_output(output)
    videos = None if listed is None else read_part(listed, fold, split)
    imported = import_scores(source, spec, videos, None if class_file is None else read_classes(class_file))
    imported.table.save(output)
    for note in imported.notes:
        click.echo(f"note: {note}", err=True)
    click.echo(f"wrote {output}: {summary(imported.table)}")


@scores.command("export")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="File to write.")
@click.option("--format", "name", default="", help="csv, mat, mmaction2 or npz [default: what the suffix says]")
@click.option("--list", "listed", type=click.Path(exists=True, path_type=Path), help="Write the videos of this list, in its order.")
@click.option("--fold", type=int, default=None, help="Split of an official list.")
@click.option("--split", type=click.Choice(["train", "val", "test", "all"]), default=None, help="Part of the list.")
def export_command(table: Path, output: Path, name: str, listed: Path | None, fold: int | None, split: str | None) -> None:
    """Write a score table for other tools; mmaction2's form knows no ids, so give the order with --list."""
    from store.score_formats import SCORE_FORMATS, find_format
    from store.scores import ScoreTable

    check_output(output)
    held = ScoreTable.load(table)
    if listed is not None:
        held = held.rows(read_part(listed, fold, split).ids)
    SCORE_FORMATS.get(name or find_format(output)).write(held, output)
    click.echo(f"wrote {output}: {summary(held)}")


@scores.command("show")
@click.argument("table", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--video", default=None, help="The best classes of one video, by its id.")
@click.option("--json", "as_json", is_flag=True, help="Print everything but the scores as JSON.")
def show_command(table: Path, video: str | None, as_json: bool) -> None:
    """Say what a score table holds and where it comes from."""
    from store.scores import ScoreTable

    held = ScoreTable.load(table)
    if as_json:
        labels = None if held.labels is None else held.labels.tolist()
        data = {"ids": held.ids, "classes": held.classes, "kind": held.kind, "labels": labels, "source": held.source}
        click.echo(json.dumps(data, ensure_ascii=False, indent=1))
    else:
        click.echo(video_text(held, video) if video else show_text(held))


@scores.command("formats")
def formats_command() -> None:
    """List the formats of other tools that can be read and written."""
    from store.score_formats import SCORE_FORMATS

    for name in SCORE_FORMATS:
        entry = SCORE_FORMATS.get(name)
        click.echo(f"{name:10} {' '.join(entry.suffixes):20} {entry.about}")


def read_part(listed: Path, fold: int | None, split: str | None) -> "VideoList":
    """The part of a list that ``--split`` asks for; without it the test part where there is one, else all."""
    from store.videos import read_list

    videos = read_list(listed, fold=fold)
    if split == "all":
        return videos
    if split is None:
        test = videos.select("test")
        return test if len(test) else videos
    return videos.select(split)


def summary(table: "ScoreTable") -> str:
    """``1530 videos, 51 classes, decision_values, labelled``."""
    labelled = "labelled" if table.labels is not None else "without labels"
    return f"{len(table)} videos, {len(table.classes)} classes, {table.kind}, {labelled}"


def show_text(table: "ScoreTable") -> str:
    """What a table holds, in a few lines."""
    values = table.values
    source = json.dumps(table.source, ensure_ascii=False, indent=1)
    lines = [
        summary(table),
        f"ids       {', '.join(table.ids[:3])}{', ...' if len(table) > 3 else ''}",
        f"classes   {', '.join(table.classes[:6])}{', ...' if len(table.classes) > 6 else ''}",
        f"scores    {values.min():.6g} to {values.max():.6g}, mean {values.mean():.6g}",
    ]
    if table.labels is not None:
        lines.append(f"right     {100 * (values.argmax(axis=1) == table.labels).mean():.2f} % have their best score at the label")
    cut = "" if len(source) <= _MOST_SOURCE else f"\n... ({len(source)} characters; --json shows all)"
    return _printable("\n".join([*lines, "source    " + source[:_MOST_SOURCE] + cut]))


def video_text(table: "ScoreTable", video: str) -> str:
    """The ten best classes of one video."""
    row = table.rows([video])
    best = row.values[0].argsort(kind="stable")[::-1][:10]
    truth = None if row.labels is None else int(row.labels[0])
    lines = [f"{row.values[0, place]:12.6g}  {table.classes[place]}{'   (label)' if place == truth else ''}" for place in best.tolist()]
    return _printable("\n".join([video, *lines]))


def _printable(text: str) -> str:
    return "".join(letter if letter.isprintable() or letter == "\n" else "\N{REPLACEMENT CHARACTER}" for letter in text)
