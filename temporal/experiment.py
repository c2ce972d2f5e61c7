"""From stores and lists to runs: a list's split, several splits, or a cross-validation; one seed or several; resumable."""

import itertools
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.digest import digest
from store.errors import ListError, StoreError, TrainingError
from store.files import check_writable, safe_name, sha256_file, write_bytes, write_text
from store.run_files import UNCHECKED_RUNS
from store.scores import ScoreTable
from temporal.curves import curves_png
from temporal.folds import Part, leave_one_group_out, list_part
from temporal.forced import aside, put_back, remove_aside, take_places
from temporal.params import head_info
from temporal.run_dir import CURVES, FOLDS, SCORES, SPEC, SUMMARY, Run, check_replaceable, existing, spec_text
from temporal.sequences import FeatureSource, load_sequences, missing_videos, resolve_levels
from temporal.spec import RunSpec
from temporal.task import Running, Source, Task, describe_source, top1
from temporal.workplace import CHECKPOINT_SECONDS

if TYPE_CHECKING:
    from store.videos import VideoList


@dataclass(frozen=True)
class Outcome:
    """One run (or cross-validation) a seed, the videos of the list that had no features, and what else the user should know."""

    path: Path
    runs: tuple[Run, ...]
    missing: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def accuracies(self) -> list[float]:
        """Test top-1 of each run, as a share; empty where the test part has no labels."""
        return [run.result["top1"] for run in self.runs if run.result["top1"] is not None]


@dataclass(frozen=True)
class _Work:
    """One list in one folder: what is complete, and what is left to train; ``folders`` take the places ``finals`` in the end.

    ``place``: the folder aside that holds ``folders``, with ``--force`` of several heads.
    """

    path: Path
    videos: "VideoList"
    absent: list[str]
    notes: list[str]
    source: Source
    parts: list[Part]
    specs: list[RunSpec]
    folders: list[Path]
    finals: list[Path]
    place: Path | None
    todo: list[Task]
    runs: dict[Path, Run]


def train_list(
    stores: Sequence[FeatureSource],
    videos: "VideoList",
    spec: RunSpec,
    path: Path,
    cross_validate: bool = False,
    seeds: Sequence[int] = (),
    allow_missing: bool = False,
    force: bool = False,
    jobs: int = 0,
    device: str = "cpu",
    head_weights: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
    together: bool = False,
) -> Outcome:
    """Everything that ``actioncache train-head`` does with one list.

    ``path``: the run folder. ``cross_validate``: leave out each group in turn. ``seeds``: none, or one run a seed in ``seed-<n>/``.
    ``jobs``: processes for several folds or seeds (one thread each), 0 for one a core. What is complete already is skipped; what was left
    half-done goes on where it was saved, every ``checkpoint_seconds`` and, before ``Interrupted`` is raised, once ``stopped()``. ``force``:
    all of it is done again, in the place of what is there once it is complete (``temporal.forced``).
    ``together``: several folds or seeds as one batched program in this process, see ``temporal.together``.
    """
    _check_layout(path, "seed" if seeds else "")
    running = Running(device, checkpoint_seconds, stopped, tensorboard=tensorboard)
    work = _work(stores, videos, spec, path, cross_validate, seeds, allow_missing, force, head_weights, together)
    _train([work], stores, spec, running, jobs, alone=not seeds and not cross_validate)
    return _outcome(work, seeds)


def train_splits(
    stores: Sequence[FeatureSource],
    lists: "Mapping[int, VideoList]",
    spec: RunSpec,
    path: Path,
    seeds: Sequence[int] = (),
    allow_missing: bool = False,
    force: bool = False,
    jobs: int = 0,
    device: str = "cpu",
    head_weights: Path | None = None,
    stopped: Callable[[], bool] = lambda: False,
    checkpoint_seconds: float = CHECKPOINT_SECONDS,
    tensorboard: bool = False,
    together: bool = False,
) -> list[Outcome]:
    """The runs of several splits of the same videos, number -> list, in ``split-<n>/``, and their mean in summary.json.

    The features are loaded once; every head has one thread. Everything else as ``train_list``.
    """
    _check_layout(path, "split")
    running = Running(device, checkpoint_seconds, stopped, tensorboard=tensorboard)
    works = [
        _work(stores, videos, spec, path / f"split-{number}", False, seeds, allow_missing, force, head_weights, together)
        for number, videos in lists.items()
    ]
    _train(works, stores, spec, running, jobs, alone=False)
    outcomes = [_outcome(work, seeds) for work in works]
    means = [float(np.mean(outcome.accuracies())) if outcome.accuracies() else None for outcome in outcomes]
    _write_summary(path, "splits", dict(zip(map(str, lists), means, strict=True)))
    return outcomes


