"""Commands ``fuse``, ``evaluate`` and ``report``: score tables in, one library call, exit code out."""

import dataclasses
import json
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from fusion.spec import EvaluateSpec, FuseSpec, ReportSpec
from store.errors import SpecError
from store.files import check_writable, sha256_file
from store.options import resolve, spec_options
from store.run_files import check_output

if TYPE_CHECKING:
    from store.names import NameRules
    from store.scores import ScoreTable
    from store.videos import VideoList

_INPUTS = "Score tables as NAME=FILE.npz, or FILE.npz (its name is the file's; for a run's scores.npz, the run's)."


def input_arguments(command: Callable[..., Any]) -> Callable[..., Any]:
    """The arguments that every command here takes: score tables, and a list that gives labels."""
    command = click.option("--fold", type=int, default=None, help="Split of the list, where it has several.")(command)
    command = click.option(
        "--list", "labels", type=click.Path(exists=True, path_type=Path), help="Video list that gives the labels, by id."
    )(command)
    return click.argument("inputs", nargs=-1, required=True)(command)


@click.command("fuse", help=f"Combine score tables into one. {_INPUTS}")
@input_arguments
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Fused score table to write (.npz).")
@click.option("--weights", help="Weights of the inputs: NAME=NUMBER,... or numbers in the order of the inputs.")
@click.option("--recipe", help="A published way of fusing instead of a rule; `actioncache recipes` lists them.")
@click.option("--learned", type=click.Path(dir_okay=False, path_type=Path), help="What `actioncache learn` wrote, instead of a rule.")
@spec_options(FuseSpec, into="settings", skip=("weights",))
def fuse(
    inputs: tuple[str, ...],
    labels: Path | None,
    fold: int | None,
    output: Path,
    weights: str | None,
    recipe: str | None,
    learned: Path | None,
    settings: dict[str, Any],
) -> None:
    from fusion.fuse import fuse as fuse_tables
    from fusion.labels import drawn_groups, groups_of
    from fusion.learned import Learned, apply
    from fusion.recipes import follow
    from fusion.report import table_text
    from fusion.results import judge

    check_output(output)
    tables, videos = read_inputs(inputs, labels, fold, resolve(FuseSpec, {"match": settings.get("match", {})}).match)
    if weights is not None:
        settings = settings | {"weights": read_weights(weights, tuple(tables))}
    spec = resolve(FuseSpec, settings)
    if recipe is not None or learned is not None:
        check_alone(settings, recipe, learned)
    if learned is not None:
        fused = apply(Learned.load(learned), tables, spec.match, None if videos is None else groups_of(videos))
        fused = dataclasses.replace(fused, source={**fused.source, "learned_file": str(learned), "learned_sha256": sha256_file(learned)})
    else:
        fused = follow(recipe, tables, spec) if recipe is not None else fuse_tables(tables, spec)
    fused = dataclasses.replace(fused, source={**fused.source, "command": shlex.join(["actioncache", *sys.argv[1:]])})
    fused.save(output)
    if fused.labels is None:
        click.echo("no labels, so no accuracy; give them by id with --list LIST")
    else:
        drawn = None if videos is None else drawn_groups(videos)
        name = output.stem if output.stem not in tables else f"{output.stem} (fused)"
        click.echo(table_text(judge({**tables, name: fused}, EvaluateSpec(common=spec.common, match=spec.match), drawn)), nl=False)
    click.echo(f"wrote {output}: {len(fused.ids)} videos, {len(fused.classes)} classes, {fused.kind}")


@click.command("evaluate", help=f"Print the accuracy of score tables, with intervals. {_INPUTS}")
@input_arguments
@click.option(
    "--json", "as_json", is_flag=True, help="Print every figure as JSON, with comparisons, per-class accuracy and confusion matrices."
)
@click.option("--per-class", is_flag=True, help="Accuracy of every class, too.")
@click.option("--class", "named", multiple=True, help="Accuracy of this class, too; may be given several times.")
@spec_options(EvaluateSpec, into="settings")
def evaluate(
    inputs: tuple[str, ...],
    labels: Path | None,
    fold: int | None,
    as_json: bool,
    per_class: bool,
    named: tuple[str, ...],
    settings: dict[str, Any],
) -> None:
    from fusion.labels import drawn_groups
    from fusion.report import categories_text, classes_text, comparisons_text, results_data, table_text
    from fusion.results import judge

    if splits := split_inputs(inputs):
        if per_class or named:
            raise SpecError(
                "classes are shown for one split at a time; leave --class and --per-class away, or name one file for each input"
            )
        evaluate_splits(splits, labels, fold, as_json, resolve(EvaluateSpec, settings))
        return
    spec = resolve(EvaluateSpec, settings)
    tables, videos = read_inputs(inputs, labels, fold, spec.match)
    results = judge(tables, spec, None if videos is None else drawn_groups(videos))
    if as_json:
        click.echo(json.dumps(results_data(results), ensure_ascii=False, allow_nan=False))
        return
    texts = [table_text(results)]
    texts += [comparisons_text(results)] if results.comparisons else []
    texts += [categories_text(results)] if results.categories is not None else []
    texts += [classes_text(results, named)] if per_class or named else []
    click.echo("\n".join(texts), nl=False)


