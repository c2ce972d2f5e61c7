"""Publishing beside the computation: a thread hands finished videos to the store's writer, so that a slow disk holds nobody up."""

import queue
import threading
import time
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol, Self

from store.errors import FeatureError
from store.features import Features, FeatureWriter

WAITING_VIDEOS = 16  # finished, not yet taken by the writer
TICK_SECONDS = 1.0  # how often an idle writer looks whether it is time to publish


class Sink(Protocol):
    """Where the videos of an extraction end."""

    def add(self, key: str, features: Features) -> None:
        """Take one video's features."""
        ...

    def fail(self, key: str, stage: str, reason: str, path: Path) -> None:
        """Note why a video has none."""
        ...

    def refused(self, wait: bool = False) -> list[tuple[str, str]]:
        """Videos whose features turned out not to fit, each told once, with the reason; of all that were added if it should ``wait``."""
        ...

    def flush(self) -> None:
        """Return when all that was added is where it belongs."""
        ...


Item = tuple[()] | tuple[Literal["publish"]] | tuple[str, Features] | tuple[str, str, str, Path]  # nothing, all, a video, a failure


class Publisher:
    """A ``Sink`` before a ``FeatureWriter``, which belongs to its thread from entering to leaving.

    An error of the store stops it and is raised to whoever adds next, or leaves. Leaving waits until everything is with the writer.
    """

    def __init__(self, writer: FeatureWriter) -> None:
        self._writer = writer
        self._queue: queue.Queue[Item | None] = queue.Queue(WAITING_VIDEOS)
        self._refused: queue.SimpleQueue[tuple[str, str]] = queue.SimpleQueue()
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name="publisher", daemon=True)
        self.seconds = 0.0  # spent beside the computation

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._queue.put(None)
        self._thread.join()
        if error is None:
            self._raise()

    def add(self, key: str, features: Features) -> None:
        """Take one video's features; waits while the writer is far behind."""
        self._raise()
        self._queue.put((key, features))

    def fail(self, key: str, stage: str, reason: str, path: Path) -> None:
        """Have the reason recorded."""
        self._raise()
        self._queue.put((key, stage, reason, path))

    def refused(self, wait: bool = False) -> list[tuple[str, str]]:
        """Videos that the writer refused since the last call, see ``Sink``."""
        if wait:
            self._queue.join()
        self._raise()
        found = []
        while not self._refused.empty():
            found.append(self._refused.get())
        return found

    def flush(self) -> None:
        """Publish now, without waiting for more to come together."""
        self._raise()
        self._queue.put(("publish",))
        self._queue.join()
        self._raise()

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _work(self) -> None:
        while True:
            try:
                item = self._queue.get(timeout=TICK_SECONDS)
            except queue.Empty:
                self._attempt(())
                continue
            if item is None:
                return
            self._attempt(item)
            self._queue.task_done()

    def _attempt(self, item: Item) -> None:
        if self._error is not None:
            return  # the job ends; what is left will be done again
        started = time.perf_counter()
        try:
            if len(item) == 2:
                self._add(*item)
            elif len(item) == 4:
                self._writer.fail(*item)
            if len(item) == 1:
                self._writer.publish()
            self._writer.publish_due()
        except BaseException as error:  # whoever adds next raises it
            self._error = error
        self.seconds += time.perf_counter() - started

    def _add(self, key: str, features: Features) -> None:
        try:
            self._writer.add(key, features)
            self._writer.finish(key)
        except FeatureError as error:
            self._refused.put((key, str(error)))