def _work(
    stores: Sequence[FeatureSource],
    videos: "VideoList",
    spec: RunSpec,
    path: Path,
    cross_validate: bool,
    seeds: Sequence[int],
    allow_missing: bool,
    force: bool,
    head_weights: Path | None,
    together: bool,
) -> _Work:
    safe_name(path.name, "run name")
    if head_weights is not None:
        spec = replace(spec, head=replace(spec.head, weights=f"sha256:{sha256_file(head_weights)}"))
    levels = resolve_levels(stores, spec.sequence)
    notes = weights_notes(stores, spec) + ([] if cross_validate else _notes(videos, spec))
    videos = videos if cross_validate else videos_in_use(videos)
    absent = missing_videos(stores, videos) if allow_missing else []
    if absent:
        left_out = set(absent)
        videos = videos.subset([video.id for video in videos if video.id not in left_out])
    source = replace(describe_source(stores, levels, videos, absent), together=together)
    parts = leave_one_group_out([video.group for video in videos]) if cross_validate else [list_part(videos)]
    if spec.train.refit and not spec.train.validation and not any(len(part.validation) for part in parts):
        raise TrainingError(
            "train.refit trains anew on training and validation part, but train.validation is 0 and the list has no validation videos, so "
            "there is nothing to add; leave one of the two out"
        )
    specs = [replace(spec, train=replace(spec.train, seed=seed)) for seed in seeds] or [spec]
    finals = folders = [path / f"seed-{seed}" for seed in seeds] or [path]
    put_back(path, finals)
    _check_layout(path, "seed" if seeds else "")
    for folder in finals if force else ():
        check_replaceable(folder)
    place = None
    if force and (seeds or cross_validate):
        kind = "cross-validation" if cross_validate else "split"
        place = aside(path, [source.identity(each, kind) for each in specs])
        folders, force = [place / folder.relative_to(path) for folder in finals], False
    todo, runs = _plan(source, parts, specs, folders, cross_validate, force)
    todo = [replace(task, weights=head_weights) for task in todo]
    return _Work(path, videos, absent, notes, source, parts, specs, folders, finals, place, todo, runs)


def _train(works: list[_Work], stores: Sequence[FeatureSource], spec: RunSpec, running: Running, jobs: int, alone: bool) -> None:
    """Load the features of all lists once and train what is left of each."""
    works = [work for work in works if work.todo]
    if not works:
        return
    from temporal.before import check_before
    from temporal.parallel import Job, train_all
    from temporal.train import check_device

    check_device(running.device)
    check_writable(*{task.path.parent for work in works for task in work.todo})
    videos = _union([work.videos for work in works])
    sequences = load_sequences(stores, videos, spec.sequence, resolve_levels(stores, spec.sequence), reads=head_info(spec.head.name).reads)
    place = {id_: number for number, id_ in enumerate(sequences.ids)}
    found = []
    for work in works:
        own = sequences if len(works) == 1 else sequences.subset([place[video.id] for video in work.videos])
        found += [Job(task, own, work.source) for task in work.todo]
    check_before(found[0], running.device)  # the others differ in seed and part
    train_all(found, running, jobs, alone)


def _union(lists: "list[VideoList]") -> "VideoList":
    """All videos of several splits; ListError where they are not of the same classes, or one says other things of a video."""
    from store.videos import Video, VideoList

    known: dict[str, Video] = {}
    for video in itertools.chain.from_iterable(lists):
        known.setdefault(video.id, video)
    for videos in lists:
        if videos.classes != lists[0].classes:
            raise ListError(f"the splits have different classes: {_some(lists[0].classes)} and {_some(videos.classes)}")
        differ = [video.id for video in videos if (video.label, video.group) != (known[video.id].label, known[video.id].group)]
        if differ:
            raise ListError(f"{len(differ)} videos have another label or group in another split: {_some(differ)}")
    return VideoList(tuple(known.values()), lists[0].classes)


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")


def _outcome(work: _Work, seeds: Sequence[int]) -> Outcome:
    runs = work.runs
    for each, folder in zip(work.specs, work.folders, strict=True):
        if folder not in runs:
            folds = (folder / FOLDS).is_dir()
            runs[folder] = _join_folds(folder, each, work.source, work.parts) if folds else Run.open(folder)
    found = [runs[folder] for folder in work.folders]
    if work.place:
        take_places(work.folders, work.finals)
        found = [Run.open(folder) for folder in work.finals]
        remove_aside(work.place)
    notes = [*work.notes, *([UNCHECKED_RUNS] if any(run.unchecked for run in found) else [])]
    outcome = Outcome(work.path, tuple(found), tuple(work.absent), tuple(notes))
    if seeds:
        _write_summary(work.path, "seeds", dict(zip(map(str, seeds), [run.result["top1"] for run in outcome.runs], strict=True)))
    return outcome


def videos_in_use(videos: "VideoList") -> "VideoList":
    """Without those in no split where others are in one (HMDB-51's flag 0): nobody needs their features."""
    return videos.subset([video.id for video in videos if video.split]) if any(video.split for video in videos) else videos