def evaluate_splits(splits: list[tuple[str, ...]], labels: Path | None, fold: int | None, as_json: bool, spec: EvaluateSpec) -> None:
    """Print each split's top-1 and the means; an official list gives split k the labels of its fold k."""
    from fusion.labels import drawn_groups
    from fusion.splits import judge_splits, splits_data, splits_text

    if fold is not None:
        raise SpecError("several splits take the labels of folds 1, 2, ... of an official list; leave --fold away")
    official = labels is not None and labels.is_dir()
    read = [read_inputs(inputs, labels, number if official else None, spec.match) for number, inputs in enumerate(splits, 1)]
    groups = {name: group for _, videos in read if videos is not None for name, group in drawn_groups(videos).items()}
    judged = judge_splits([tables for tables, _ in read], spec, groups)
    click.echo(json.dumps(splits_data(judged), ensure_ascii=False, allow_nan=False) if as_json else splits_text(judged), nl=as_json)


def split_inputs(inputs: tuple[str, ...]) -> list[tuple[str, ...]]:
    """``rgb=a.npz,b.npz`` for every input -> the inputs of each split; nothing where every input is one file."""
    pairs = [text.partition("=") for text in inputs]
    parts = [(name, [files] if Path(files).is_file() else files.split(",")) for name, _, files in pairs]  # a folder may have commas
    if not any(len(files) > 1 for _, files in parts) or any(Path(text).is_file() for text in inputs):
        return []
    if len({len(files) for _, files in parts}) > 1:
        listed = ", ".join(f"{name} {len(files)}" for name, files in parts)
        raise SpecError(f"inputs have different numbers of splits: {listed}; write NAME=SPLIT1.npz,SPLIT2.npz,... for each")
    return [tuple(f"{name}={files[place]}" for name, files in parts) for place in range(len(parts[0][1]))]


@click.command("report", help=f"Write a report of score tables: HTML page, JSON and text. {_INPUTS}")
@input_arguments
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write into.")
@click.option(
    "--frames", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of pictures of the videos, ID.jpg or ID.png."
)
@click.option(
    "--files/--no-files", default=True, help="Figures as SVG and PDF, tables as Markdown and LaTeX, beside the page [default: yes]"
)
@spec_options(ReportSpec, into="settings")
def report(
    inputs: tuple[str, ...], labels: Path | None, fold: int | None, output: Path, frames: Path | None, files: bool, settings: dict[str, Any]
) -> None:
    from fusion.labels import drawn_groups
    from fusion.report import make_report, table_text, write_report

    spec = resolve(ReportSpec, settings)
    check_writable(output)
    tables, videos = read_inputs(inputs, labels, fold, spec.match)
    pictures = None if frames is None else (lambda name: find_pictures(frames, name))
    command = shlex.join(["actioncache", *sys.argv[1:]])
    made = make_report(tables, spec, frames=pictures, command=command, groups=None if videos is None else drawn_groups(videos))
    paths = write_report(made, output)
    if files:
        from fusion.figure_files import write_figures
        from fusion.table_files import write_tables

        shown = [example for group in made.examples.values() for example in group]
        paths += write_tables(made.results, output / "tables")
        paths += write_figures(made.results, shown, output / "figures")
    click.echo(table_text(made.results), nl=False)
    click.echo(
        f"wrote {', '.join(map(str, paths[:3]))}"
        + (f" and {len(paths) - 3} files in {output}/tables and {output}/figures" if files else "")
    )


