"""One head trained into one run folder."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.digest import digest, to_plain
from store.errors import Interrupted, TrainingError
from store.scores import ScoreTable
from temporal.folds import Part, validation_part
from temporal.predict import fitted_table
from temporal.run_dir import SCORES, VALIDATION, Run, write_run
from temporal.sequences import FeatureSource, Sequences
from temporal.spec import RunSpec
from temporal.workplace import CHECKPOINT_SECONDS, Workplace, workplace

if TYPE_CHECKING:
    from store.videos import VideoList
    from temporal.epochs import InSteps, OnEpoch


@dataclass(frozen=True)
class Source:
    """What a run's identity says of its data; ``specs``: what the features were made by, for features of other videos."""

    features: list[dict[str, str]]
    specs: list[dict[str, Any]]
    list_digest: str
    classes: tuple[str, ...]
    missing: tuple[str, ...]
    together: bool = False  # trained with others as one program, which may change last bits

    def identity(self, spec: RunSpec, part: str) -> dict[str, Any]:
        """What must be equal for two runs to be the same one.

        ``trained_on``: a refit without a validation part, which once left out the list's validation videos under the same settings.
        """
        whole = spec.train.refit and not spec.train.validation
        return {
            "spec": to_plain(spec),
            "features": self.features,
            "list": self.list_digest,
            "classes": list(self.classes),
            "part": part,
            **({"together": True} if self.together else {}),
            **({"trained_on": "training and validation videos"} if whole else {}),
        }


@dataclass(frozen=True)
class Running:
    """How a head is trained; nothing here changes the result, but for the last bits that another device may change.

    ``seconds``: how much work a killed job may lose; ``stopped``: whether to save and raise ``Interrupted``; ``tensorboard``: write events.
    """

    device: str = "cpu"
    seconds: float = CHECKPOINT_SECONDS
    stopped: Callable[[], bool] = lambda: False
    on_epoch: "OnEpoch | None" = None
    tensorboard: bool = False


@dataclass(frozen=True)
class Task:
    """One head to train into one folder."""

    part: Part
    spec: RunSpec
    path: Path
    curves: bool
    weights: Path | None = None  # pretrained weights, whose identity is in ``spec.head.weights``


def describe_source(stores: Sequence[FeatureSource], levels: Sequence[str], videos: "VideoList", absent: Sequence[str]) -> Source:
    """Names and digests of what a run is trained on; ``absent``: videos left out for want of features."""
    features = [{"name": store.path.name, "digest": store.digest, "level": level} for store, level in zip(stores, levels, strict=True)]
    listed = [[video.id, video.label, video.split, video.group] for video in videos]
    return Source(features, [store.spec for store in stores], digest(listed), tuple(videos.classes), tuple(absent))


def train_part(task: Task, sequences: Sequences, source: Source, running: Running = Running()) -> Run:
    """``train_in_steps``, all at once."""
    from temporal.epochs import one_by_one

    return one_by_one(train_in_steps(task, sequences, source, running))


def train_in_steps(task: Task, sequences: Sequences, source: Source, running: Running = Running()) -> "InSteps[Run]":
    """Train one head and write its run folder; goes on where a stopped or killed job left it, to the identical result.

    Raises ``Interrupted`` once ``running.stopped()``, with the state saved.
    """
    from temporal.train import check_trainable

    check_trainable(sequences.subset(task.part.train))
    identity = source.identity(task.spec, task.part.name)
    with workplace(task.path, identity, running.seconds, running.stopped, running.tensorboard) as place:
        return (yield from _train(task, sequences, source, identity, running, place))


def _train(
    task: Task, sequences: Sequences, source: Source, identity: dict[str, Any], running: Running, place: Workplace
) -> "InSteps[Run]":
    from temporal.train import fit_in_steps, refit_in_steps

    _go_on(task, running)
    spec, part, num_classes, device, on_epoch = task.spec, task.part, len(source.classes), running.device, running.on_epoch
    training, validation = cut(sequences, part, spec)
    fitted = yield from fit_in_steps(training, validation, spec, num_classes, device, on_epoch, "fit", task.weights, place)
    origin = {"run": task.path.name, "run_digest": digest(identity), "features": source.features, "part": part.name}
    tables, trained_on = {}, training.ids
    if validation is not None:
        tables[VALIDATION] = fitted_table(fitted, validation, spec, source.classes, {**origin, "of": "validation part"}, device)
        if spec.train.refit:
            _go_on(task, running)
            whole = sequences.subset(np.sort(np.concatenate([part.train, part.validation])))
            trained_on = whole.ids
            fitted = yield from refit_in_steps(fitted, whole, spec, num_classes, device, on_epoch, task.weights, place)
    if len(part.test):
        tables[SCORES] = fitted_table(fitted, sequences.subset(part.test), spec, source.classes, {**origin, "of": "test part"}, device)
    result = {
        "kind": "run",
        "top1": top1(tables.get(SCORES)),
        "videos": {"train": len(training), "validation": len(validation or ()), "test": len(part.test)},
        "validation_groups": sorted(set(validation.groups)) if validation is not None else [],
        "epochs": fitted.best_epoch,
        "input_width": _input_width(fitted.projection.components, sequences.width),
        "missing": list(source.missing),
        "feature_specs": source.specs,
    }
    videos = {"trained_on": trained_on, "validation": validation.ids if validation is not None else ()}
    state = fitted.head.state_dict()
    return write_run(place, identity, result, state, fitted.projection, fitted.history, tables, videos, task.curves)


def _go_on(task: Task, running: Running) -> None:
    """``Interrupted`` once the training shall stop: heads that a solver fits do not ask in between."""
    if running.stopped():
        raise Interrupted(f"{task.path}: interrupted; the same command goes on where it stopped")


def top1(table: ScoreTable | None) -> float | None:
    """Share of the videos whose highest score is their label's; None without labels."""
    if table is None or table.labels is None:
        return None
    return float((table.values.argmax(axis=1) == table.labels).mean())


def _input_width(components: np.ndarray | None, width: int) -> int:
    return width if components is None else len(components)


def cut(sequences: Sequences, part: Part, spec: RunSpec) -> tuple[Sequences, Sequences | None]:
    """Training and validation part: the list's own, else cut from the training videos in whole groups, else none.

    Without validation nothing decides, so a refit is the training itself, on the list's validation videos, too.
    """
    training = sequences.subset(part.train)
    if not spec.train.validation:
        return (sequences.subset(np.sort(np.concatenate([part.train, part.validation]))) if spec.train.refit else training), None
    if len(part.validation):
        validation = sequences.subset(part.validation)
        without = int((validation.labels < 0).sum())
        if without:
            raise TrainingError(f"{without} of {len(validation)} validation videos have no label; label them or leave them out")
        return training, validation
    kept, held_out = validation_part(training.labels, training.groups, spec.train.validation, spec.train.seed)
    return training.subset(kept), training.subset(held_out)