def _notes(videos: "VideoList", spec: RunSpec) -> list[str]:
    """What the list's own split leaves to be said."""
    notes = []
    splits = [video.split for video in videos]
    if any(splits) and "" in splits:
        notes.append(f"{splits.count('')} videos of the list are in no split and were left out")
    alone = sum(not video.group for video in videos if video.split == "train" or not any(splits))
    if spec.train.validation and "val" not in splits and alone:
        notes.append(f"{alone} training videos have no group; each counted as its own when the validation part was cut")
    if splits.count("val") and not (spec.train.validation or spec.train.refit):
        notes.append(
            f"{splits.count('val')} validation videos of the list are not used, since train.validation is 0; --train.refit trains on them"
        )
    return notes


def weights_notes(stores: Sequence[FeatureSource], spec: RunSpec) -> list[str]:
    """Whether a head that goes on with a network's maps starts from that network's weights, as far as the stores' specs tell."""
    if not head_info(spec.head.name).weights:
        return []
    if not spec.head.weights:
        return [
            f"head {spec.head.name} starts from random weights; --head-weights FILE gives it those of the network that made its features"
        ]
    made = [str(getattr(store, "spec", {}).get("weights", "")) for store in stores]
    return [
        f"--head-weights is {spec.head.weights[:19]}..., but the features were made with {weights[:19]}...; that is right only if both "
        "files hold the same weights"
        for weights in made
        if weights and not weights.startswith(spec.head.weights)
    ]


def _check_layout(path: Path, kind: str) -> None:
    """StoreError where ``path`` holds runs of another layout: one run (kind ""), one a "seed", or one a "split"."""
    inside = next((other for other in ("seed", "split") if list(path.glob(f"{other}-*"))), "" if (path / SPEC).exists() else None)
    if inside is not None and inside != kind:
        found = f"holds the runs of several {inside}s" if inside else "is one run"
        wanted = f"a folder of {kind}s" if kind else "one run"
        raise StoreError(f"{path} {found}, so it cannot be {wanted}; choose another --name or remove it")


def _plan(
    source: Source, parts: list[Part], specs: list[RunSpec], folders: list[Path], cross_validate: bool, force: bool
) -> tuple[list[Task], dict[Path, Run]]:
    """What is left to train, and the runs that are complete."""
    todo: list[Task] = []
    runs: dict[Path, Run] = {}
    for spec, folder in zip(specs, folders, strict=True):
        unfinished = cross_validate and (folder / FOLDS).is_dir() and not (folder / SPEC).exists()
        run = None if unfinished else existing(folder, source.identity(spec, "cross-validation" if cross_validate else "split"), force)
        if run:
            runs[folder] = run
        elif cross_validate:
            todo += _fold_tasks(source, parts, spec, folder)
        else:
            todo.append(Task(parts[0], spec, folder, curves=True))
    return todo, runs


def _fold_tasks(source: Source, parts: list[Part], spec: RunSpec, folder: Path) -> list[Task]:
    tasks = [Task(part, spec, folder / FOLDS / f"fold-{number:02d}", curves=False) for number, part in enumerate(parts)]
    return [task for task in tasks if not existing(task.path, source.identity(spec, task.part.name), force=False)]


def _join_folds(folder: Path, spec: RunSpec, source: Source, parts: list[Part]) -> Run:
    """Concatenate the folds' test scores: every video scored by the head that never saw its group."""
    runs = [Run.open(folder / FOLDS / f"fold-{number:02d}") for number in range(len(parts))]
    identity = source.identity(spec, "cross-validation")
    table = replace(
        ScoreTable.concat([run.scores() for run in runs]),
        source={"run": folder.name, "run_digest": digest(identity), "features": source.features, "part": "cross-validation"},
    )
    result = {
        "kind": "cross-validation",
        "top1": top1(table),
        "videos": {"test": len(table.ids)},
        "folds": {
            part.name: {"folder": run.name, "top1": run.result["top1"], "epochs": run.result["epochs"]}
            for part, run in zip(parts, runs, strict=True)
        },
        "missing": list(source.missing),
        "feature_specs": source.specs,
    }
    table.save(folder / SCORES)
    write_bytes(folder / CURVES, curves_png({part.name: run.history() for part, run in zip(parts, runs, strict=True)}))
    write_text(folder / SPEC, spec_text(folder, identity, result, [SCORES, *(f"{FOLDS}/{run.name}/{SPEC}" for run in runs)]))
    return Run.open(folder)


def _write_summary(path: Path, what: str, accuracies: Mapping[str, float | None]) -> None:
    """``what``: "seeds" or "splits"; their mean and deviation (n - 1)."""
    known = [value for value in accuracies.values() if value is not None]
    data: dict[str, Any] = {
        what: dict(accuracies),
        "mean": float(np.mean(known)) if known else None,
        "deviation": float(np.std(known, ddof=1)) if len(known) > 1 else None,
    }
    write_text(path / SUMMARY, json.dumps(data, indent=2) + "\n")
