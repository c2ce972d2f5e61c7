"""Who is at which video: claims that processes which share a list see of one another, and that tell of a process that was killed.

A claim is a hard link, in the store's folder ``claims``, to a file that its process keeps locked and touches every few seconds. Making a
link is one atomic step, on network file systems too; one lock and one touch serve all claims of a process; and both end with it, whatever
ends it. Nothing depends on claims but that work is done once: where a file system has no hard links, there are none.
"""

import errno
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Literal, Self

from store.claim_files import Holder, bury, deaths_of, is_same_file, look, make_owner, name_of, remove_deaths, replace_link, sweep
from store.errors import PipelineError, StoreError
from store.failures import Failure

if TYPE_CHECKING:
    from store.features import FeatureStore

FOLDER = "claims"
OWNER = "owner-"
HEARTBEAT_SECONDS = 10.0
LOOK_SECONDS = 30.0  # what others have published is known at least so lately
GLANCE_SECONDS = 1.0  # the same, where somebody else is known to be at work
LINGER_SECONDS = 120.0  # a claim outlives the publishing by so long: longer than others, and a network disk's caches, may not see the shard
ROUNDS = 20  # claims that vanish again and again while they are looked at
LASTING = (  # errors of a first link that will come again: there are no claims here. ENOENT: others took this process for dead
    errno.EPERM,
    errno.EOPNOTSUPP,
    errno.ENOSYS,
    errno.EMLINK,
    errno.EACCES,
    errno.EROFS,
    errno.ENOENT,
)


@dataclass(frozen=True)
class Claim:
    """What is to be done about a video: it is ``mine`` now, or ``others`` are at it, or it is ``done`` or ``failed`` already.

    ``deaths``: processes that were killed while the video was theirs, oldest first. ``holder``: who else is at it.
    """

    state: Literal["mine", "others", "done", "failed"]
    deaths: tuple[Holder, ...] = ()
    holder: Holder | None = None
    failure: Failure | None = None


MINE = Claim("mine")


