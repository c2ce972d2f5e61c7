"""Many settings trained side by side, each by ``train_list`` into a folder of its own: what is complete is kept, what fails is recorded.

The workers are processes of this machine (loky) or of a cluster (Dask, Ray), which then sees the same paths. A setting's seeds, folds
and interruptions are ``train_list``'s affair.
"""

import contextlib
import functools
import io
import os
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from store.digest import digest, to_plain
from store.errors import Interrupted, PipelineError, SpecError
from store.files import sha256_file
from store.progress import Progress
from temporal.cluster import Backend, cluster, in_ray
from temporal.grid import Setting
from temporal.params import head_info

if TYPE_CHECKING:
    from store.scores import ScoreTable
    from store.videos import VideoList
    from temporal.run_dir import Run


@dataclass(frozen=True)
class Plan:
    """What is the same for all settings: seeds, cross-validation, devices, workers.

    ``together``: seeds and folds of a setting as one batched program, where its head allows that.
    """

    seeds: tuple[int, ...] = (0,)
    cross_validate: bool = False
    allow_missing: bool = False
    jobs: int = 0
    device: str = "cpu"
    backend: Backend = "loky"
    scheduler: str = ""
    head_weights: Path | None = None
    together: bool = True

    def weights_for(self, setting: Setting) -> Path | None:
        """The pretrained weights, for a head that takes them."""
        return self.head_weights if head_info(setting.spec.head.name).weights else None


@dataclass(frozen=True)
class Work:
    """One setting on one list (a split), trained into ``path``."""

    setting: Setting
    videos: "VideoList"
    path: Path


@dataclass(frozen=True)
class SeedFigures:
    """Figures of one seed as shares of 1; None where there is no such part or no labels. ``epochs`` is a mean over folds."""

    seed: int
    val_accuracy: float | None
    val_loss: float | None
    top1: float | None
    epochs: float
    path: str


@dataclass(frozen=True)
class Trained:
    """What came of a ``Work``: figures of each seed, or why it failed; ``unchecked``: whether from runs without digests."""

    figures: tuple[SeedFigures, ...] = ()
    test_videos: int = 0
    missing: int = 0
    failure: str = ""
    unchecked: bool = False


_TURNS = threading.Lock()  # torch's generators and threads are a process's: workers that are threads of one (Dask's may be) take turns
Numbered = tuple[int, Trained | None]  # of a work: its position, and what came of it; None where it was interrupted


def setting_name(setting: Setting, plan: Plan) -> str:
    """Folder name of a setting: equal settings on equal stores share one, whatever the grid that they stand in."""
    spec, weights = to_plain(setting.spec), plan.weights_for(setting)
    del spec["train"]["seed"]
    identity = {"spec": spec, "features": [store_name(path) for path in setting.features], "cross_validate": plan.cross_validate}
    return digest({**identity, "together": _together(setting, plan), "weights": weights and _sha256(weights)})[:16]


def store_name(path: Path) -> str:
    """Name and digest, as a run's identity has them, however the path was typed; a store that cannot be opened is told when it is read."""
    return opened_name(path) or str(path.absolute())


def opened_name(path: Path) -> str | None:
    """``store_name`` of a store that can be opened; None for another."""
    try:
        return _opened_name(path.absolute())
    except (PipelineError, OSError):
        return None


@functools.cache
def _opened_name(path: Path) -> str:
    from store.features import FeatureStore

    store = FeatureStore.open(path)
    return f"{store.path.name} {store.digest}"


def _together(setting: Setting, plan: Plan) -> bool:
    try:
        return plan.together and trains_together(setting)
    except Exception:  # a head that cannot be built, which its training tells
        return plan.together


@functools.cache
def _sha256(path: Path) -> str:
    return sha256_file(path)


