"""The command ``predict``: scores of a list's videos or of video files, from stored features or straight from the videos."""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import click

from store.errors import MissingFeaturesError
from store.files import write_bytes
from store.list_commands import optional_list_options
from store.run_files import UNCHECKED, check_output
from store.signals import stop_signals
from store.videos import Video, VideoList
from temporal.commands import accuracy_text, device_option, missing_option, report_missing

if TYPE_CHECKING:
    import numpy as np

    from store.features import FeatureStore
    from store.scores import ScoreTable
    from temporal.answers import Guess
    from temporal.run_dir import Run
    from temporal.seen import Seen

_FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
_VIDEO = click.Path(exists=True, path_type=Path)
STRIP = (5, 112)  # frames of each, and their height in pixels


class StageOne(Protocol):
    """What is needed of stage one; ``cli.Packages`` is such."""

    def extract(
        self,
        videos: VideoList,
        spec: dict[str, Any],
        files: Sequence[Path],
        folder: Path,
        name: str,
        device: str,
        flow_weights: str,
        flow_root: str,
        allowed: Sequence[str],
        stopped: Callable[[], bool],
    ) -> tuple[Path, dict[str, tuple[str, str]]]:
        """The store that holds the features of ``videos`` by ``spec``, and the failures."""

    def strip(self, path: Path, count: int, height: int) -> "np.ndarray":
        """Frames of a video side by side, RGB uint8 [height, W, 3]."""


@dataclass(frozen=True)
class FromVideos:
    """How features are made where none are given."""

    weights: tuple[Path, ...]
    flow_weights: str
    flow_root: str
    allowed: tuple[str, ...]
    folder: Path
    device: str


@click.command("predict")
@click.argument("run", type=click.Path(exists=True, file_okay=False, path_type=Path))
@optional_list_options
@click.option("--video", "files", multiple=True, type=_VIDEO, help="A video, instead of LIST; repeatable.")
@click.option(
    "--features",
    multiple=True,
    type=click.Path(file_okay=False, path_type=Path),
    help="Feature store; twice for mid fusion. Without it the features are extracted as those of RUN were.",
)
@click.option("--weights", multiple=True, type=_FILE, help="Weights of the network(s), where they are not published ones; repeatable.")
@click.option("--flow-weights", default="", help="Weights of a flow method that is a network, as for extract.")
@click.option("--flow-root", default="", help="Folder of flow that another tool computed, as for extract.")
@click.option("--allow-backbone", "allowed", multiple=True, help="A network PACKAGE.MODULE:NAME whose code may be run for RUN; repeatable.")
@click.option("--keep-features", type=click.Path(file_okay=False, path_type=Path), help="Keep extracted features in this folder of stores.")
@click.option("--output", "-o", type=click.Path(dir_okay=False, path_type=Path), help="Score table to write (.npz).")
@click.option("--top", type=click.IntRange(0), help="Print so many classes of each video. [default: 5 with --video, else 0]")
@click.option("--json", "as_json", is_flag=True, help="Print them as JSON, a line a video.")
@click.option(
    "--picture",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Picture to write (.png, .svg or .pdf): frames and best classes of 20 videos, those first that RUN was not trained on.",
)
@click.option("--draw", "drawn", multiple=True, metavar="ID", help="A video for the picture, by its id; repeatable.")
@missing_option
@device_option
@click.pass_context
def predict(
    context: click.Context,
    run: Path,
    videos: VideoList | None,
    files: tuple[Path, ...],
    features: tuple[Path, ...],
    weights: tuple[Path, ...],
    flow_weights: str,
    flow_root: str,
    allowed: tuple[str, ...],
    keep_features: Path | None,
    output: Path | None,
    top: int | None,
    as_json: bool,
    picture: Path | None,
    drawn: tuple[str, ...],
    allow_missing: bool,
    device: str,
) -> None:
    """Score the videos of LIST, or those given with --video, with the head of RUN.

    From --features, which must be of the spec that RUN was trained on; without, the features are made by that very spec: settings from
    RUN, weights by their SHA-256 (published ones are downloaded, others given with --weights).
    """
    from store.features import FeatureStore
    from store.scores import ScoreTable
    from temporal.answers import best_guesses
    from temporal.picture import check_picture
    from temporal.predict import predict as score
    from temporal.run_dir import Run
    from temporal.seen import seen

    if (videos is None) == (not files):
        raise click.UsageError("give a LIST or --video FILE, one of them")
    asked = videos if videos is not None else VideoList(tuple(Video(str(file), file) for file in files), ())
    if not len(asked):
        raise click.UsageError("the list has no videos")
    if output:
        ScoreTable.check_name(output)
    check_picture(picture, drawn, asked.ids)
    check_output(*(path for path in (output, picture, keep_features) if path))
    opened, failed = Run.open(run), dict[str, tuple[str, str]]()
    with ExitStack() as stack:
        if features:
            stores = [FeatureStore.open(path) for path in features]
        else:
            folder = keep_features or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="actioncache-")))
            stores, failed = _extracted(context.obj, opened, asked, FromVideos(weights, flow_weights, flow_root, allowed, folder, device))
        asked, absent = _with_features(stores, asked, allow_missing or not features)
        table = score(opened, stores, asked, device)
    if output:
        table.save(output)
    guesses = best_guesses(table, (5 if files else 0) if top is None else top)
    parts: dict[str, Seen] = dict.fromkeys(table.ids, "unknown") if files else seen(opened, table.ids)  # a file's path is no id of a list
    if text := _json(guesses, parts) if as_json else _text(guesses, "" if files else _summary(str(output or run), table, parts)):
        click.echo(text)
    if picture:
        click.echo(_drawn(context.obj, table, asked, parts, drawn, picture), err=True)
    if opened.unchecked:
        click.echo(f"note: {run} was {UNCHECKED}", err=True)
    for id_, (stage, reason) in failed.items():
        click.echo(f"failed {id_} [{stage}]: {reason}", err=True)
    report_missing([id_ for id_ in absent if id_ not in failed])
    context.exit(1 if absent else 0)


