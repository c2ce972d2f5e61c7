"""Decoding in worker processes: a video that crashes, hangs or confuses its decoder costs that video, never the job.

Frames go through shared memory: a worker has a few slots (``extract.slots``), fills a free one, and is told when the job is done with
it. The slots are also the brake: a worker that is ahead waits for one, so memory stays bounded however long the videos are.
"""

import multiprocessing
import os
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import wait
from types import ModuleType
from typing import Any, Literal

import numpy as np

from extract.slots import Slots
from extract.worker import Freed, Work, serve
from store.errors import PipelineError

MOST_WORKERS = 8  # by default, beside a network
POLL_SECONDS = 0.5  # how often a waiting job looks at its stop flag
START_SECONDS = 900.0  # imports from a busy network disk take minutes
LATER_SECONDS = 2.0  # how often jobs whose time had not come are asked about again

Turn = Literal["now", "later", "never"]


@dataclass(frozen=True)
class Opened:
    """A worker has begun a stream of a job, or begun it again (after a crash, or because what it sent was wrong); ``header`` is what it
    sent first."""

    key: str
    header: Any
    stream: int = 0


@dataclass(frozen=True)
class Block:
    """The next frames of a job's stream, uint8 [k, H, W, C]. They are the worker's memory: gone once the next event is asked for."""

    key: str
    frames: np.ndarray
    stream: int = 0


@dataclass(frozen=True)
class Finished:
    """A job has sent everything; ``result`` is what the work function returned."""

    key: str
    result: Any = None


@dataclass(frozen=True)
class Failed:
    """A job will send nothing more: the stage and the reason."""

    key: str
    stage: str
    reason: str


@dataclass(frozen=True)
class Idle:
    """Nothing is under way, and the jobs that are left wait for others: what has been gathered may be finished meanwhile."""

    key: str = ""


Event = Opened | Block | Finished | Failed | Idle


class _Worker:
    """One process, its pipe, its slots, and the job it is on."""

    def __init__(self, work: Work, niceness: int) -> None:
        context = multiprocessing.get_context("spawn")  # fork is not safe once the network's threads run
        self.connection, theirs = context.Pipe()
        self.slots = Slots.new()
        self.process = context.Process(target=serve, args=(theirs, work, self.slots, niceness), daemon=True)
        with _apart_from_main(work):
            self.process.start()
        theirs.close()
        self.started = False  # it has said something
        self.key: str | None = None
        self.silent = 0.0  # seconds since it was heard, as far as somebody listened

    def give(self, key: str, job: Any) -> None:
        self.key, self.silent = key, 0.0
        self.connection.send(job)

    def free(self, slot: int) -> None:
        """Let the worker fill a slot again."""
        with suppress(OSError):  # it has died; whoever listens to it will see
            self.connection.send(Freed(slot))

    def kill(self) -> int | None:
        self.process.kill()
        self.process.join()
        self.connection.close()
        return self.process.exitcode

    def retire(self) -> None:
        with suppress(OSError):
            self.connection.send(None)
        self.process.join(timeout=1)
        self.kill()


