"""From stores and a list to runs: the list's split or a cross-validation, one seed or several, in parallel, resumable run by run."""

import json
import os
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.digest import digest
from store.errors import StoreError
from store.files import safe_name, sha256_file, write_bytes, write_text
from store.progress import Progress
from store.scores import ScoreTable
from temporal.folds import Part, leave_one_group_out, list_part
from temporal.params import head_info
from temporal.run_dir import CURVES, FOLDS, SCORES, SPEC, SUMMARY, Run, check_replaceable, curves_png, existing, spec_text
from temporal.sequences import FeatureSource, Sequences, load_sequences, missing_videos, resolve_levels
from temporal.spec import RunSpec
from temporal.task import Source, Task, describe_source, top1, train_part

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
) -> Outcome:
    """Everything that ``actioncache train-head`` does.

    ``path``: the run folder. ``cross_validate``: leave out each group in turn. ``seeds``: none, or one run a seed in ``seed-<n>/``.
    ``jobs``: processes for several folds or seeds (one thread each), 0 for one a core. What is complete already is skipped.
    """
    safe_name(path.name, "run name")
    if head_weights is not None:
        spec = replace(spec, head=replace(spec.head, weights=f"sha256:{sha256_file(head_weights)}"))
    levels = resolve_levels(stores, spec.sequence)
    listed, videos = videos, videos if cross_validate else videos_in_use(videos)
    absent = missing_videos(stores, videos) if allow_missing else []
    if absent:
        left_out = set(absent)
        videos = videos.subset([video.id for video in videos if video.id not in left_out])
    source = describe_source(stores, levels, videos, absent)
    parts = leave_one_group_out([video.group for video in videos]) if cross_validate else [list_part(videos)]
    specs = [replace(spec, train=replace(spec.train, seed=seed)) for seed in seeds] or [spec]
    folders = [path / f"seed-{seed}" for seed in seeds] or [path]
    _check_layout(path, bool(seeds))
    todo, runs = _plan(source, parts, specs, folders, cross_validate, force)
    todo = [replace(task, weights=head_weights) for task in todo]
    if todo:
        from temporal.train import check_device

        check_device(device)
        alone = not seeds and not cross_validate
        sequences = load_sequences(stores, videos, spec.sequence, levels, reads=head_info(spec.head.name).reads)
        _run_all(todo, sequences, source, jobs, device, alone)
    for each, folder in zip(specs, folders, strict=True):
        if folder not in runs:
            runs[folder] = _join_folds(folder, each, source, parts) if cross_validate else Run.open(folder)
    notes = [] if cross_validate else _notes(listed, spec)
    outcome = Outcome(path, tuple(runs[folder] for folder in folders), tuple(absent), tuple(notes))
    if seeds:
        _write_summary(outcome, seeds)
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
    return notes


def _check_layout(path: Path, seeds: bool) -> None:
    if seeds and (path / SPEC).exists():
        raise StoreError(f"{path} is one run, not a folder of seeds; choose another --name or remove it")
    if not seeds and (path / SUMMARY).exists():
        raise StoreError(f"{path} holds the runs of several seeds, so it cannot be one run; choose another --name or remove it")


def _plan(
    source: Source, parts: list[Part], specs: list[RunSpec], folders: list[Path], cross_validate: bool, force: bool
) -> tuple[list[Task], dict[Path, Run]]:
    """What is left to train, and the runs that are complete."""
    todo: list[Task] = []
    runs: dict[Path, Run] = {}
    for folder in folders if force else ():
        check_replaceable(folder)
    for spec, folder in zip(specs, folders, strict=True):
        unfinished = cross_validate and (folder / FOLDS).is_dir() and not (folder / SPEC).exists()
        run = None if unfinished else existing(folder, source.identity(spec, "cross-validation" if cross_validate else "split"), force)
        if run:
            runs[folder] = run
        elif cross_validate:
            todo += _fold_tasks(source, parts, spec, folder, force)
        else:
            todo.append(Task(parts[0], spec, folder, curves=True))
    return todo, runs


def _fold_tasks(source: Source, parts: list[Part], spec: RunSpec, folder: Path, force: bool) -> list[Task]:
    if force and folder.exists():  # whole: no file of the old run may pass for one of the new
        shutil.rmtree(folder)
    tasks = [Task(part, spec, folder / FOLDS / f"fold-{number:02d}", curves=False) for number, part in enumerate(parts)]
    return [task for task in tasks if not existing(task.path, source.identity(spec, task.part.name), force)]


def _run_all(tasks: list[Task], sequences: Sequences, source: Source, jobs: int, device: str, alone: bool) -> None:
    if alone:  # not the only one asked for or left of many: those have one thread each, whatever is there already
        with Progress("train", tasks[0].spec.train.epochs, "epochs") as progress:
            train_part(tasks[0], sequences, source, device, lambda record: progress.advance(1, _epoch_note(record)))
        return
    jobs = min(jobs or len(os.sched_getaffinity(0)), len(tasks)) if device == "cpu" else 1
    with Progress("train", len(tasks), "heads") as progress:
        for _ in _in_parallel(tasks, sequences, source, jobs, device):
            progress.advance()


def _in_parallel(tasks: list[Task], sequences: Sequences, source: Source, jobs: int, device: str) -> Iterator[Path]:
    if jobs == 1:
        for task in tasks:
            yield _train_on_one_thread(task, sequences, source, device)
        return
    from joblib import Parallel, delayed

    pool = Parallel(n_jobs=jobs, return_as="generator_unordered", max_nbytes="1M")  # larger arrays are memory-mapped, not copied
    yield from pool(delayed(_train_on_one_thread)(task, sequences, source, device) for task in tasks)


def _train_on_one_thread(task: Task, sequences: Sequences, source: Source, device: str) -> Path:
    """One thread in every process, so that the result does not depend on how many run."""
    with one_thread():
        return train_part(task, sequences, source, device).path


@contextmanager
def one_thread() -> Iterator[None]:
    """torch, BLAS and OpenMP use one thread inside."""
    import torch
    from threadpoolctl import threadpool_limits

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with threadpool_limits(1):
            yield
    finally:
        torch.set_num_threads(before)


def _epoch_note(record: dict[str, Any]) -> str:
    kept = [f"{name.replace('_', ' ')} {record[name]:.3f}" for name in ("train_loss", "val_loss", "val_accuracy") if name in record]
    return f"{record['phase']}: {', '.join(kept)}"


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
    }
    table.save(folder / SCORES)
    write_bytes(folder / CURVES, curves_png({part.name: run.history() for part, run in zip(parts, runs, strict=True)}))
    write_text(folder / SPEC, spec_text(identity, result))
    return Run.open(folder)


def _write_summary(outcome: Outcome, seeds: Sequence[int]) -> None:
    accuracies = outcome.accuracies()
    data = {
        "seeds": dict(zip(map(str, seeds), [run.result["top1"] for run in outcome.runs], strict=True)),
        "mean": float(np.mean(accuracies)) if accuracies else None,
        "deviation": float(np.std(accuracies, ddof=1)) if len(accuracies) > 1 else None,
    }
    write_text(outcome.path / SUMMARY, json.dumps(data, indent=2) + "\n")
