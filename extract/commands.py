"""Commands of stage one: ``extract``, ``presets``, ``backbones``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.spec import FeatureSpec, RunOptions
from store.digest import to_plain
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.signals import stop_signals
from store.videos import VideoList

if TYPE_CHECKING:
    from extract.run import Summary

FILLED_IN = ("weights", "format", "flow.version")  # by the program, so they get no flag


@click.command("extract")
@list_options
@click.option("--preset", help="Named settings, see `actioncache presets`; flags and --config change single ones.")
@click.option("--weights", help="A weights file, `published`, or `random:SEED`.")
@click.option(
    "--out", type=click.Path(file_okay=False, path_type=Path), default=Path("features"), show_default=True, help="Folder of stores."
)
@click.option("--name", help="Name of the store; its digest is appended. [default: the preset's name]")
@click.option("--part", metavar="I/N", help="Only every N-th video, from the I-th on (1/4 ... 4/4): one part a job.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@spec_options(RunOptions, into="running", config=False)
@spec_options(FeatureSpec, skip=FILLED_IN)
@click.pass_context
def extract(
    context: click.Context,
    videos: VideoList,
    preset: str | None,
    weights: str | None,
    out: Path,
    name: str | None,
    part: str | None,
    as_json: bool,
    running: dict[str, Any],
    overrides: dict[str, Any],
) -> None:
    """Run a network over the clips of every video of LIST and store the features.

    Only what is missing is done: run it again after an interruption, with more videos, or from several jobs at once.
    """
    from extract.prepare import extract_list

    options = resolve(RunOptions, running)
    with stop_signals() as stopped:
        store_path, summary = extract_list(videos, preset, overrides, weights, options, out, name, part, stopped)
    click.echo(json.dumps({"store": str(store_path), **to_plain(summary)}) if as_json else summary_text(store_path, summary))
    for shard, reason in summary.damaged.items():
        click.echo(f"warning: {shard} cannot be used, so its videos counted as missing: {reason}; run `actioncache store repair`", err=True)
    context.exit(1 if summary.failed else 0)


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
    lines += [f"note: {note}" for note in summary.notes]
    lines += [f"failed {video} [{stage}]: {reason}" for video, (stage, reason) in summary.failed.items()]
    if summary.failed:
        lines.append("a recorded failure is tried again once its file has changed, or with --retry-failed")
    return "\n".join(lines)
