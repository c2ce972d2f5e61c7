"""Commands for optical flow: ``flow show``, ``flow write`` and ``flow methods``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.flow_layouts import WriteSpec
from extract.flow_show import ShowSpec
from extract.flow_write import WriteOptions
from store.digest import to_plain
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.signals import stop_signals
from store.videos import VideoList

if TYPE_CHECKING:
    from extract.flow_write import WriteSummary

UNUSED = ("flow.version", "flow.origin", "flow.encoding", "flow.pairs", "flow.offset", "flow.with_rgb")  # by `flow write`


@click.group("flow")
def flow() -> None:
    """Look at optical flow, write it as files for use elsewhere, list the methods."""


@flow.command("show")
@click.argument("video", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The picture: .png or .jpg.")
@click.option(
    "--method",
    "methods",
    multiple=True,
    metavar="METHOD[:KEY=NUMBER,...]",
    help="Flow method, several for a comparison, e.g. dis:preset=1.",
)
@click.option("--preset", help="Flow settings of a preset, and its network's way to make bytes, see `actioncache presets`.")
@click.option("--frames", type=click.IntRange(1, 50), default=5, show_default=True, help="Frames, from equal parts of the video.")
@click.option(
    "--height", type=click.IntRange(16, 2000), default=144, show_default=True, help="Height of a frame in the picture, in pixels."
)
@click.option("--flow-weights", default="", help="Weights of a method that is a network: a file, published, published:NAME, random:SEED.")
@click.option(
    "--flow-root", type=click.Path(exists=True, file_okay=False, path_type=Path), help="Folder of flow from files (method files)."
)
@click.option("--id", "video_id", help="The video's id in a list, by which its flow files are called. [default: its file name]")
@spec_options(ShowSpec, skip=("flow.version",))
def show_command(
    video: Path,
    output: Path,
    methods: tuple[str, ...],
    preset: str | None,
    frames: int,
    height: int,
    flow_weights: str,
    flow_root: Path | None,
    video_id: str | None,
    overrides: dict[str, Any],
) -> None:
    """Draw frames of VIDEO (a file or a folder of frames), their optical flow in colours, and the bytes that a network gets.

    Prints the displacements of each frame, too. The flow of a frame is the motion to the next one.
    """
    from extract.flow_picture import check_suffix, write_picture
    from extract.flow_show import resolve_shown, sample_strip, strip_text

    check_suffix(output)
    decode, shown = resolve_shown(preset, overrides, methods, flow_weights)
    strips = [sample_strip(video, decode, spec, frames, flow_root, video_id or video.name, weights) for spec, weights in shown]
    write_picture(strips, output, height)
    for strip in strips:
        click.echo("\n".join(strip_text(strip)))
    click.echo(str(output))


@flow.command("write")
@list_options
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write into.")
@click.option("--part", metavar="I/N", help="Only every N-th video, from the I-th on (1/4 ... 4/4): one part a job.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@spec_options(WriteOptions, into="running", config=False)
@spec_options(WriteSpec, skip=UNUSED)
@click.pass_context
def write_command(
    context: click.Context,
    videos: VideoList,
    output: Path,
    part: str | None,
    as_json: bool,
    running: dict[str, Any],
    overrides: dict[str, Any],
) -> None:
    """Compute the optical flow of every video of LIST and write it as images or arrays, for use elsewhere.

    The files of a video appear when they are complete; what is there is skipped, so the same command goes on after an interruption. Bytes
    are those of dense_flow unless --flow.quantise says otherwise. flow.json tells how the flow was made.
    """
    from extract.flow_write import resolve_write, write_list

    if part is not None:
        from extract.parts import choose_part

        videos = choose_part(videos, part).videos
    options = resolve(WriteOptions, running)
    spec = resolve_write(overrides, options.flow_weights)
    with stop_signals() as stopped:
        summary = write_list(videos, spec, output, options, stopped)
    click.echo(json.dumps(to_plain(summary)) if as_json else summary_text(output, spec, summary))
    context.exit(1 if summary.failed else 0)


@flow.command("methods")
@click.option("--json", "as_json", is_flag=True, help="Print as JSON.")
def methods_command(as_json: bool) -> None:
    """List the flow methods: their version and parameters with defaults."""
    from extract.flow import FLOWS, LearnedFamily

    found: list[dict[str, Any]] = []
    for name in FLOWS:
        family = FLOWS.get(name)
        weights = family.weights_choices() if isinstance(family, LearnedFamily) else ""
        found.append({"name": name, "version": family.version, "params": dict(family.defaults), "weights": weights})
    if as_json:
        click.echo(json.dumps(found))
        return
    for method in found:
        click.echo(f"{method['name']:12} {method['version']}")
        click.echo(f"    params   {', '.join(f'{key}={value:g}' for key, value in method['params'].items())}")
        if method["weights"]:
            click.echo(f"    weights  {method['weights']}")
    click.echo("files        flow that another tool computed: --flow.method files --flow.origin WORDS --flow-root FOLDER")


def summary_text(output: Path, spec: WriteSpec, summary: "WriteSummary") -> str:
    """The end of writing in words, with how to use what was written."""
    from extract.flow_write import origin_words

    lines = [
        str(output),
        f"{summary.done} done, {summary.skipped} were there already, {len(summary.failed)} failed; {summary.flows} flows in "
        f"{summary.seconds:.1f} s",
    ]
    how = f'--flow.method files --flow-root {output} --flow.origin "{origin_words(spec)}"'
    if spec.layout != "npy":
        share = f"{100 * summary.clipped:.2f} % of the displacements were beyond {spec.flow.bound:g} px and clipped"
        lines += [share] if summary.flows else []
        how += f" --flow.bound {spec.flow.bound:g} --flow.quantise {spec.flow.quantise}"
    lines.append(f"to extract from it: {how}")
    return "\n".join([*lines, *(f"failed {video} [{stage}]: {reason}" for video, (stage, reason) in summary.failed.items())])
