"""The folder in which a run comes about: ``.<name>.<digest>.partial`` beside its final place, which it takes when it is complete.

    lock                    held by the process that works here
    metrics.jsonl           grows by a line an epoch
    <phase>.safetensors     the state of the training, saved now and then
    <phase>.npz             the projection, fitted once

A job that is stopped or killed leaves it; the same command finds it by the digest of what it is asked for, and goes on.
"""

import glob
import json
import os
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

from store.digest import digest
from store.errors import Interrupted, StoreError
from store.files import PARTIAL_AGE_SECONDS, PARTIAL_SUFFIX, fsync_file, fsync_folder, naming, try_lock, write_bytes
from temporal.checkpoint import Checkpoint, Keeper, read_checkpoint, write_checkpoint
from temporal.events import EVENTS, Events
from temporal.projection import Projection

LOCK = "lock"
METRICS = "metrics.jsonl"
PHASES = ("fit", "refit")
WORK_FILES = (*(f"{phase}{suffix}" for phase in PHASES for suffix in (".safetensors", ".npz")), LOCK)
CHECKPOINT_SECONDS = 30.0
LARGEST_SHARE = 0.05  # of the time may go into saving


class Workplace(Keeper):
    """One run being made; see ``workplace``."""

    def __init__(self, final: Path, path: Path, seconds: float, stopped: Callable[[], bool], events: bool) -> None:
        self.final, self.path, self.seconds, self.stopped = final, path, seconds, stopped
        self.events = Events(path / EVENTS) if events else None
        self._next = time.monotonic() + seconds
        self._recorded = 0  # lines of the metrics that this process knows to be right

    def load(self, phase: str) -> Checkpoint | None:
        """Where the training ``phase`` was left."""
        return read_checkpoint(self.path / f"{phase}.safetensors")

    def due(self) -> bool:
        """Whether so many seconds have passed, or the training shall stop."""
        return time.monotonic() >= self._next or self.stopped()

    def save(self, phase: str, checkpoint: Checkpoint) -> None:
        """Save the state; ``Interrupted`` afterwards where the training shall stop. Slow disks are asked less often."""
        started = time.monotonic()
        write_checkpoint(self.path / f"{phase}.safetensors", checkpoint)
        ended = time.monotonic()
        self._next = ended + max(self.seconds, (ended - started) / LARGEST_SHARE)
        if self.stopped():
            raise Interrupted(f"{self.final}: interrupted; the same command goes on where it stopped")

    def record(self, history: list[dict[str, Any]]) -> None:
        """Append the last epoch to the metrics, so that others can watch; what a killed job wrote beyond its last save goes."""
        new = history[self._recorded :]
        path = self.path / METRICS
        with naming(path), path.open("a" if self._recorded else "w", encoding="utf-8") as file:
            file.write("".join(json.dumps(record) + "\n" for record in new))
        if self.events:
            self.events.add(history, len(history) - 1 if self._recorded else 0)
        self._recorded = len(history)

    def projection(self, phase: str) -> Projection | None:
        """The projection that was fitted for ``phase`` before; one that cannot be read is fitted again."""
        file = self.path / f"{phase}.npz"
        try:
            return Projection.from_bytes(file.read_bytes()) if file.is_file() else None
        except (OSError, EOFError, ValueError, KeyError, TypeError, BadZipFile):
            return None

    def save_projection(self, phase: str, projection: Projection) -> None:
        """Keep a projection."""
        write_bytes(self.path / f"{phase}.npz", projection.to_bytes())

    def publish(self) -> None:
        """Flush everything and take the final place, whatever was there; then remove what only the work needed, here and of others."""
        if self.events:
            self.events.close()
        for file in sorted(self.path.rglob("*")):
            if file.is_file():
                fsync_file(file)
        fsync_folder(self.path)
        old = self.path.with_name(self.path.name.removesuffix(PARTIAL_SUFFIX) + f".old{PARTIAL_SUFFIX}")
        shutil.rmtree(old, ignore_errors=True)
        if self.final.exists():
            self.final.rename(old)
        self.path.rename(self.final)
        fsync_folder(self.final.parent)
        shutil.rmtree(old, ignore_errors=True)
        tidy(self.final)


@contextmanager
def workplace(
    final: Path,
    identity: Mapping[str, Any],
    seconds: float = CHECKPOINT_SECONDS,
    stopped: Callable[[], bool] = lambda: False,
    events: bool = False,
) -> Iterator[Workplace]:
    """The folder for the run ``identity`` at ``final``, new or as a killed job left it; it stays there unless it is published.

    It saves every ``seconds`` and, before it raises ``Interrupted``, once ``stopped()``; ``events``: for TensorBoard. ``StoreError`` where
    another process works in it.
    """
    path = final.with_name(f".{final.name}.{digest(identity)[:8]}{PARTIAL_SUFFIX}")
    path.mkdir(parents=True, exist_ok=True)
    lock = os.open(path / LOCK, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        if try_lock(lock) is False:
            raise StoreError(f"{final} is being trained by another process, in {path}; wait for it, or choose another --name")
        for file in path.glob(f".*{PARTIAL_SUFFIX}"):  # half-written when their writer was killed
            file.unlink()
        yield Workplace(final, path, seconds, stopped, events)
    finally:
        os.close(lock)


def tidy(final: Path) -> None:
    """Remove what a complete run at ``final`` does not need: files of its making, and the folders that killed jobs of its name left."""
    for name in WORK_FILES:
        (final / name).unlink(missing_ok=True)
    left = re.compile(re.escape(f".{final.name}.") + r"[0-9a-f]{8}(\.old)?" + re.escape(PARTIAL_SUFFIX))
    for folder in final.parent.glob(f".{glob.escape(final.name)}.*{PARTIAL_SUFFIX}"):
        if left.fullmatch(folder.name) and folder.is_dir() and abandoned(folder):
            shutil.rmtree(folder, ignore_errors=True)


def abandoned(folder: Path) -> bool:
    """Whether nobody works in a folder: its lock is free, or it has none that works and was not touched for long."""
    with suppress(OSError):
        lock = os.open(folder / LOCK, os.O_RDWR)
        try:
            if (free := try_lock(lock)) is not None:
                return free
        finally:
            os.close(lock)
    with suppress(OSError):
        newest = max(path.stat().st_mtime for path in (folder, *folder.iterdir()))
        return time.time() - newest >= PARTIAL_AGE_SECONDS
    return False
