"""A decode worker's side of the pool: what it sends, and its life."""

import os
import signal
from collections import deque
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from typing import Any, NamedTuple

import numpy as np

from extract.lasting import MEMORY
from extract.slots import SLOT_BYTES, SLOTS, Slots
from store.errors import PipelineError


class JobGone(BaseException):
    """The job process has gone away; no work function may take that for its video's failure."""


class StageError(PipelineError):
    """A failure inside a worker together with the stage it happened in."""

    def __init__(self, stage: str, reason: str) -> None:
        super().__init__(reason)
        self.stage = stage


class Emitter:
    """What a work function sends its results with; it runs in the worker."""

    def __init__(self, connection: Connection, slots: Slots | None) -> None:
        self._connection, self._slots = connection, slots
        self._free = deque(range(SLOTS))

    def header(self, header: Any, stream: int = 0) -> None:
        """Send what is known before a stream's first frame; sent again, it takes back everything of that stream sent before."""
        self._send("header", (header, stream))

    def block(self, frames: Sequence[np.ndarray], stream: int = 0) -> None:
        """Send frames of a stream, each uint8 [H, W, C]; waits while the job is busy."""
        shape = (len(frames), *frames[0].shape)
        if self._slots is not None and len(frames) * frames[0].nbytes <= SLOT_BYTES:
            slot = self._take()
            try:
                np.stack(frames, out=self._slots.view(slot, shape))
            except BaseException:
                self._free.append(slot)  # nobody was told of it, so nobody would give it back
                raise
            self._send("block", (shape, slot, stream))
        else:
            self._send("block", (shape, None, stream), np.stack(frames).data.cast("B"))

    def alive(self) -> None:
        """Tell that a long step is making progress, so that it is not taken for a hang."""
        self._send("alive", None)

    def next_job(self) -> Any:
        """Wait for the next job; None is the end."""
        while isinstance(message := self._connection.recv(), Freed):
            self._free.append(message.slot)
        return message

    def _take(self) -> int:
        while not self._free:
            try:
                self._free.append(self._connection.recv().slot)
            except (OSError, EOFError):
                raise JobGone from None
        return self._free.popleft()

    def _send(self, kind: str, content: Any, data: memoryview | None = None) -> None:
        try:
            self._connection.send((kind, content))
            if data is not None:
                self._connection.send_bytes(data)
        except OSError:
            raise JobGone from None


class Freed(NamedTuple):
    """Tells a worker that the job is done with a slot."""

    slot: int


Work = Callable[[Any, Emitter], Any]


def serve(connection: Connection, work: Work, slots: Slots | None, niceness: int) -> None:
    """A worker's life: take a job, do it, report how it ended; ends when the job process goes away."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group; the job process decides what happens
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if hasattr(signal, "SIGUSR1"):
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)  # batch systems send it to the whole group, too
    os.nice(niceness)
    emitter = Emitter(connection, slots)
    try:
        emitter.alive()  # before any job: what came until now, the imports, was no video's doing
        while (job := emitter.next_job()) is not None:
            connection.send(_attempt(work, job, emitter))
    except (JobGone, EOFError, OSError):
        os._exit(0)


def _attempt(work: Work, job: Any, emitter: Emitter) -> tuple[str, Any]:
    try:
        return "done", work(job, emitter)
    except StageError as error:
        return "failed", (error.stage, str(error))
    except MemoryError:
        return "failed", (MEMORY, "the worker ran out of memory")
    except Exception as error:  # whatever one video does to a library is that video's failure
        return "failed", ("decode", f"{type(error).__name__}: {error}")
