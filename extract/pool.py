"""Decoding in worker processes: a video that crashes, hangs or confuses its decoder costs that video, never the job.

The pipe between a worker and the job is also the brake: a worker that is ahead blocks on sending, so memory stays bounded by a few
blocks of frames however long the videos are. Nothing is shared by name, so nothing is left behind when a process is killed.
"""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from typing import Any

import numpy as np

from store.errors import PipelineError

POLL_SECONDS = 0.5  # how often a waiting job looks at its stop flag


class _JobGone(BaseException):
    """The job process has gone away; no work function may take that for its video's failure."""


class StageError(PipelineError):
    """A failure inside a worker together with the stage it happened in."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


@dataclass(frozen=True)
class Opened:
    """A worker has begun a job (perhaps again, after a crash); ``header`` is what the work function sent first."""

    key: str
    header: Any


@dataclass(frozen=True)
class Block:
    """The next frames of a job, uint8 [k, H, W, 3]."""

    key: str
    frames: np.ndarray


@dataclass(frozen=True)
class Finished:
    """A job has sent everything."""

    key: str


@dataclass(frozen=True)
class Failed:
    """A job will send nothing more: the stage and the reason."""

    key: str
    stage: str
    reason: str


Event = Opened | Block | Finished | Failed


class Emitter:
    """What a work function sends its results with; it runs in the worker."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    def header(self, header: Any) -> None:
        """Send what is known before the first frame."""
        self._send("header", header)

    def block(self, frames: np.ndarray) -> None:
        """Send frames, uint8 [k, H, W, 3]; blocks while the job is busy."""
        frames = np.ascontiguousarray(frames)
        self._send("block", frames.shape, frames.data.cast("B"))

    def alive(self) -> None:
        """Tell that a long step is making progress, so that it is not taken for a hang."""
        self._send("alive", None)

    def _send(self, kind: str, content: Any, data: memoryview | None = None) -> None:
        try:
            self._connection.send((kind, content))
            if data is not None:
                self._connection.send_bytes(data)
        except OSError:
            raise _JobGone from None


Work = Callable[[Any, Emitter], None]


def _serve(connection: Connection, work: Work) -> None:
    """A worker's life: take a job, do it, report how it ended; ends when the job process goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the job process decides what happens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # batch systems send it to the whole group, too
    try:
        while (job := connection.recv()) is not None:
            connection.send(_attempt(work, job, Emitter(connection)))
    except (_JobGone, EOFError, OSError):
        os._exit(0)


def _attempt(work: Work, job: Any, emitter: Emitter) -> tuple[str, Any]:
    try:
        work(job, emitter)
    except StageError as error:
        return "failed", (error.stage, str(error))
    except MemoryError:
        return "failed", ("decode", "the worker ran out of memory")
    except Exception as error:  # whatever one video does to a library is that video's failure
        return "failed", ("decode", f"{type(error).__name__}: {error}")
    return "done", None


class _Worker:
    """One process, its pipe, and the job it is on."""

    def __init__(self, work: Work) -> None:
        context = multiprocessing.get_context("spawn")  # fork is not safe once the network's threads run
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=_serve, args=(theirs, work), daemon=True)
        self.process.start()
        theirs.close()
        self.key: str | None = None
        self.silent = 0.0  # seconds since it was heard, as far as somebody listened

    def give(self, key: str, job: Any) -> None:
        self.key, self.silent = key, 0.0
        self.connection.send(job)

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
    a quarter of the time-out counts.
    """

    def __init__(self, work: Work, workers: int, timeout_seconds: float, tries: int = 2) -> None:
        self._work, self._count = work, workers
        self._timeout, self._tries = timeout_seconds, tries
        self._workers: list[_Worker] = []
        self._longest = max(POLL_SECONDS, timeout_seconds / 4)

    def run(self, jobs: Iterable[tuple[str, Any]], stopped: Callable[[], bool] = lambda: False) -> Generator[Event, None, None]:
        """Yield the events of all ``jobs`` (key, job); ends early, its workers killed, once ``stopped()`` is true."""
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
                    return
                ready = wait([worker.connection for worker in busy], timeout=POLL_SECONDS)
                now = time.monotonic()
                passed, looked = min(now - looked, self._longest), now
                for worker in busy:
                    if worker.connection in ready:
                        yield from self._receive(worker)
                        continue
                    worker.silent += passed
                    if worker.silent > self._timeout:
                        yield self._hung(worker)
        finally:
            self._close()

    def _assign(self) -> None:
        idle = [worker for worker in self._workers if worker.key is None]
        while self._queue and (idle or len(self._workers) < self._count):
            if not idle:
                idle.append(_Worker(self._work))
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
        try:
            kind, content = worker.connection.recv()
            if kind == "block":
                frames = np.empty(content, np.uint8)
                worker.connection.recv_bytes_into(frames.data.cast("B"))
        except (EOFError, OSError):
            yield from self._crashed(worker, key)
            return
        worker.silent = 0.0
        if kind == "header":
            yield Opened(key, content)
        elif kind == "block":
            yield Block(key, frames)
        elif kind in ("done", "failed"):
            worker.key = None
            yield Finished(key) if kind == "done" else Failed(key, *content)

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


def _ending(code: int | None) -> str:
    if code is not None and code < 0:
        name = signal.Signals(-code).name
        return f"{name} (often: out of memory)" if -code == signal.SIGKILL else name
    return f"exit code {code}"