def train_all(works: Sequence[Work], plan: Plan, title: str = "train", stopped: Callable[[], bool] = lambda: False) -> list[Trained]:
    """Train every work; results in their order. Only an interruption or a broken backend is raised, failures are in the results.

    ``Interrupted``, with the state of every head saved, once ``stopped()``.
    """
    results: dict[int, Trained] = {}
    with Progress(title, len(works), "settings") as progress, _warnings_quiet():
        for index, result in _each(works, plan, stopped):
            if result is None:
                continue
            results[index] = result
            failed = sum(bool(done.failure) for done in results.values())
            progress.advance(1, f"{failed} failed" if failed else None)
    if left := len(works) - len(results):
        raise Interrupted(f"interrupted with {left} of {len(works)} settings left; the same command goes on where they stopped")
    return [results[index] for index in range(len(works))]


def _each(works: Sequence[Work], plan: Plan, stopped: Callable[[], bool]) -> Iterator[Numbered]:
    todo = list(range(len(works)))
    if len(works) == 1 and plan.backend == "loky":  # its folds and seeds can use the cores themselves
        yield 0, train_one(works[0], plan, plan.jobs, quiet=False, stopped=stopped)
        return
    jobs = min(workers(plan), len(works))
    if jobs == 1 and plan.backend == "loky":
        for index in todo:
            yield index, train_one(works[index], plan, 1, stopped=stopped)
        return
    from joblib.externals.loky.process_executor import BrokenProcessPool  # what joblib raises when a worker is killed

    from temporal.parallel import file_once

    shared = None if plan.backend == "loky" else works[0].path.parent
    if shared is not None:
        shared.mkdir(parents=True, exist_ok=True)
    with file_once(stopped, shared) as stop_file:
        while todo:
            try:
                for index, result in _in_parallel(list(todo), works, plan, jobs, stop_file):
                    todo.remove(index)
                    yield index, result
            except BrokenProcessPool:
                if stopped():  # the signal killed a worker that was between two settings
                    return
                jobs = min(jobs, len(todo)) // 2  # most often the memory was too small for so many
                if jobs < 2:
                    yield from _one_by_one(todo, works, plan, stop_file)
                    return


def _one_by_one(todo: Sequence[int], works: Sequence[Work], plan: Plan, stop_file: Path) -> Iterator[Numbered]:
    """After a worker was killed, each work in a process alone, so that the one that kills it is found and the others are done."""
    from joblib.externals.loky.process_executor import BrokenProcessPool

    for index in todo:
        try:
            yield from _in_parallel([index], works, plan, jobs=2, stop_file=stop_file)  # with 1 joblib makes no process
        except BrokenProcessPool as error:
            yield index, Trained(failure=f"the process that trained it was killed, twice (out of memory?): {str(error).splitlines()[0]}")


def _in_parallel(todo: Sequence[int], works: Sequence[Work], plan: Plan, jobs: int, stop_file: Path) -> Iterator[Numbered]:
    if plan.backend == "ray":
        if plan.device not in ("cpu", "cuda"):
            raise SpecError(f"device {plan.device!r} is one of this machine; Ray gives each setting a GPU of its own with --device cuda")
        calls = [(index, works[index], plan, stop_file) for index in todo]
        for position, result, lost in in_ray(plan.scheduler, jobs, int(plan.device == "cuda"), _numbered, calls, stop_file.exists):
            yield (todo[position], Trained(failure=f"its worker on the Ray cluster was lost: {lost}")) if lost else result
        return
    from joblib import Parallel, delayed

    with cluster(plan.backend, plan.scheduler):
        pool = Parallel(n_jobs=jobs, return_as="generator_unordered", batch_size=1, pre_dispatch="2*n_jobs")
        yield from pool(delayed(_numbered)(index, works[index], plan, stop_file) for index in list(todo))


def _numbered(index: int, work: Work, plan: Plan, stop_file: Path) -> Numbered:
    """An interruption is no exception here: that would make joblib kill the other workers, which are saving their state."""
    from temporal.parallel import Polled, deaf, end_with_parent

    end_with_parent()
    with deaf(), _TURNS:
        try:
            return index, None if stop_file.exists() else train_one(work, plan, 1, stopped=Polled(stop_file.exists))
        except Interrupted:
            return index, None


