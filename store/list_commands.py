"""The command ``list``, and the options by which every command takes a video list."""

import functools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from store.errors import SpecError
from store.video_list import SPLITS, VideoList
from store.videos import KINDS, read_list, write_csv

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)
_MISSING_SHOWN = 10


def list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: add the argument LIST and what it takes to read one; the command receives a ``VideoList`` as ``videos``."""

    @functools.wraps(command)
    def read(*args: Any, **kwargs: Any) -> Any:
        return command(*args, videos=_reader(kwargs)(None), **kwargs)

    return _with_options(read)


def optional_list_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``list_options`` where LIST may be left out; ``videos`` is then None."""

    @functools.wraps(command)
    def read(*args: Any, **kwargs: Any) -> Any:
        given = kwargs["list_source"] is not None
        reader = _reader(kwargs)
        return command(*args, videos=reader(None) if given else None, **kwargs)

    source = click.argument("list_source", metavar="[LIST]", required=False, type=click.Path(path_type=Path))
    return source(_with_options(read, _OPTIONS[1:]))


def splits_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: ``list_options`` and ``--splits``; the command receives ``lists``, number of the split -> ``VideoList`` (0 without)."""

    @functools.wraps(command)
    def read(*args: Any, **kwargs: Any) -> Any:
        numbers = whole_numbers(kwargs.pop("list_splits"), "--splits")
        if numbers and kwargs["list_fold"] is not None:
            raise click.UsageError("--fold and --splits both say which split; give one of them")
        reader = _reader(kwargs)
        return command(*args, lists={number: reader(number) for number in numbers} or {0: reader(None)}, **kwargs)

    option = click.option(
        "--splits",
        "list_splits",
        default="",
        metavar="N,N,...",
        help="Several splits, e.g. 1,2,3: folds of an official list, or a LIST called like list{}.csv, with {} for the number.",
    )
    return option(_with_options(read))


def _reader(kwargs: dict[str, Any]) -> Callable[[int | None], VideoList]:
    """Take the options out of a command's arguments; the function reads LIST, of another fold where it is given one."""
    source, kind, root, fold, classes, pattern, names = (kwargs.pop(f"list_{name}") for name in _NAMES)
    class_names = None if names is None else parse_class_names(names)

    def read(number: int | None) -> VideoList:
        own, place = fold, source
        if number is not None:
            named = "{}" in source.name
            own, place = (fold, source.with_name(source.name.replace("{}", str(number)))) if named else (number, source)
        return read_list(place, kind, root, own, classes=classes, pattern=pattern, class_names=class_names)

    return read


def _with_options(command: Callable[..., Any], options: Sequence[Callable[..., Any]] = ()) -> Callable[..., Any]:
    for option in reversed(options or _OPTIONS):
        command = option(command)
    return command


def whole_numbers(text: str, flag: str) -> list[int]:
    """``0,1,2`` -> [0, 1, 2]; a usage error names what is no whole number or stands twice."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    numbers = [int(item) for item in items if item.isdecimal()]
    if len(set(numbers)) < len(items):
        raise click.BadParameter(f"{text!r} is no list of different whole numbers, e.g. 1,2,3", param_hint=flag)
    return numbers


_NAMES = ("source", "kind", "root", "fold", "classes", "pattern", "class_names")
_OPTIONS = (
    click.argument("list_source", metavar="LIST", type=click.Path(path_type=Path)),
    click.option(
        "--kind",
        "list_kind",
        type=click.Choice(KINDS),
        default="auto",
        help="What LIST is; a file, its suffix, or what a folder holds says it.",
    ),
    click.option("--root", "list_root", type=_FOLDER, help="Folder that the paths of LIST are relative to. [default: where LIST lies]"),
    click.option("--fold", "list_fold", type=click.IntRange(1), help="Which split of an official list. [default: 1]"),
    click.option(
        "--classes", "list_classes", type=_FILE, help="File with the class names in order. [default: sorted, or as LIST has them]"
    ),
    click.option(
        "--pattern", "list_pattern", help="Regular expression for paths below LIST, with groups (?P<label>), (?P<group>), (?P<split>)."
    ),
    click.option(
        "--class-names", "list_class_names", metavar="CODE=NAME,...", help="What the labels that --pattern finds are called, in order."
    ),
)


@click.command("list")
@list_options
@click.option("-o", "--output", type=_FILE, help="Write the list as CSV.")
@click.option("--check-files", is_flag=True, help="Look whether every video exists; exit code 1 if not.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@click.pass_context
def list_command(context: click.Context, videos: VideoList, output: Path | None, check_files: bool, as_json: bool) -> None:
    """Read the video list LIST, show what is in it, write it as CSV.

    LIST is a CSV file (id,path,label,split,group), a text file with a path a line, a folder per class, a folder of videos whose names
    match --pattern, or the folder of the official lists of UCF-101 or HMDB-51.
    """
    missing = videos.missing_files() if check_files else None
    if output is not None:
        write_csv(videos, output)
    facts = summary(videos) | ({} if missing is None else {"missing": missing})
    click.echo(json.dumps(facts, ensure_ascii=False) if as_json else summary_text(videos, missing))
    if output is not None:
        click.echo(f"wrote {output}", err=True)
    context.exit(1 if missing else 0)


def summary(videos: VideoList) -> dict[str, Any]:
    """Counts of a list as JSON's types: videos, labelled, classes in order with their sizes, splits, groups."""
    per_class, splits = (Counter(getattr(video, name) for video in videos) for name in ("label", "split"))
    return {
        "videos": len(videos),
        "labelled": len(videos) - per_class[None],
        "classes": {name: per_class[name] for name in videos.classes},
        "splits": {split: count for split in SPLITS if (count := splits[split])},
        "groups": len(videos.groups()),
    }


def summary_text(videos: VideoList, missing: list[str] | None) -> str:
    """The summary in words, with the files that are missing where they were looked for."""
    facts = summary(videos)
    sizes = facts["classes"].values()
    fewest, most = min(sizes, default=0), max(sizes, default=0)
    each = f", {most if fewest == most else f'{fewest} to {most}'} videos each" if sizes else ""
    without = facts["videos"] - facts["labelled"]
    names = ", ".join(videos.classes[:6]) + (", ..." if len(videos.classes) > 6 else "")
    lines = [f"videos   {facts['videos']}" + (f" ({without} without a label)" if without else "")]
    lines.append(f"classes  {len(sizes)}{each}" + (f": {names}" if names else ""))
    lines += [f"{name or 'no split':8} {count}" for name, count in facts["splits"].items()]
    lines.append(f"groups   {facts['groups']}")
    if missing is not None:
        lines.append(f"missing  {len(missing)}")
        lines += [f"  {name}: no {videos.by_id(name).path}" for name in missing[:_MISSING_SHOWN]]
        lines += [f"  ... and {len(missing) - _MISSING_SHOWN} more"] if len(missing) > _MISSING_SHOWN else []
    return "\n".join(lines)


def parse_class_names(text: str) -> dict[str, str]:
    """``0=shake_hands,1=hug`` -> {"0": "shake_hands", "1": "hug"}; anything else raises ``SpecError``."""
    pairs = [tuple(part.strip() for part in item.split("=", 1)) for item in text.split(",")]
    broken = [item for item, pair in zip(text.split(","), pairs, strict=True) if len(pair) != 2 or not all(pair)]
    if broken or len({pair[0] for pair in pairs}) < len(pairs):
        raise SpecError(f"class names are {text!r}; write CODE=NAME,CODE=NAME, each code once")
    return {pair[0]: pair[1] for pair in pairs}
