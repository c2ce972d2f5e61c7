"""Files of a list of videos, written in worker processes: what has become of each video, and a record of failures beside the files."""

from collections.abc import Callable
from pathlib import Path
from typing import Generic, TypeVar

from extract.pool import Event, Failed, Finished
from store import failures
from store.errors import StoreError
from store.progress import Progress

FAILURES = "failures.jsonl"
Result = TypeVar("Result")  # what the work function of a video returns


class FileWork(Generic[Result]):
    """Takes the events of a ``WorkerPool`` whose jobs write files below ``out``; a failure of stage ``write`` ends everything."""

    def __init__(self, title: str, out: Path, paths: dict[str, Path], noun: str, count: Callable[[Result], int]) -> None:
        """``paths`` are the videos' by id; progress tells how many ``noun`` there are, of which a video has ``count``."""
        self.progress = Progress(title, len(paths))
        self.done: dict[str, Result] = {}
        self.failed: dict[str, tuple[str, str]] = {}  # id -> (stage, reason)
        self._file, self._paths, self._noun, self._count = out / FAILURES, paths, noun, count
        self._counted = 0
        self._failed_before = set(failures.read_all(out)[0])

    def handle(self, event: Event) -> None:
        """Act on one event."""
        if isinstance(event, Failed):
            if event.stage == "write":  # a full or vanished disk, which the next video would find, too
                raise StoreError(f"{event.reason}; what is complete stays, run the command again when the folder can be written to")
            self.failed[event.key] = (event.stage, event.reason)
            failures.append(self._file, failures.new_failure(event.key, event.stage, event.reason, self._paths[event.key]))
        elif isinstance(event, Finished):
            self.done[event.key] = event.result
            self._counted += self._count(event.result)
            if event.key in self._failed_before:
                failures.append_done(self._file, event.key)
        else:
            return
        self.progress.advance(note=f"{self._counted} {self._noun}, {len(self.failed)} failed")
