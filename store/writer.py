"""Collect finished videos in memory and publish them as complete shards."""

import os
import re
import secrets
import time
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from store import failures
from store.errors import FeatureError, StoreError
from store.files import safe_name
from store.layout import Features, Level, checked, encode_id, levels_of
from store.shard_writer import Entry, refused, write_shard

if TYPE_CHECKING:
    from store.claims import Claims
    from store.features import FeatureStore

DEFAULT_MAX_BYTES = 64 * 2**20
DEFAULT_MAX_SECONDS = 30.0
_SERIAL = re.compile(r"-(\d{6,})-[0-9a-f]{8}\.h5")


class FeatureWriter:
    """Adds videos to a store under one part's name; made by ``FeatureStore.writer`` and used in a ``with`` statement.

    Several writers may work on one store at once, even under one part's name. What has been published survives anything; what has
    been added since the last publish is in memory. Leaving the ``with`` publishes, also when it is left by an error.
    """

    def __init__(
        self, store: "FeatureStore", part: str, max_bytes: int, max_seconds: float, once: bool = False, claims: "Claims | None" = None
    ) -> None:
        """With ``once``, what another writer has published meanwhile, with equal features, is not published again.

        ``claims`` are told what is on the disk.
        """
        self.store, self.part = store, safe_name(part, "part")
        self.max_bytes, self.max_seconds, self._once, self._claims = max_bytes, max_seconds, once, claims
        self._pending: list[Entry] = []
        self._added: set[str] = set()
        self._oldest = 0.0  # when the first pending video was added, time.monotonic()
        self._bytes = 0  # of the pending videos
        self._levels: dict[str, Level] = {level.name: level for level in store.layout}
        self._failed_before = set(store.failures())
        self._failures_file = f"{self.part}-{secrets.token_hex(4)}{failures.SUFFIX}"  # a network disk appends for one machine only
        self._serial = next_serial(store.path / "shards", part)

    def __enter__(self) -> "FeatureWriter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.publish()
            return
        try:
            self.publish()
        except StoreError as second:  # the first error is the one to tell
            error.add_note(f"also, {len(self._pending)} finished videos could not be published: {second}")

    @property
    def pending(self) -> int:
        """Videos added and not published yet."""
        return len(self._pending)

    def add(self, video_id: str, features: Features) -> None:
        """Take one video's features (copied). Publishes when 64 MB or 30 s of work have come together.

        Raises ``FeatureError`` naming video, level and row for values that must not be stored, and for a video added before.
        """
        encode_id(video_id)
        if video_id in self._added:
            raise FeatureError(f"{video_id}: added twice to part {self.part!r}; an id stands for one video")
        entry = Entry.of(video_id, checked(video_id, features))
        self._check_levels(entry)
        if not self._pending:
            self._oldest = time.monotonic()
        self._pending.append(entry)
        self._added.add(video_id)
        self._bytes += entry.bytes
        self.publish_due()

    def fail(self, video_id: str, stage: str, reason: str, path: Path | None = None) -> None:
        """Record on the disk, at once, why a video has no features. ``path`` lets a later run see that the file has changed."""
        folder = self._folder("failures")
        try:
            failures.append(folder / self._failures_file, failures.new_failure(video_id, stage, reason, path))
        except OSError as error:
            raise refused(folder, error, f"the failure of {video_id!r} is not recorded") from error
        self._failed_before.add(video_id)
        self._settle([video_id])

    def finish(self, video_id: str) -> None:
        """Tell the claims that a video which was added is no danger to this process any more."""
        if self._claims is not None:
            self._claims.finish(video_id)

    def publish_due(self) -> None:
        """Publish if 64 MB or 30 s of work have come together; for those who go on working without adding."""
        if self._pending and (self._bytes >= self.max_bytes or time.monotonic() - self._oldest >= self.max_seconds):
            self.publish()

    def publish(self) -> None:
        """Write everything added so far as one complete shard; does nothing when there is nothing.

        Raises ``StoreError`` when the folder refuses; the videos then stay in memory and ``publish`` may be called again.
        """
        entries, self._pending = self._pending, []
        if not entries:
            return
        ids = [entry.id for entry in entries]
        try:
            entries = self._not_there(entries)
        except BaseException:
            self._pending = entries + self._pending
            raise
        if not entries:
            self._bytes = 0
            self._settle(ids)
            return
        try:
            folder = self._folder("shards")
            final = folder / f"{self.part}-{self._serial:06d}-{secrets.token_hex(4)}.h5"
            write_shard(final, self.store.digest, entries)
        except OSError as error:
            self._pending = entries + self._pending
            raise refused(self.store.path / "shards", error, f"{len(entries)} finished videos wait in memory") from error
        except BaseException:  # put back what is not known to be on the disk; a shard written twice does no harm
            self._pending = entries + self._pending
            raise
        self._serial += 1
        self._bytes = sum(entry.bytes for entry in self._pending)
        self._note_done(entries)
        self._settle(ids)
        self.store.refresh()

    def _settle(self, ids: list[str]) -> None:
        if self._claims is not None:
            self._claims.settle(ids)

    def _not_there(self, entries: list[Entry]) -> list[Entry]:
        if not self._once:
            return entries
        try:
            self.store.refresh()
            return [entry for entry in entries if not self._is_there(entry)]
        except (StoreError, OSError):  # a disk that does not answer now; to publish a video twice does no harm, to lose it would
            return entries

    def _is_there(self, entry: Entry) -> bool:
        """Whether another writer has published the same meanwhile; other features of the same video are published, for `verify` to tell."""
        return entry.id in self.store and self.store.digests(entry.id) == entry.digests

    def _note_done(self, entries: list[Entry]) -> None:
        healed = [entry.id for entry in entries if entry.id in self._failed_before]
        for video_id in healed:
            folder = self._folder("failures")
            try:
                failures.append_done(folder / self._failures_file, video_id)
            except OSError as error:
                raise refused(folder, error, f"{video_id!r} is published, but its old failure still stands") from error

    def _folder(self, name: str) -> Path:
        """A folder of the store; never makes the store itself anew (its disk may have been unmounted)."""
        if not self.store.spec_file.is_file():
            raise StoreError(
                f"{self.store.path} has vanished (unmounted? deleted?); bring it back and run the command again, or publish again"
            )
        folder = self.store.path / name
        try:
            folder.mkdir(exist_ok=True)
        except OSError as error:
            raise refused(folder, error, "nothing was written") from error
        return folder

    def _check_levels(self, entry: Entry) -> None:
        found = levels_of(entry.features)
        self._levels = self._levels or found
        if found != self._levels:
            raise FeatureError(f"{entry.id}: levels are {describe(found)}; this store holds {describe(self._levels)}")


def describe(levels: Mapping[str, Level]) -> str:
    """Levels in words, ordered by name."""
    return "; ".join(str(levels[name]) for name in sorted(levels))


def next_serial(folder: Path, part: str) -> int:
    """One more than the highest serial that the part has in the folder."""
    names = os.listdir(folder) if folder.is_dir() else []  # noqa: PTH208 - names are all that is needed
    found = [_SERIAL.fullmatch(name, len(part)) for name in names if name.startswith(part + "-")]
    return 1 + max((int(match[1]) for match in found if match), default=-1)
