"""Many heads to train, one after another or in several processes; a signal to stop reaches all of them."""

import multiprocessing
import os
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from store.errors import Interrupted
from store.progress import Progress
from temporal.params import head_info
from temporal.sequences import Sequences
from temporal.task import Running, Source, Task, train_in_steps, train_part

TOGETHER = 16  # heads in one batched program at most
POLL_SECONDS = 0.2  # between two looks for a signal
PARENT_SECONDS = 1.0  # between two looks whether the parent lives


class Job(NamedTuple):
    """A task with what it is trained on."""

    task: Task
    sequences: Sequences
    source: Source


def train_all(jobs: Sequence[Job], running: Running, processes: int, alone: bool) -> None:
    """Train every head into its folder, with progress on stderr.

    ``alone``: one head that was asked for by itself; it has all threads. Any other has one thread, in whatever number of ``processes``
    (0: one a core), so that the result does not depend on how many run or are left; or many are one program, where their source says so.
    Raises ``Interrupted``, with the state of every head saved, once ``running.stopped()``.
    """
    if alone:
        spec = jobs[0].task.spec
        epochs = spec.train.epochs if head_info(spec.head.name).fitted == "gradient" else 1  # a solver's work is not told piece by piece
        with Progress("train", epochs, "epochs") as progress:
            train_part(*jobs[0], replace(running, on_epoch=lambda record: _show(progress, record)))
        return
    processes = min(processes or len(os.sched_getaffinity(0)), len(jobs)) if running.device == "cpu" else 1
    with Progress("train", len(jobs), "heads") as progress:
        for done in _some_way(jobs, running, processes, progress):
            if done:
                progress.advance()
    if left := len(jobs) - progress.done:
        raise Interrupted(f"interrupted with {left} of {len(jobs)} heads left; the same command goes on where they stopped")


def _some_way(jobs: Sequence[Job], running: Running, processes: int, progress: Progress) -> Iterator[bool]:
    if jobs[0].source.together:
        return _together(jobs, replace(running, on_epoch=lambda record: progress.advance(0, f"epoch {record['epoch']}")))
    return _one_by_one(jobs, running) if processes == 1 else _in_processes(jobs, running, processes)


def _together(jobs: Sequence[Job], running: Running) -> Iterator[bool]:
    """Up to ``TOGETHER`` at a time as one program, with all threads."""
    from temporal.together import all_together

    for start in range(0, len(jobs), TOGETHER):
        works = [train_in_steps(*job, running) for job in jobs[start : start + TOGETHER]]
        yield from (run is not None for run in all_together(works, running.device, running.stopped))


def _one_by_one(jobs: Sequence[Job], running: Running) -> Iterator[bool]:
    for job in jobs:
        with one_thread():
            train_part(*job, running)
        yield True


def _in_processes(jobs: Sequence[Job], running: Running, processes: int) -> Iterator[bool]:
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import BrokenProcessPool

    with file_once(running.stopped) as stop_file:
        pool = Parallel(n_jobs=processes, return_as="generator_unordered", max_nbytes="1M")  # larger arrays are mapped, not copied
        settings = (running.device, running.seconds, running.tensorboard, stop_file)
        try:
            yield from pool(delayed(_train_in_worker)(job, *settings) for job in jobs)
        except BrokenProcessPool:
            if not running.stopped():  # else the signal killed a worker that was between two heads
                raise


def _train_in_worker(job: Job, device: str, seconds: float, tensorboard: bool, stop_file: Path) -> bool:
    """Whether the head is complete. An exception would make joblib kill the other workers, which are saving theirs."""
    end_with_parent()
    with deaf(), one_thread():
        try:
            train_part(*job, Running(device, seconds, Polled(stop_file.exists), tensorboard=tensorboard))
        except Interrupted:
            return False
    return True


class Polled:
    """A question that is asked at most every ``POLL_SECONDS``."""

    def __init__(self, question: Callable[[], bool]) -> None:
        self._question, self._answer, self._next = question, False, 0.0

    def __call__(self) -> bool:
        if not self._answer and time.monotonic() >= self._next:
            self._answer, self._next = self._question(), time.monotonic() + POLL_SECONDS
        return self._answer


@contextmanager
def file_once(stopped: Callable[[], bool], inside: Path | None = None) -> Iterator[Path]:
    """A path at which a file appears once ``stopped()``: what other processes can look for; ``inside``: a folder that all of them see."""
    ended = threading.Event()
    with tempfile.TemporaryDirectory(prefix=".actioncache-", dir=inside) as folder:
        file = Path(folder) / "stop"

        def watch() -> None:
            while not ended.wait(POLL_SECONDS):
                if stopped():
                    file.touch()
                    return

        if stopped():
            file.touch()  # before any worker can begin
        thread = threading.Thread(target=watch, name="stop", daemon=True)
        thread.start()
        try:
            yield file
        finally:
            ended.set()
            thread.join()


@cache
def end_with_parent() -> None:
    """In a worker process of joblib: end within about a second of the parent, whatever killed that.

    Nobody would get the results of such a worker, and it would keep the same command, run again, from the head that it has locked.
    Elsewhere this does nothing: a worker of Dask or Ray may outlive the shell that started it.
    """
    if not multiprocessing.current_process().name.startswith("LokyProcess"):
        return
    parent = os.getppid()

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(PARENT_SECONDS)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()


@contextmanager
def deaf() -> Iterator[None]:
    """Leave Ctrl-C, SIGTERM and SIGUSR1, which reach every process of a job, to the parent: it says when to save and stop."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


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


def _show(progress: Progress, record: dict[str, Any]) -> None:
    if record["phase"] == "fit" and record["epoch"] > progress.done + 1:
        progress.skip(record["epoch"] - 1 - progress.done)  # done by an earlier job
    progress.total = max(progress.total, progress.done + 1)
    kept = [f"{name.replace('_', ' ')} {record[name]:.3f}" for name in ("train_loss", "val_loss", "val_accuracy") if name in record]
    progress.advance(1, f"{record['phase']}: {', '.join(kept)}")
