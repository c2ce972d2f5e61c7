"""The files of claims: what they are called, who holds one, whether that process lives. See ``store.claims``."""

import errno
import hashlib
import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, NamedTuple, Self

from store.files import PARTIAL_SUFFIX, try_lock

if TYPE_CHECKING:
    from store.features import FeatureStore

STALE_SECONDS = 120.0  # untouched for so long, and not locked: its process is dead, wherever it was
GONE_SECONDS = 900.0  # untouched for so long, though locked: its machine is gone, and the file server does not know
DIED = ".died"
VANISHED = (errno.ENOENT, errno.ESTALE)  # the second is what NFS says of a file that another machine has removed


class Holder(NamedTuple):
    """The process that a claim belongs to. ``boot`` is its machine, as it was started last: locks within one are beyond doubt.

    ``finished``: the video's features are made and wait to be published, so that a death now is not its doing.
    """

    host: str
    process: int
    boot: str
    finished: bool = False

    @classmethod
    def here(cls) -> "Holder":
        """This process."""
        try:
            boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        except OSError:
            boot = ""
        return cls(socket.gethostname(), os.getpid(), boot)

    @classmethod
    def read(cls, descriptor: int) -> "Holder":
        """Of an open claim; of one that cannot be read, nobody."""
        try:
            found = json.loads(os.pread(descriptor, 4096, 0))
            return cls(str(found["host"]), int(found["process"]), str(found["boot"]), found.get("finished") is True)
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
            return cls("an unknown machine", 0, "")

    def __str__(self) -> str:
        return f"process {self.process} of {self.host}"


@dataclass
class Found:
    """A claim that was there, open. While its ``with`` lasts no other process takes it for dead, too."""

    path: Path
    descriptor: int
    holder: Holder
    alive: bool

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        os.close(self.descriptor)

    def remove(self) -> None:
        """A dead one that says nothing any more."""
        if is_same_file(self.path, self.descriptor):
            self.path.unlink(missing_ok=True)


def name_of(video_id: str) -> str:
    """The name of a video's claim: any id, as a short safe name."""
    return hashlib.sha256(video_id.encode()).hexdigest()[:32]


def look(path: Path, now: float) -> Found | None:
    """The claim at ``path`` and whether its process lives; None where there is none. ``now`` is the file system's time."""
    with vanishing():
        descriptor, free = open_locked(path)
        try:
            holder = Holder.read(descriptor)
            age = now - os.fstat(descriptor).st_mtime
        except BaseException:
            os.close(descriptor)
            raise
        return _judged(path, descriptor, free, holder, age)
    return None


def _judged(path: Path, descriptor: int, free: bool | None, holder: Holder, age: float) -> Found:
    if free is not None and holder.boot and holder.boot == Holder.here().boot:
        return Found(path, descriptor, holder, alive=not free)  # however long its disk has hesitated
    return Found(path, descriptor, holder, alive=age <= (GONE_SECONDS if free is False else STALE_SECONDS))


def is_same_file(path: Path, descriptor: int) -> bool:
    """Whether ``path`` is a link to an open file."""
    with vanishing():
        there, here = path.stat(), os.fstat(descriptor)
        return (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
    return False


@contextmanager
def vanishing() -> Iterator[None]:
    """Leave the block where a file that it looks at is gone."""
    try:
        yield
    except OSError as error:
        if error.errno not in VANISHED:
            raise


def make_owner(path: Path, holder: Holder) -> int:
    """Make the file that claims are links to; its descriptor, which is locked."""
    aside = path.with_name(f".{path.name}{PARTIAL_SUFFIX}")  # nobody looks at it before it is locked
    for attempt in range(3):
        try:
            path.parent.mkdir(exist_ok=True)
            aside.write_text(json.dumps(holder._asdict()))
            descriptor, _ = open_locked(aside)
            break
        except FileNotFoundError:  # the folder was empty, and another process that ended took it away
            if attempt == 2:
                raise
    try:
        aside.rename(path)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def replace_link(owner: Path, path: Path) -> None:
    """Make ``path`` a link to ``owner``; at no moment is there none."""
    aside = path.with_name(f".{path.name}-{owner.name}{PARTIAL_SUFFIX}")
    os.link(owner, aside)
    aside.rename(path)


def bury(found: Found) -> None:
    """Turn a dead process's claim into the note that it died at this video; a claim on a finished one goes."""
    if found.holder.finished:
        found.remove()
        return
    number = len(deaths_of(found.path)) + 1
    with vanishing():  # another process was faster, on a file system without locks
        if is_same_file(found.path, found.descriptor):
            found.path.rename(_death(found.path, number))


def deaths_of(path: Path) -> tuple[Holder, ...]:
    """The processes that died while the claim at ``path`` was theirs, oldest first."""
    found = []
    for note in _notes(path):
        with vanishing():  # done meanwhile
            descriptor = os.open(note, os.O_RDONLY)
            found.append(Holder.read(descriptor))
            os.close(descriptor)
    return tuple(found)


def remove_deaths(path: Path) -> None:
    """Forget them: the video is done, or its failure is recorded."""
    for note in list(_notes(path)):
        with suppress(OSError):
            note.unlink()


def sweep(folder: Path, store: "FeatureStore", now: float) -> None:
    """Remove what dead processes left of videos that are in the store, and what they had not finished making."""
    for aside in folder.glob(f".*{PARTIAL_SUFFIX}"):
        with vanishing():
            if now - aside.stat().st_mtime > STALE_SECONDS:
                aside.unlink()
    names = [path.name.partition(".")[0] for path in folder.iterdir()]
    left = set(names) & {name_of(video_id) for video_id in store.ids()} if names else set()
    for path in (folder / name for name in left):
        remove_deaths(path)
        found = look(path, now)
        if found is not None:
            with found:
                if not found.alive:
                    found.remove()


def _notes(path: Path) -> Iterator[Path]:
    number = 1
    while (note := _death(path, number)).exists():
        yield note
        number += 1


def _death(path: Path, number: int) -> Path:
    return path.with_name(f"{path.name}{DIED}{number}")


def open_locked(path: Path) -> tuple[int, bool | None]:
    """The file, open, and whether it is locked by this now: False where somebody else has it, None where there are no locks.

    Open for reading where that will do, so that nobody is in the way of a disk that is made read-only; NFS locks only what may be written.
    """
    descriptor = os.open(path, os.O_RDONLY)
    free = try_lock(descriptor)
    if free is not None:
        return descriptor, free
    try:
        second = os.open(path, os.O_RDWR)
    except OSError:
        return descriptor, None
    os.close(descriptor)
    return second, try_lock(second)