def _extracted(
    stage_one: StageOne | None, run: "Run", videos: VideoList, how: FromVideos
) -> "tuple[list[FeatureStore], dict[str, tuple[str, str]]]":
    """A store a stream of the run with the features of ``videos``, and what failed in any."""
    from store.features import FeatureStore

    if stage_one is None:
        raise click.UsageError("features are extracted by the command actioncache only; give --features")
    stores, failed = [], dict[str, tuple[str, str]]()
    with stop_signals("stopping") as stopped:
        for entry, spec in zip(run.features, run.feature_specs, strict=True):
            name = entry["name"].rpartition("-")[0] or "features"
            path, problems = stage_one.extract(
                videos, spec, how.weights, how.folder, name, how.device, how.flow_weights, how.flow_root, how.allowed, stopped
            )
            stores.append(FeatureStore.open(path))
            failed |= problems
    return stores, failed


def _with_features(stores: "Sequence[FeatureStore]", videos: VideoList, leave_out: bool) -> tuple[VideoList, list[str]]:
    """The videos that every store has features of, and the ids of the others where they may be left out."""
    from temporal.sequences import missing_videos

    absent = missing_videos(stores, videos) if leave_out else []
    if len(absent) == len(videos):
        raise MissingFeaturesError(f"there are no features of any of the {len(videos)} videos: {', '.join(absent[:5])}")
    return (videos.subset([video.id for video in videos if video.id not in set(absent)]) if absent else videos), absent


def _json(guesses: "dict[str, list[Guess]]", parts: "Mapping[str, Seen]") -> str:
    """A line a video: its classes, and what it was to the run."""
    lines = [
        {"id": id_, "part": parts[id_], "top": [{"class": guess.name, guess.unit: guess.value} for guess in found]}
        for id_, found in guesses.items()
    ]
    return "\n".join(json.dumps(line, ensure_ascii=False) for line in lines)


def _text(guesses: "dict[str, list[Guess]]", summary: str) -> str:
    from temporal.answers import guesses_text

    return "\n".join([*([guesses_text(guesses)] if any(guesses.values()) else []), *([summary] if summary else [])])


def _summary(name: str, table: "ScoreTable", parts: "Mapping[str, Seen]") -> str:
    """A line of accuracy for the videos of each kind: never one figure over videos that the run learned from and others."""
    from temporal.seen import IN_WORDS, accuracies

    return "\n".join(f"{name}: {accuracy_text(*found)}, {IN_WORDS[kind]}" for kind, found in accuracies(table, parts).items())


def _drawn(
    stage_one: StageOne | None, table: "ScoreTable", videos: VideoList, parts: "Mapping[str, Seen]", asked: Sequence[str], to: Path
) -> str:
    """Write the picture; what is in it, in words."""
    from store.errors import DecodeError
    from temporal.picture import chosen, picture

    ids, which = chosen(table.ids, parts, asked)
    strips = {}
    for id_ in ids if stage_one else ():
        try:
            strips[id_] = stage_one.strip(videos.by_id(id_).path, *STRIP)  # type: ignore[union-attr]
        except DecodeError:  # its features are there, its file is not
            continue
    write_bytes(to, picture(table.rows(ids), parts, strips, STRIP[0], to.suffix))
    return f"{to} shows {which}"
