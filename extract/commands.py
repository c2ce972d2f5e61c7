"""Commands of stage one: ``extract``, ``presets``, ``backbones``."""

import functools
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.lasting import retried_text
from extract.spec import FeatureSpec, RunOptions
from extract.wishes import Asked, Wish, wishes
from store.digest import to_plain
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.progress import duration
from store.signals import stop_signals
from store.videos import VideoList

if TYPE_CHECKING:
    from collections.abc import Sequence

    from extract.dry_run import Forecast
    from extract.run import Summary

FILLED_IN = ("weights", "format", "flow.version")  # by the program, so they get no flag


def extract_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: what says which features of which videos go where, for ``extract`` and for the commands that plan one.

    The command receives ``videos``, ``wanted`` (what each store is to hold), ``out`` and ``options``.
    """

    @functools.wraps(command)
    def collect(*arguments: Any, **given: Any) -> Any:
        first, second = (Asked(*(given.pop(f"{which}{name}") for name in _STREAM)) for which in ("", "and_"))
        wanted = wishes(first, second, given.pop("flags"))
        return command(*arguments, wanted=wanted, options=resolve(RunOptions, given.pop("running")), **given)

    wrapped: Callable[..., Any] = collect
    for option in reversed(_EXTRACT_OPTIONS):
        wrapped = option(wrapped)
    return wrapped


_STREAM = ("preset", "config", "weights", "name")
_FOLDER = click.Path(file_okay=False, path_type=Path)
_SETTINGS = click.Path(exists=True, dir_okay=False, path_type=Path)
_EXTRACT_OPTIONS: tuple[Callable[[Any], Any], ...] = (
    list_options,
    click.option("--preset", help="Named settings, see `actioncache presets`; flags and --config change single ones."),
    click.option("--weights", help="A weights file, `published`, or `random:SEED`."),
    click.option("--out", type=_FOLDER, default=Path("features"), show_default=True, help="Folder of stores."),
    click.option("--name", help="Name of the store; its digest is appended. [default: the preset's name]"),
    click.option("--and-preset", help="A second stream, into a store of its own, from the same pass over the videos: its preset."),
    click.option("--and-config", type=_SETTINGS, help="The second stream's settings as a TOML file."),
    click.option("--and-weights", help="The second stream's weights. [default: those of --weights]"),
    click.option("--and-name", help="Name of the second stream's store. [default: its preset's name]"),
    spec_options(RunOptions, into="running", config=False),
    click.option("--config", type=_SETTINGS, help="Settings as a TOML file."),
    spec_options(FeatureSpec, into="flags", skip=FILLED_IN, config=False),
)


@click.command("extract")
@extract_options
@click.option(
    "--part",
    metavar="I/N",
    help="Only every N-th video, from the I-th on (1/4 ... 4/4): one part a job. A task of a Slurm job array takes its own unless this "
    "says `all`.",
)
@click.option("--plan", type=click.Path(dir_okay=False, path_type=Path), help="A plan of `jobs plan`; --part I/N is then its I-th part.")
@click.option("--share", metavar="K/D", hidden=True, help="One of D processes that share this part.")
@click.option("--devices", metavar="NAME,...", help="Several devices, e.g. cuda:0,cuda:1, or `all`: a process each, which share the part.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON; with a second stream, a list of two.")
@click.option(
    "--dry-run", is_flag=True, help="Say how many clips and bytes it would be and, from a few timed videos, how long; write nothing."
)
@click.pass_context
def extract(
    context: click.Context,
    videos: VideoList,
    wanted: list[Wish],
    options: RunOptions,
    out: Path,
    part: str | None,
    plan: Path | None,
    share: str | None,
    devices: str | None,
    as_json: bool,
    dry_run: bool,
) -> None:
    """Run a network over the clips of every video of LIST and store the features.

    Only what is missing is done: run it again after an interruption, with more videos, or from several jobs at once.

    With --and-preset (or --and-config) two networks run in one pass over each video, e.g. RGB and flow, into two stores. Flags of
    settings go for both, --flow.* flags only for those that have flow.
    """
    from extract.parts import choose_part

    mine = choose_part(videos, part, plan, share, os.environ)
    if mine.origin:
        click.echo(f"note: {mine.origin}", err=True)
    if devices and not dry_run:
        _end(context, _on_devices(context, devices), as_json)

    from extract.prepare import extract_list, forecast_list

    if dry_run:
        with stop_signals("stopping; nothing is written") as stopped:
            coming = forecast_list(mine.videos, wanted, options, out, stopped)
        _show([{"store": str(place), **to_plain(each)} for place, each in coming] if as_json else forecast_text(coming))
        context.exit(1 if any(each.unreadable for _, each in coming) else 0)
    with stop_signals() as stopped:
        ended = extract_list(mine.videos, wanted, options, out, mine.name, stopped)
    _end(context, ended, as_json)


def _on_devices(context: click.Context, devices: str) -> "list[tuple[Path, Summary]]":
    """The same command once a device, in processes of their own."""
    from extract.devices import device_names, joined, run_on_devices
    from extract.jobs.command_line import program, words
    from extract.run import Summary

    names = device_names(devices)
    command = [*program(), "extract", *words(context, skip=("devices", "as_json", "spec__device"))]
    with stop_signals() as stopped:
        ended = joined(run_on_devices(command, names, stopped))
    return [
        (
            Path(data.pop("store")),
            Summary(**{**data, "failed": {key: tuple(why) for key, why in data["failed"].items()}, "notes": tuple(data["notes"])}),
        )
        for data in ended
    ]


def _end(context: click.Context, ended: "Sequence[tuple[Path, Summary]]", as_json: bool) -> None:
    """Say how it ended, and leave with the exit code for that."""
    as_plain = [{"store": str(path), **to_plain(summary)} for path, summary in ended]
    _show(as_plain if as_json else "\n".join(summary_text(path, summary) for path, summary in ended))
    for shard, reason in (item for _, summary in ended for item in summary.damaged.items()):
        click.echo(f"warning: {shard} cannot be used, so its videos counted as missing: {reason}; run `actioncache store repair`", err=True)
    context.exit(1 if any(summary.failed for _, summary in ended) else 0)


def _show(result: str | list[dict[str, Any]]) -> None:
    """Print words, or JSON: an object, or a list of two."""
    if not isinstance(result, str):
        result = json.dumps(result if len(result) > 1 else result[0])
    click.echo(result)


@click.command("presets")
def presets() -> None:
    """List the named settings of `extract`."""
    from extract.presets import DESCRIPTIONS

    for name, text in sorted(DESCRIPTIONS.items()):
        click.echo(f"{name:28} {text}")


@click.command("backbones")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def backbones(as_json: bool) -> None:
    """List the networks: levels and their widths, input, published weights."""
    from extract.backbones import describe_backbones

    infos = describe_backbones()
    if as_json:
        click.echo(json.dumps([to_plain(info) for info in infos]))
        return
    for info in infos:
        levels = ", ".join(f"{level} {width}" for level, width in info.dims.items())
        frames = f"{info.clip_length} frames of " if info.clip_length > 1 else ""
        published = ", ".join(info.published) or "none"
        click.echo(info.name)
        click.echo(f"    levels     {levels}")
        click.echo(f"    input      {frames}{info.size}x{info.size} {info.modality}")
        click.echo(f"    published  {published}")


@click.command("frames")
@list_options
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write ID.jpg into.")
@click.option("--count", type=click.IntRange(1), default=4, show_default=True, help="Frames of each video.")
@click.option("--height", type=click.IntRange(8), default=112, show_default=True, help="Height of the pictures in pixels.")
@click.pass_context
def frames(context: click.Context, videos: VideoList, output: Path, count: int, height: int) -> None:
    """Write a strip of frames of every video of LIST as a picture, for `report --frames`."""
    from extract.pictures import write_strips

    failed = write_strips(videos, output, count, height)
    click.echo(f"{len(videos) - len(failed)} pictures in {output}, {len(failed)} videos failed")
    for video, reason in failed.items():
        click.echo(f"failed {video}: {reason}")
    context.exit(1 if failed else 0)


def summary_text(store_path: Path, summary: "Summary") -> str:
    """The end of an extraction in words: the store first, then counts, time, and each failure with its reason."""
    lines = [
        str(store_path),
        f"{summary.done} done, {summary.skipped} were there already, {len(summary.failed)} failed, of {summary.asked}",
    ]
    if summary.done:
        lines.append("seconds: " + ", ".join(f"{stage} {spent:.1f}" for stage, spent in summary.seconds.items()))
        rate = summary.clips / max(summary.seconds["total"], 1e-9)
        lines.append(f"{summary.clips} clips, {rate:.2f} clips/s; the device was busy {100 * summary.busy:.0f} % of the time")
    lines += [f"note: {note}" for note in summary.notes]
    lines += [f"failed {video} [{stage}]: {reason}" for video, (stage, reason) in summary.failed.items()]
    if summary.failed:
        lines.append(retried_text(stage for stage, _ in summary.failed.values()))
    return "\n".join(lines)


def forecast_text(coming: "Sequence[tuple[Path, Forecast]]") -> str:
    """A dry run in words."""
    lines = []
    for path, each in coming:
        lines += [
            str(path) + ("" if path.exists() else " (not there yet)"),
            f"{each.todo} to do, {each.skipped} are there already, {each.failed} failed before",
            f"{each.clips} clips" + ("" if each.bytes is None else f", {megabytes(each.bytes)} of features"),
        ]
    timed = [(each.seconds, each) for _, each in coming if each.seconds is not None]
    if timed:
        seconds, longest = max(timed, key=lambda pair: pair[0])
        both = " for both" if len(coming) > 1 else ""
        partly = f", {longest.partly} of them in part" if longest.partly else ""
        lines.append(f"about {duration(seconds)}{both} on this machine, going by {longest.timed} videos{partly} ({longest.shares})")
    unreadable = {video: reason for _, each in coming for video, reason in each.unreadable.items()}
    lines += [f"unreadable {video}: {reason}" for video, reason in unreadable.items()]
    return "\n".join([*lines, "nothing was written"])


def megabytes(size: float) -> str:
    """Bytes in words, e.g. ``12.3 MB``."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB"
