"""The commands ``store import``, ``store export`` and ``store layouts``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.digest import to_plain
from store.exchange.spec import ImportSpec
from store.options import merge, resolve, spec_options
from store.signals import stop_signals

if TYPE_CHECKING:
    from store.exchange.exporter import ExportSummary
    from store.exchange.importer import ImportSummary

_FOLDER = click.Path(file_okay=False, path_type=Path)
_LIST = click.Path(exists=True, path_type=Path)
_SHOWN = 10


def add_commands(group: click.Group) -> None:
    """Put the commands of this file into ``actioncache store``."""
    for command in (import_command, export_command, layouts_command):
        group.add_command(command)


@click.command("import")
@click.argument("source", type=click.Path(exists=True, path_type=Path))
@spec_options(ImportSpec, skip=("format",))
@click.option("--out", type=_FOLDER, default=Path("features"), show_default=True, help="Folder of stores.")
@click.option("--name", default="", help="Name of the store; its digest is appended. [default: the layout's name]")
@click.option("--root", type=_FOLDER, help="Where SOURCE is a list of paths: the folder they are relative to. [default: the list's]")
@click.option("--list", "listed", metavar="LIST", type=_LIST, help="Import the videos of this list, under its ids.")
@click.option(
    "--match",
    type=click.Choice(["path", "stem"]),
    default="path",
    show_default=True,
    help="With --list. path: what is found is called as the list's id; stem: its last part as the file of the list's path. Suffixes "
    "of videos apart.",
)
@click.option("--compare/--no-compare", default=True, help="Read videos that are in the store again, to tell whether they have changed.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def import_command(
    context: click.Context,
    source: Path,
    overrides: dict[str, Any],
    out: Path,
    name: str,
    root: Path | None,
    listed: Path | None,
    match: str,
    compare: bool,
    as_json: bool,
) -> None:
    """Bring features that other tools made into a store.

    SOURCE is a folder, a file or a list of files, as --layout says. Only what is missing is added: run it again after an interruption
    or with more files. Where SOURCE was written by `store export`, its settings are known.
    """
    from store.exchange.importer import ImportOptions, import_features
    from store.exchange.layout import Source
    from store.exchange.sidecar import read_sidecar
    from store.videos import read_list

    place, known = read_sidecar(source)
    spec = resolve(ImportSpec, merge(known, overrides))
    if known:
        click.echo(f"settings from actioncache.json: {json.dumps(known, ensure_ascii=False)}", err=True)
    videos = read_list(listed) if listed else None
    with stop_signals() as stopped:
        path, summary = import_features(Source(place, root), spec, ImportOptions(out, name, videos, match, compare), stopped)
    facts = {"store": str(path), "found": summary.found, **to_plain(summary)}
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else import_text(path, summary))
    for shard, reason in summary.damaged.items():
        click.echo(f"warning: {shard} cannot be used, so its videos counted as missing: {reason}; run `actioncache store repair`", err=True)
    context.exit(1 if summary.failed or summary.missing else 0)


@click.command("export")
@click.argument("path", type=_FOLDER)
@click.argument("out", type=_FOLDER)
@click.option("--layout", required=True, help="How to lay the files out, see `actioncache store layouts`.")
@click.option("--level", "levels", metavar="NAME", multiple=True, help="Only this level; may be repeated. [default: all]")
@click.option("--list", "listed", metavar="LIST", type=_LIST, help="Only the videos of this list.")
@click.option("--float32", is_flag=True, help="Write float32 where the store has float16.")
@click.option("--plain", is_flag=True, help="Nothing but one level: no frames and times, no level in names.")
@click.option("--strip-suffix", is_flag=True, help="Leave the suffix of a video (.mp4, .avi, ...) out of names.")
@click.option("--overwrite", is_flag=True, help="Replace files that are there with other content.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def export_command(
    context: click.Context,
    path: Path,
    out: Path,
    layout: str,
    levels: tuple[str, ...],
    listed: Path | None,
    float32: bool,
    plain: bool,
    strip_suffix: bool,
    overwrite: bool,
    as_json: bool,
) -> None:
    """Write features of the store PATH as files of another layout into the folder OUT.

    Every feature is compared with its digest. Files that are there are left alone; if their content is another, that is a failure.
    """
    from store.exchange.exporter import ExportOptions, export_features
    from store.features import FeatureStore
    from store.videos import read_list

    ids = read_list(listed).ids if listed else None
    options = ExportOptions(layout, levels or None, ids, float32, plain, strip_suffix, overwrite)
    with stop_signals() as stopped:
        summary = export_features(FeatureStore.open(path), out, options, stopped)
    click.echo(json.dumps({"out": str(out), **to_plain(summary)}, ensure_ascii=False) if as_json else export_text(out, summary))
    context.exit(1 if summary.failed or summary.missing else 0)


@click.command("layouts")
def layouts_command() -> None:
    """List the layouts that `store import` and `store export` know, and the settings of each."""
    from store.exchange import LAYOUTS

    for name in LAYOUTS:
        layout = LAYOUTS.get(name)
        click.echo(
            f"{name}\n    {layout.about}\n    settings  {', '.join('--' + one.replace('_', '-') for one in sorted(layout.settings))}"
        )


def import_text(path: Path, summary: "ImportSummary") -> str:
    """The end of an import in words: the store first, then counts, and each failure with its reason."""
    lines = [
        str(path),
        f"{summary.done} done, {summary.there} were there already, {len(summary.failed)} failed, of {summary.found} videos found",
    ]
    lines += [f"note: {note}" for note in summary.notes]
    if summary.rounded:
        lines.append(f"note: the values of {summary.rounded} videos were rounded to the stored type")
    lines += _missing(summary.missing, "neither found nor in the store")
    return "\n".join([*lines, *(f"failed {video}: {reason}" for video, reason in summary.failed.items())])


def export_text(out: Path, summary: "ExportSummary") -> str:
    """The end of an export in words: the folder first, then counts, and each failure with its reason."""
    asked = summary.done + summary.there + len(summary.failed) + len(summary.missing)
    lines = [str(out), f"{summary.done} done, {summary.there} were there already, {len(summary.failed)} failed, of {asked}"]
    lines += [f"note: {note}" for note in summary.notes]
    lines += _missing(summary.missing, "not in the store")
    return "\n".join([*lines, *(f"failed {video}: {reason}" for video, reason in summary.failed.items())])


def _missing(ids: list[str], what: str) -> list[str]:
    if not ids:
        return []
    more = [f"  ... and {len(ids) - _SHOWN} more"] if len(ids) > _SHOWN else []
    return [f"{len(ids)} videos of the list are {what}:", *(f"  {video}" for video in ids[:_SHOWN]), *more]
