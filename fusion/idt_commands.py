"""Commands of improved trajectories that read files and stores: ``idt encode``, ``idt train`` and ``idt score``."""

import json
from pathlib import Path
from typing import Any

import click

from fusion.idt.spec import FisherSpec, SvmSpec
from store.digest import to_plain
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.run_files import check_output
from store.signals import stop_signals
from store.videos import VideoList

_FOLDER = click.Path(file_okay=False, path_type=Path)
_THERE = click.Path(exists=True, file_okay=False, path_type=Path)
_JOBS = click.option("--jobs", type=click.IntRange(0, 4096), default=0, help="Processes; 0 takes the number of processors.")
_KEPT = "keeping what is complete, then stopping"


@click.command("encode")
@list_options
@click.option("--trajectories", required=True, type=_FOLDER, help="Folder of the trajectory files, called by the videos' ids.")
@click.option("--out", required=True, type=_FOLDER, help="Folder of encodings.")
@click.option("--name", default="idt", show_default=True, help="Name of this encoding: its folder in --out.")
@click.option("--cross-validate", is_flag=True, help="Leave out each group in turn, with a codebook each, instead of the list's split.")
@click.option("--origin", default="", help="What made the trajectories, in your words, where `idt extract` did not.")
@click.option("--retry-failed", is_flag=True, help="Try files again that failed before and have not changed since.")
@_JOBS
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@spec_options(FisherSpec)
@click.pass_context
def encode_command(
    context: click.Context,
    videos: VideoList,
    trajectories: Path,
    out: Path,
    name: str,
    cross_validate: bool,
    origin: str,
    retry_failed: bool,
    jobs: int,
    as_json: bool,
    overrides: dict[str, Any],
) -> None:
    """Fit PCA and Gaussian mixtures to trajectories of the training videos, encode every video of LIST as Fisher vectors, in a store.

    Files are called by the video's id, with or without its suffix: .npy, .txt, .txt.gz or .gz. Nothing of a validation or test video enters
    PCA or mixture: with --cross-validate every group left out has its own. The same command goes on after an interruption.
    """
    from fusion.idt.encode import encode_list

    spec = resolve(FisherSpec, overrides)
    with stop_signals(_KEPT) as stopped:
        summary = encode_list(videos, trajectories, out, name, spec, cross_validate, origin, jobs, retry_failed, stopped)
    if as_json:
        plain = {**vars(summary), "path": str(summary.path), "stores": list(map(str, summary.stores))}
        click.echo(json.dumps(to_plain(plain), ensure_ascii=False))
    else:
        lines = [
            str(summary.path),
            f"{summary.done} done, {summary.skipped} were there already, {len(summary.failed)} failed; {summary.trajectories} "
            f"trajectories, {len(summary.stores)} codebook{'s' * (len(summary.stores) > 1)}",
        ]
        if summary.empty:
            lines.append(f"{len(summary.empty)} videos without any trajectory have vectors of zeros: {', '.join(summary.empty[:5])}")
        lines += [f"failed {video} [{stage}]: {reason}" for video, (stage, reason) in summary.failed.items()]
        click.echo("\n".join(lines))
    context.exit(1 if summary.failed else 0)


@click.command("train")
@list_options
@click.option("--encoding", required=True, type=_THERE, help="Folder that `idt encode` printed.")
@click.option("--out", required=True, type=_FOLDER, help="Folder of runs.")
@click.option("--name", required=True, help="Name of the run: its folder in --out.")
@click.option("--allow-missing", is_flag=True, help="Leave out videos without Fisher vectors instead of stopping.")
@_JOBS
@click.option("--json", "as_json", is_flag=True, help="Print the summary as JSON.")
@spec_options(SvmSpec)
def train_command(
    videos: VideoList,
    encoding: Path,
    out: Path,
    name: str,
    allow_missing: bool,
    jobs: int,
    as_json: bool,
    overrides: dict[str, Any],
) -> None:
    """Train linear SVMs, each class of LIST against the rest, and write the test videos' decision values (scores.npz).

    An encoding made with --cross-validate is trained and tested the same way; scores.npz then holds every video, scored by the SVMs that
    never saw its group.
    """
    from fusion.idt.train import train_list

    spec = resolve(SvmSpec, overrides)
    with stop_signals(_KEPT) as stopped:
        summary = train_list(videos, encoding, out, name, spec, allow_missing, jobs, stopped)
    if as_json:
        plain = {**vars(summary), "path": str(summary.path), "scores": None if summary.scores is None else str(summary.scores)}
        click.echo(json.dumps(to_plain(plain), ensure_ascii=False))
        return
    click.echo(str(summary.path))
    accuracy = "no labels, so no accuracy" if summary.top1 is None else f"top-1 {100 * summary.top1:.2f} % of {summary.videos} test videos"
    click.echo(f"{accuracy}; {len(summary.missing)} videos left out" if summary.missing else accuracy)


@click.command("score")
@list_options
@click.option("--run", "folder", required=True, type=_THERE, help="Run of `idt train`; of a cross-validation, one of its folds.")
@click.option("--features", required=True, type=_THERE, help="Store of Fisher vectors of the codebook that the run was trained with.")
@click.option("-o", "--output", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Score table to write (.npz).")
@click.option("--allow-missing", is_flag=True, help="Leave out videos without Fisher vectors instead of stopping.")
def score_command(videos: VideoList, folder: Path, features: Path, output: Path, allow_missing: bool) -> None:
    """Write the decision values of the videos of LIST, whatever their split, by SVMs trained before."""
    from fusion.idt.train import MACHINES, score_list

    check_output(output)
    table = score_list(videos, folder / MACHINES, features, allow_missing)
    table.save(output)
    click.echo(f"wrote {output}: {len(table)} videos, {len(table.classes)} classes, {table.kind} ({table.source['of']})")