class WorkerPool:
    """Runs ``work(job, emitter)`` for many jobs in ``workers`` processes and yields what they send, interleaved.

    A crash is tried again in a new process until ``tries`` are used up; silence of ``timeout_seconds`` is a hang, which is killed and
    not tried again. While this process is busy or suspended nobody listens, so between two looks at the workers no more than
    a quarter of the time-out counts; a worker's start does not count at all. ``niceness`` lowers the workers' claim on processors that
    this process computes on, too.
    """

    def __init__(self, work: Work, workers: int, timeout_seconds: float, tries: int = 2, niceness: int = 0) -> None:
        self._work, self._count, self._niceness = work, workers, niceness
        self._timeout, self._tries = timeout_seconds, tries
        self._workers: list[_Worker] = []
        self._longest = max(POLL_SECONDS, timeout_seconds / 4)
        self.heard: float | None = None  # when a worker first said anything, by time.monotonic

    def run(
        self,
        jobs: Iterable[tuple[str, Any]],
        stopped: Callable[[], bool] = lambda: False,
        turn: Callable[[str], Turn] = lambda key: "now",
        alone: bool = False,
    ) -> Generator[Event, None, None]:
        """Yield the events of all ``jobs`` (key, job); ends early, its workers killed, once ``stopped()`` is true.

        When a job's turn comes ``turn(key)`` is asked about it: ``never`` leaves it out without an event, ``later`` asks again when all
        others are under way, and every ``LATER_SECONDS`` from then on. ``alone``: by one worker.
        """
        self._most = 1 if alone else self._count
        self._turn = turn
        self._later: deque[tuple[str, Any]] = deque()
        self._asked_again = time.monotonic()
        self._queue = deque(jobs)
        self._jobs = dict(self._queue)
        self._crashes: dict[str, int] = {}
        self._stopped = stopped
        looked = time.monotonic()
        try:
            while not stopped():
                self._assign()
                busy = [worker for worker in self._workers if worker.key is not None]
                if not busy:
                    if not self._later:
                        return
                    yield Idle()
                    time.sleep(POLL_SECONDS)
                    looked = time.monotonic()
                    continue
                ready = wait([worker.connection for worker in busy], timeout=POLL_SECONDS)
                now = time.monotonic()
                passed, looked = min(now - looked, self._longest), now
                for worker in busy:
                    if worker.connection in ready:
                        yield from self._receive(worker)
                        continue
                    worker.silent += passed
                    if not worker.started and worker.silent > START_SECONDS:
                        raise PipelineError(f"a decoding process has not started within {START_SECONDS:g} s; is the disk with Python slow?")
                    if worker.started and worker.silent > self._timeout:
                        yield self._hung(worker)
        finally:
            self._close()

    def _assign(self) -> None:
        idle = [worker for worker in self._workers if worker.key is None]
        if not self._queue and self._later and time.monotonic() - self._asked_again >= LATER_SECONDS:
            self._asked_again = time.monotonic()
            self._queue, self._later = self._later, deque()
        while self._queue and (idle or len(self._workers) < self._most):
            turn = self._turn(self._queue[0][0]) if self._queue[0][0] not in self._crashes else "now"
            if turn != "now":
                job = self._queue.popleft()
                self._later.extend([job] * (turn == "later"))
                continue
            if not idle:
                idle.append(_Worker(self._work, self._niceness))
                self._workers.append(idle[-1])
            key, job = self._queue.popleft()
            worker = idle.pop()
            try:
                worker.give(key, job)
            except OSError:  # it died while idle, which says nothing about this job
                self._drop(worker)
                self._queue.appendleft((key, job))

    def _receive(self, worker: _Worker) -> Iterator[Event]:
        key = worker.key
        assert key is not None
        slot = None
        try:
            kind, content = worker.connection.recv()
            if kind == "block":
                shape, slot, stream = content
                frames = np.empty(shape, np.uint8) if slot is None or worker.slots is None else worker.slots.view(slot, shape)
                if slot is None:
                    worker.connection.recv_bytes_into(frames.data.cast("B"))
        except (EOFError, OSError):
            yield from self._crashed(worker, key)
            return
        worker.silent, worker.started = 0.0, True
        self.heard = self.heard or time.monotonic()
        if kind == "header":
            yield Opened(key, *content)
        elif kind == "block":
            yield Block(key, frames, stream)
            if slot is not None:
                worker.free(slot)
        elif kind in ("done", "failed"):
            worker.key = None
            yield Finished(key, content) if kind == "done" else Failed(key, *content)

    def _crashed(self, worker: _Worker, key: str) -> Iterator[Event]:
        code = self._drop(worker)
        if code == -signal.SIGTERM:
            time.sleep(POLL_SECONDS)  # a signal to the whole group may reach the worker first
        if self._stopped():
            return  # it was asked to end as we were, which says nothing about its video
        self._crashes[key] = self._crashes.get(key, 0) + 1
        if self._crashes[key] < self._tries:
            self._queue.append((key, self._jobs[key]))
            return
        yield Failed(key, "crash", f"the decoding process died {self._crashes[key]} times on this video, last with {_ending(code)}")

    def _hung(self, worker: _Worker) -> Event:
        key = worker.key
        assert key is not None
        self._drop(worker)
        return Failed(key, "hang", f"the decoder gave nothing for {self._timeout:g} s and was stopped")

    def _drop(self, worker: _Worker) -> int | None:
        self._workers.remove(worker)
        return worker.kill()

    def _close(self) -> None:
        for worker in self._workers:
            worker.retire() if worker.key is None else worker.kill()
        self._workers.clear()


def worker_count(asked: int, jobs: int, most: int = MOST_WORKERS) -> int:
    """Processes to start: as many as asked for, else one a processor but no more than ``most`` (0: no limit); never more than jobs."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(asked or min(processors, most or processors), jobs))


@contextmanager
def _apart_from_main(work: Work) -> Iterator[None]:
    """What starts in the block does not import the caller's script, as spawned processes do.

    The imports of a script that uses torch would cost each worker seconds and hundreds of megabytes, and one without
    ``if __name__ == "__main__"`` would start itself over and over.
    """
    main = sys.modules["__main__"]
    if work.__module__ != "__main__":
        sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name} (often: out of memory)" if -code == signal.SIGKILL else name
    return f"exit code {code}"