class Claims:
    """The claims of one process on the videos of one store. Leaving the ``with`` gives back what was not done.

    An error that is no ``PipelineError`` or ``OSError`` keeps them, as a kill would: it may be a video's doing.
    """

    def __init__(self, store: "FeatureStore") -> None:
        self._store, self._folder = store, store.path / FOLDER
        self._failed_before = store.failures()
        self._failed_since: dict[str, Failure] = {}
        self._held: dict[str, bool] = {}  # id -> whether somebody died at it before
        self._lingering: list[tuple[float, Path]] = []  # when, by time.monotonic, and which claim
        self._looked = float("-inf")
        self._descriptor = self._finished_descriptor = -1
        self._owner = self._folder / f"{OWNER}{secrets.token_hex(8)}"
        self._finished_owner = self._owner.with_name(f"{self._owner.name}-finished")  # of claims that no death counts of any more
        self._lock = threading.Lock()  # of what the heart's thread and the writer's touch, too
        self._ended = threading.Event()
        self._heart = threading.Thread(target=self._beat, name="claims", daemon=True)
        self.trouble = ""  # why there are no claims, in words

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        if self._descriptor < 0:
            return
        if self._heart.is_alive():
            self._heart.join()
        with suppress(OSError):
            self._leave(graceful=error is None or isinstance(error, PipelineError | OSError | KeyboardInterrupt))
        for descriptor in self._descriptors:
            os.close(descriptor)

    def take(self, video_id: str) -> Claim:
        """Claim a video whose turn it is. ``mine`` is to be ended by ``settle``, ``give_back`` or leaving."""
        if self.trouble:
            return MINE
        try:
            self._begin()
            return self._take(video_id, self._folder / name_of(video_id))
        except OSError:  # see ``trouble``; else a disk that refuses now, of which the writer will tell more
            return MINE

    def give_back(self, video_id: str) -> None:
        """Let others take a video that was not begun."""
        with self._lock:
            held = self._held.pop(video_id, None)
        if held is not None:
            self._unlink(self._folder / name_of(video_id))

    def finish(self, video_id: str) -> None:
        """This video's features wait to be published: if the process is killed from now on, that was not the video's doing."""
        path = self._folder / name_of(video_id)
        with self._lock, suppress(OSError):  # then it counts, as before
            if video_id in self._held and is_same_file(path, self._descriptor):
                if self._finished_descriptor < 0:
                    self._finished_descriptor = make_owner(self._finished_owner, Holder.here()._replace(finished=True))
                replace_link(self._finished_owner, path)

    def settle(self, video_ids: Iterable[str]) -> None:
        """These are published, or their failures recorded: nobody needs to do them; what was known of deaths is forgotten."""
        for video_id in video_ids:
            path = self._folder / name_of(video_id)
            with self._lock:
                died = self._held.pop(video_id, None)
                if died is not None:
                    self._lingering.append((time.monotonic(), path))
            if died:
                remove_deaths(path)

    def _begin(self) -> None:
        if self._descriptor >= 0:
            return
        with self._noting_trouble():
            self._descriptor = make_owner(self._owner, Holder.here())
        self._heart.start()

    @property
    def _descriptors(self) -> list[int]:
        return [descriptor for descriptor in (self._descriptor, self._finished_descriptor) if descriptor >= 0]

    @contextmanager
    def _noting_trouble(self) -> Iterator[None]:
        try:
            yield
        except FileExistsError:
            raise
        except OSError as error:
            if error.errno in LASTING:
                self.trouble = error.strerror or str(error)
            raise

    def _take(self, video_id: str, path: Path) -> Claim:
        for _ in range(ROUNDS):
            if self._link(path):
                return self._mine(video_id, path)
            found = look(path, self._now())
            if found is None:
                continue
            with found:
                self._look_around(GLANCE_SECONDS if found.alive else 0.0)
                if ended := self._ended_by_others(video_id):  # their claims stay for a while
                    return ended
                if found.alive:
                    return Claim("others", holder=found.holder)
                bury(found)
        return Claim("others")

    def _ended_by_others(self, video_id: str) -> Claim | None:
        if video_id in self._store:
            return Claim("done")
        failure = self._failed_since.get(video_id)
        return Claim("failed", failure=failure) if failure else None

    def _mine(self, video_id: str, path: Path) -> Claim:
        with self._lock:
            self._held[video_id] = False  # whatever the disk says to the next looks, the claim is there
        self._look_around(LOOK_SECONDS)
        if ended := self._ended_by_others(video_id):
            self.give_back(video_id)
            return ended
        deaths = deaths_of(path)
        with self._lock:
            self._held[video_id] = bool(deaths)
        return Claim("mine", deaths)

    def _link(self, path: Path) -> bool:
        try:
            with self._noting_trouble():
                os.link(self._owner, path)
        except FileExistsError:
            return self._is_own(path)  # over a network a link may be made, and the answer lost
        return True

    def _look_around(self, at_most_every: float) -> None:
        """What others have published, or recorded as failed, since this process began."""
        if time.monotonic() - self._looked < at_most_every:
            return
        self._looked = time.monotonic()
        with suppress(StoreError, OSError):  # a disk that hesitates; what was known before stays, and the next look comes soon
            self._store.refresh()
            now = self._store.failures()
            self._failed_since = {key: failure for key, failure in now.items() if failure != self._failed_before.get(key)}

    def _now(self) -> float:
        """The file system's time, which is the one that claims have."""
        os.utime(self._descriptor)
        return os.fstat(self._descriptor).st_mtime

    def _beat(self) -> None:
        while not self._ended.wait(HEARTBEAT_SECONDS):
            with suppress(OSError):  # a disk that does not answer: others may take us for dead, and do a video twice
                for descriptor in self._descriptors:
                    os.utime(descriptor)
                self._release(time.monotonic() - LINGER_SECONDS)

    def _release(self, before: float) -> None:
        with self._lock:
            old = [path for when, path in self._lingering if when <= before]
            self._lingering = [pair for pair in self._lingering if pair[0] > before]
        for path in old:
            self._unlink(path)

    def _unlink(self, path: Path) -> None:
        with suppress(OSError):  # gone: somebody took us for dead
            if self._is_own(path):
                path.unlink()

    def _is_own(self, path: Path) -> bool:
        return any(is_same_file(path, descriptor) for descriptor in self._descriptors)

    def _leave(self, graceful: bool) -> None:
        for video_id in list(self._held) if graceful else ():
            self.give_back(video_id)
        self._owner.unlink()
        self._finished_owner.unlink(missing_ok=True)
        if any(self._is_alive(path) for path in self._folder.glob(f"{OWNER}*")):
            return  # who may not have seen yet what was published last; the last one to leave sweeps
        self._release(float("inf"))
        sweep(self._folder, self._store, self._now())
        with suppress(OSError):  # somebody's claim is in it
            self._folder.rmdir()

    def _is_alive(self, owner: Path) -> bool:
        found = look(owner, self._now())
        if found is None:
            return False
        with found:
            if not found.alive:
                found.remove()
            return found.alive


def is_untouched(store: "FeatureStore") -> bool:
    """Whether a store has no video yet, and nobody is at one."""
    return not len(store) and not any((store.path / FOLDER).glob(f"{OWNER}*"))