@click.command("recipes")
def recipes() -> None:
    """List the published ways of fusing: their names for `fuse --recipe`, and the inputs they take."""
    from fusion.recipes import RECIPES

    for name, recipe in RECIPES.items():
        click.echo(f"{name:18} {', '.join(recipe.inputs):16} {recipe.about}")


def check_alone(settings: Mapping[str, Any], recipe: str | None, learned: Path | None) -> None:
    """A recipe or a learned fusion decides everything that a rule's settings would."""
    given = [name for name in ("rule", "on", "weights", "temperatures", "as_is") if name in settings]
    if recipe is not None and learned is not None:
        raise SpecError("give --recipe or --learned, not both")
    if given:
        raise SpecError(
            f"{'--recipe' if recipe else '--learned'} decides the {', '.join(given)} itself; leave --{given[0].replace('_', '-')} away"
        )


def read_inputs(
    inputs: tuple[str, ...], labels: Path | None, fold: int | None, match: "NameRules"
) -> tuple[dict[str, "ScoreTable"], "VideoList | None"]:
    """The named tables, labelled by the list where there is one, and the list."""
    from fusion.labels import with_labels
    from store.videos import read_list

    tables = read_tables(inputs)
    if labels is None:
        return tables, None
    videos = read_list(labels, fold=fold)
    return {name: with_labels(table, videos, match) for name, table in tables.items()}, videos


def read_tables(inputs: tuple[str, ...]) -> dict[str, "ScoreTable"]:
    """Load named score tables; each one's source gains the file it was read from and that file's SHA-256."""
    from store.run_files import UNCHECKED, is_unchecked
    from store.scores import ScoreTable

    tables: dict[str, ScoreTable] = {}
    unchecked = []
    for text in inputs:
        name, path = split_name(text)
        if name in tables:
            raise SpecError(f"two inputs are called {name!r}; name them apart, e.g. rgb={path}")
        if not path.is_file():
            raise SpecError(f"there is no score table {path} (given as {text!r}); write NAME=FILE.npz")
        table = ScoreTable.load(path)
        tables[name] = dataclasses.replace(table, source={**table.source, "file": str(path), "sha256": sha256_file(path)})
        unchecked += [str(path.parent)] if is_unchecked(path) else []
    context = click.get_current_context(silent=True)
    if unchecked and context is not None and not context.meta.setdefault("actioncache.unchecked", False):
        context.meta["actioncache.unchecked"] = True  # several splits are read one after another
        more = f" and {len(unchecked) - 1} more" if len(unchecked) > 1 else ""
        click.echo(f"note: {unchecked[0]}{more}: {UNCHECKED}", err=True)
    return tables


def split_name(text: str) -> tuple[str, Path]:
    """``rgb=scores/a.npz`` -> ("rgb", path); ``scores/a.npz`` -> ("a", path); an existing file's name may hold an equals sign."""
    name, equals, path = text.partition("=")
    if not equals or Path(text).is_file():
        file = Path(text)
        return file.parent.name if file.stem == "scores" and file.parent.name else file.stem, file
    if not name or not path:
        raise SpecError(f"{text!r} is no input; write NAME=FILE.npz")
    return name, Path(path)


def read_weights(text: str, names: tuple[str, ...]) -> dict[str, float]:
    """``rgb=1,flow=1.5``, or ``1,1.5`` for the inputs in their order."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    named = [item for item in items if "=" in item]
    if named and len(named) != len(items):
        raise SpecError(f"weights are {text!r}; name all of them or none")
    pairs = [tuple(item.split("=", 1)) for item in named] if named else list(zip(names, items, strict=False))
    if twice := [name for name, count in Counter(name.strip() for name, _ in pairs).items() if count > 1]:
        raise SpecError(f"weights are {text!r}; {twice[0]} has more than one")
    if not named and len(items) != len(names):
        raise SpecError(f"{len(items)} weights for {len(names)} inputs ({', '.join(names)}); give one each")
    try:
        return {name.strip(): float(number) for name, number in pairs}
    except ValueError:
        raise SpecError(f"weights are {text!r}; write NAME=NUMBER,... or NUMBER,...") from None


def find_pictures(folder: Path, name: str) -> list[Path]:
    """``folder/<id>.jpg`` or ``.png``, if there is one; an id can never lead out of the folder."""
    for suffix in (".jpg", ".png"):
        path = folder / f"{name}{suffix}"
        if path.resolve().is_relative_to(folder.resolve()) and path.is_file():
            return [path]
    return []