def workers(plan: Plan) -> int:
    """How many settings at once: what was asked for, else one a core, one on a GPU, and on a cluster all it has."""
    if plan.jobs:
        return plan.jobs
    if plan.backend != "loky":
        return 10**6  # as many as the cluster takes
    return len(os.sched_getaffinity(0)) if plan.device == "cpu" else 1


def train_one(work: Work, plan: Plan, jobs: int, quiet: bool = True, stopped: Callable[[], bool] = lambda: False) -> Trained:
    """Train one work (or find it complete) and read its figures; every failure but an interruption becomes a result."""
    from store.features import FeatureStore
    from temporal.experiment import train_list

    try:
        stores = [FeatureStore.open(path) for path in work.setting.features]
        with one_of_many(quiet):
            outcome = train_list(
                stores,
                work.videos,
                work.setting.spec,
                work.path,
                cross_validate=plan.cross_validate,
                seeds=plan.seeds,
                allow_missing=plan.allow_missing,
                jobs=jobs,
                device=plan.device,
                head_weights=plan.weights_for(work.setting),
                stopped=stopped,
                together=plan.together and trains_together(work.setting),
            )
        figures = tuple(seed_figures(seed, run) for seed, run in zip(plan.seeds, outcome.runs, strict=True))
        unchecked = any(run.unchecked for run in outcome.runs)
        return Trained(figures, int(outcome.runs[0].result["videos"]["test"]), len(outcome.missing), unchecked=unchecked)
    except Interrupted:
        raise
    except PipelineError as error:
        return Trained(failure=str(error))
    except Exception as error:  # a bug or a full machine costs this setting, not the night's sweep
        return Trained(failure=f"{type(error).__name__}: {error}")


@contextlib.contextmanager
def one_of_many(quiet: bool) -> Iterator[None]:
    """On one thread, so that a result does not depend on how many others run; ``quiet``: without a progress of its own."""
    from temporal.parallel import one_thread

    with contextlib.redirect_stderr(io.StringIO()) if quiet else contextlib.nullcontext(), one_thread():
        yield


def trains_together(setting: Setting) -> bool:
    """Whether several of this setting's heads can be one program."""
    import torch

    from temporal.heads import HEADS
    from temporal.together import can_train_together

    info, head = head_info(setting.spec.head.name), setting.spec.head
    if info.reads != "vectors" or info.fitted != "gradient":
        return False
    with torch.device("meta"):  # the kind of module is asked for, not its weights
        return can_train_together(HEADS.get(head.name)(head.hidden, 2, head))


def seed_figures(seed: int, run: "Run") -> SeedFigures:
    """Validation and test figures of a run or a cross-validation; its folds' validation videos count alike."""
    from temporal.run_dir import VALIDATION

    runs = run.folds() or [run]
    tables = [each.validation_scores() for each in runs if (each.path / VALIDATION).is_file()]
    count = sum(len(table) for table in tables)
    accuracy = sum(hits(table) for table in tables) / count if count else None
    losses = [loss_sum(table) for table in tables]
    loss = float(sum(losses)) / count if count and None not in losses else None  # type: ignore[arg-type]
    epochs = float(np.mean([each.result["epochs"] for each in runs]))
    return SeedFigures(seed, accuracy, loss, run.result["top1"], epochs, str(run.path))


def hits(table: "ScoreTable") -> int:
    """Videos whose highest score is their label's."""
    assert table.labels is not None, "a validation part has labels"
    return int((table.values.argmax(axis=1) == table.labels).sum())


def loss_sum(table: "ScoreTable") -> float | None:
    """Sum over the videos of -log softmax(scores)[label]; None for decision values, which are no logits."""
    if table.kind == "decision_values" or table.labels is None:
        return None
    values = table.values.astype(np.float64)
    shifted = values - values.max(axis=1, keepdims=True)
    log_probs = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_probs[np.arange(len(values)), table.labels].sum())


@contextlib.contextmanager
def _warnings_quiet() -> Iterator[None]:
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="A worker stopped while some jobs")  # loky, after a killed worker; handled above
        yield
