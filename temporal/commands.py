"""Commands of stage two: ``train-head`` and ``predict``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.files import safe_name
from store.list_commands import list_options
from store.options import resolve, spec_options
from store.videos import VideoList
from temporal.spec import RunSpec

if TYPE_CHECKING:
    from temporal.experiment import Outcome

features_option = click.option(
    "--features",
    "features",
    multiple=True,
    required=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Feature store, with or without its digest; twice, with --sequence.mid, for mid fusion.",
)
missing_option = click.option("--allow-missing", is_flag=True, help="Leave out videos without features, name them, and exit with 1.")
device_option = click.option("--device", default="cpu", show_default=True, help="cpu, cuda or cuda:N.")


@click.command("train-head")
@list_options
@features_option
@click.option("--name", required=True, help="Name of the run; its folder is OUT/NAME.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--cross-validate", is_flag=True, help="Leave out one group of the list at a time; scores of all videos, each unseen.")
@click.option("--seeds", default="", metavar="N,N,...", help="Several seeds: one run each in OUT/NAME/seed-N.")
@missing_option
@click.option("--force", is_flag=True, help="Train again what is there already, and replace runs made from other settings.")
@click.option("--jobs", type=click.IntRange(0), default=0, help="Processes for several folds or seeds. [default: one a core]")
@device_option
@click.option(
    "--head-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pretrained weights of a head that takes them (see `actioncache heads`): a state dict, .safetensors or .pth.",
)
@spec_options(RunSpec, skip=("format", "head.weights"))
@click.pass_context
def train_head(
    context: click.Context,
    videos: VideoList,
    features: tuple[Path, ...],
    name: str,
    out: Path,
    cross_validate: bool,
    seeds: str,
    allow_missing: bool,
    force: bool,
    jobs: int,
    device: str,
    head_weights: Path | None,
    overrides: dict[str, Any],
) -> None:
    """Train a head on the cached features of LIST's training videos and score its test videos.

    No test label is used for anything but the accuracy printed at the end. What is complete already is not done again.
    """
    from store.features import FeatureStore
    from temporal.experiment import train_list

    spec = resolve(RunSpec, overrides)
    stores = [FeatureStore.open(path) for path in features]
    numbers = parse_seeds(seeds)
    outcome = train_list(
        stores, videos, spec, out / safe_name(name, "run name"), cross_validate, numbers, allow_missing, force, jobs, device, head_weights
    )
    click.echo(outcome_text(outcome))
    for note in outcome.notes:
        click.echo(f"note: {note}", err=True)
    _report_missing(outcome.missing)
    context.exit(1 if outcome.missing else 0)


@click.command("predict")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@list_options
@features_option
@click.option("--output", "-o", required=True, type=click.Path(dir_okay=False, path_type=Path), help="Score table to write (.npz).")
@missing_option
@device_option
@click.pass_context
def predict(
    context: click.Context, videos: VideoList, run: Path, features: tuple[Path, ...], output: Path, allow_missing: bool, device: str
) -> None:
    """Score the videos of LIST with the head of RUN, from the same kind of features that it was trained on."""
    from store.features import FeatureStore
    from temporal.experiment import top1
    from temporal.predict import predict as score
    from temporal.run_dir import Run
    from temporal.sequences import missing_videos

    stores = [FeatureStore.open(path) for path in features]
    absent = missing_videos(stores, videos) if allow_missing else []
    if absent:
        videos = videos.subset([video.id for video in videos if video.id not in set(absent)])
    table = score(Run.open(run), stores, videos, device)
    table.save(output)
    click.echo(f"{output}: {accuracy_text(top1(table), len(table.ids))}")
    _report_missing(absent)
    context.exit(1 if absent else 0)


def parse_seeds(text: str) -> list[int]:
    """``0,1,2`` -> [0, 1, 2]; a usage error names what is no whole number or stands twice."""
    items = [item.strip() for item in text.split(",") if item.strip()]
    numbers = [int(item) for item in items if item.isdecimal()]
    if len(set(numbers)) < len(items):
        raise click.BadParameter(f"{text!r} is no list of different whole numbers, e.g. 0,1,2", param_hint="--seeds")
    return numbers


def accuracy_text(top1: float | None, count: int) -> str:
    """``top-1 83.33 % (50 of 60 videos)``."""
    if not count:
        return "no test videos"
    if top1 is None:
        return f"{count} videos scored, not all labelled"
    return f"top-1 {top1:.2%} ({round(top1 * count)} of {count} videos)".replace("%", " %")


def outcome_text(outcome: "Outcome") -> str:
    """One line a run, and the mean over several."""
    lines = [f"{run.path}: {accuracy_text(run.result['top1'], run.result['videos']['test'])}" for run in outcome.runs]
    values = outcome.accuracies()
    if len(values) > 1:
        mean = sum(values) / len(values)
        deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
        lines.append(f"{outcome.path}: top-1 {100 * mean:.2f} % mean of {len(values)} seeds, deviation {100 * deviation:.2f}")
    return "\n".join(lines)


def _report_missing(missing: "tuple[str, ...] | list[str]") -> None:
    if missing:
        click.echo(f"{len(missing)} videos of the list have no features and were left out: {', '.join(missing)}", err=True)
