"""Commands of improved trajectories that look at videos: ``idt extract`` and ``idt show``."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from extract.spec import DecodeSpec
from extract.trajectories.spec import TrajectorySpec
from extract.trajectories.write import TrajectoryOptions
from store.digest import to_plain
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.signals import stop_signals
from store.videos import VideoList

if TYPE_CHECKING:
    from extract.trajectories.write import TrajectorySummary


@click.command("extract")
@list_options
@click.option("-o", "--output", required=True, type=click.Path(file_okay=False, path_type=Path), help="Folder to write into.")
@click.option("--part", metavar="I/N", help="Only every N-th video, from the I-th on (1/4 ... 4/4): one part a job.")
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@spec_options(TrajectoryOptions, into="running", config=False)
@spec_options(DecodeSpec, into="decoding", config=False)
@spec_options(TrajectorySpec)
@click.pass_context
def extract_command(
    context: click.Context,
    videos: VideoList,
    output: Path,
    part: str | None,
    as_json: bool,
    running: dict[str, Any],
    decoding: dict[str, Any],
    overrides: dict[str, Any],
) -> None:
    """Track points through every video of LIST and write its improved trajectories (Wang & Schmid 2013).

    A video's file has its id as name and appears when it is complete; what is there is skipped, so the same command goes on after an
    interruption. The columns are those of the original program (436: position, trajectory, HOG, HOF, MBHx, MBHy).
    """
    from extract.trajectories.write import extract_list

    if part is not None:
        index, _, count = part.partition("/")
        if not (index.isdecimal() and count.isdecimal()):
            raise click.UsageError(f"part is {part!r}; write I/N with 1 <= I <= N, for example 1/4")
        videos = videos.part(int(index), int(count))
    options, decode, spec = resolve(TrajectoryOptions, running), resolve(DecodeSpec, decoding), resolve(TrajectorySpec, overrides)
    with stop_signals() as stopped:
        summary = extract_list(videos, spec, decode, output, options, stopped)
    click.echo(json.dumps(to_plain(summary)) if as_json else summary_text(output, summary))
    context.exit(1 if summary.failed else 0)


@click.command("show")
@click.argument("video", type=click.Path(path_type=Path))
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="The picture: .png or .jpg.")
@click.option("--frames", type=click.IntRange(1, 50), default=6, show_default=True, help="Frames, from equal parts of the video.")
@click.option(
    "--height", type=click.IntRange(16, 2000), default=240, show_default=True, help="Height of a frame in the picture, in pixels."
)
@spec_options(DecodeSpec, into="decoding", config=False)
@spec_options(TrajectorySpec)
def show_command(video: Path, output: Path, frames: int, height: int, decoding: dict[str, Any], overrides: dict[str, Any]) -> None:
    """Track points through VIDEO (a file or a folder of frames) and draw the trajectories over some of its frames."""
    from extract.trajectories.show import show

    lines = show(video, output, resolve(TrajectorySpec, overrides), resolve(DecodeSpec, decoding), frames, height)
    click.echo("\n".join([*lines, str(output)]))


def summary_text(output: Path, summary: "TrajectorySummary") -> str:
    """The end of extraction in words."""
    lines = [
        str(output),
        f"{summary.done} done, {summary.skipped} were there already, {len(summary.failed)} failed; {summary.trajectories} trajectories "
        f"in {summary.frames} frames",
    ]
    if summary.empty:
        lines.append(f"{len(summary.empty)} videos have no trajectory (nothing moves, or too short): {', '.join(summary.empty[:5])}")
    return "\n".join([*lines, *(f"failed {video} [{stage}]: {reason}" for video, (stage, reason) in summary.failed.items())])
