"""The command ``train-head``."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from store.files import safe_name
from store.list_commands import splits_options, whole_numbers
from store.options import resolve, spec_options
from store.signals import stop_signals
from store.videos import VideoList
from temporal.protocols import protocol
from temporal.spec import RunSpec

if TYPE_CHECKING:
    from store.features import FeatureStore
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
head_weights_option = click.option(
    "--head-weights",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="Pretrained weights of a head that takes them (see `actioncache heads`): a state dict, .safetensors or .pth.",
)
protocol_option = click.option(
    "--protocol", "protocol_name", help="Settings of a paper, see `actioncache protocols`; flags and --config change single ones."
)


@click.command("train-head")
@splits_options
@features_option
@click.option("--name", required=True, help="Name of the run; its folder is OUT/NAME.")
@click.option("--out", type=click.Path(file_okay=False, path_type=Path), default=Path("runs"), show_default=True, help="Folder of runs.")
@click.option("--cross-validate", is_flag=True, help="Leave out one group of the list at a time; scores of all videos, each unseen.")
@click.option("--seeds", default="", metavar="N,N,...", help="Several seeds, e.g. 0,1,2: one run each in OUT/NAME/seed-N.")
@click.option(
    "--together",
    is_flag=True,
    help="Train several seeds, folds or splits as one batched program (pooling and recurrent heads), not in JOBS.",
)
@missing_option
@click.option("--force", is_flag=True, help="Train again what is there already, and replace runs made from other settings.")
@click.option("--jobs", type=click.IntRange(0), default=0, help="Processes for several folds, splits or seeds. [default: one a core]")
@device_option
@click.option(
    "--checkpoint-seconds",
    type=click.FloatRange(0),
    default=30.0,
    show_default=True,
    help="Save the state of a training so often; a killed job loses at most that, and the same command goes on from there.",
)
@click.option("--tensorboard", is_flag=True, help="Also write the metrics for TensorBoard, into the run's folder.")
@head_weights_option
@protocol_option
@spec_options(RunSpec, skip=("format", "head.weights"))
@click.pass_context
def train_head(
    context: click.Context,
    lists: dict[int, VideoList],
    features: tuple[Path, ...],
    name: str,
    out: Path,
    cross_validate: bool,
    seeds: str,
    together: bool,
    allow_missing: bool,
    force: bool,
    jobs: int,
    device: str,
    checkpoint_seconds: float,
    tensorboard: bool,
    head_weights: Path | None,
    protocol_name: str | None,
    overrides: dict[str, Any],
) -> None:
    """Train a head on the cached features of LIST's training videos and score its test videos.

    No test label is used for anything but the accuracy printed at the end. What is complete already is not done again, and what was
    interrupted goes on where it stopped, to the identical result.
    """
    from store.features import FeatureStore
    from temporal.experiment import train_list, train_splits

    spec = resolve(RunSpec, protocol(protocol_name), overrides)
    stores = [FeatureStore.open(path) for path in features]
    path, numbers = out / safe_name(name, "run name"), whole_numbers(seeds, "--seeds")
    if 0 not in lists and cross_validate:
        raise click.UsageError("--cross-validate cuts one list into folds itself; leave --splits out")
    if together and not (numbers or cross_validate or len(lists) > 1):
        raise click.UsageError("--together is for several heads; give --seeds, --splits or --cross-validate, or leave it out")
    tell_untrained(with_features(stores, lists) if allow_missing else lists, cross_validate, spec.train.refit)
    with stop_signals("saving the state of the training, then stopping") as stopped:
        settings = (numbers, allow_missing, force, jobs, device, head_weights, stopped, checkpoint_seconds, tensorboard, together)
        if 0 in lists:
            outcomes = [train_list(stores, lists[0], spec, path, cross_validate, *settings)]
        else:
            outcomes = train_splits(stores, lists, spec, path, *settings)
    click.echo("\n".join(outcome_text(outcome) for outcome in outcomes))
    if len(outcomes) > 1:
        click.echo(splits_text(path, outcomes))
    for note in dict.fromkeys(note for outcome in outcomes for note in outcome.notes):
        click.echo(f"note: {note}", err=True)
    missing = list(dict.fromkeys(id_ for outcome in outcomes for id_ in outcome.missing))
    report_missing(missing)
    context.exit(1 if missing else 0)


def with_features(stores: "Sequence[FeatureStore]", lists: dict[int, VideoList]) -> dict[int, VideoList]:
    """The lists without the videos that a store has nothing of."""
    from temporal.sequences import missing_videos

    absent = {number: set(missing_videos(stores, videos)) for number, videos in lists.items()}
    return {
        number: videos.subset([video.id for video in videos if video.id not in absent[number]]) if absent[number] else videos
        for number, videos in lists.items()
    }


def tell_untrained(lists: dict[int, VideoList], cross_validate: bool, refit: bool) -> None:
    """Warn of classes without a training video before anything is trained."""
    from temporal.untrained import untrained_notes

    for note in untrained_notes(lists, cross_validate, refit):
        click.echo(f"warning: {note}", err=True)


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
    return "\n".join([*lines, *_mean_text(outcome.path, outcome.accuracies(), "seeds")])


def splits_text(path: Path, outcomes: "Sequence[Outcome]") -> str:
    """The mean over the splits, each counted once however many seeds it has."""
    means = [sum(values) / len(values) for outcome in outcomes if (values := outcome.accuracies())]
    return "\n".join(_mean_text(path, means, "splits"))


def _mean_text(path: Path, values: Sequence[float], what: str) -> list[str]:
    if len(values) < 2:
        return []
    mean = sum(values) / len(values)
    deviation = (sum((value - mean) ** 2 for value in values) / (len(values) - 1)) ** 0.5
    return [f"{path}: top-1 {100 * mean:.2f} % mean of {len(values)} {what}, deviation {100 * deviation:.2f}"]


def report_missing(missing: Sequence[str]) -> None:
    """Name the videos that were left out."""
    if missing:
        click.echo(f"{len(missing)} videos of the list have no features and were left out: {', '.join(missing)}", err=True)
