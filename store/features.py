"""FeatureStore: a folder of immutable shards that belong to one spec. docs/format.md says what is on the disk."""

import difflib
import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from store import failures as failure_files
from store.digest import digest as digest_of
from store.digest import to_plain
from store.errors import MissingFeaturesError, SpecMismatchError, StoreError
from store.failures import Failure
from store.files import PARTIAL_SUFFIX, safe_name
from store.index import VideoIndex
from store.layout import Features, Level
from store.shard import Shard
from store.shard_folder import ShardFolder
from store.spec_file import FILE_NAME, difference, find_store, read_spec_file, write_spec_file
from store.writer import DEFAULT_MAX_BYTES, DEFAULT_MAX_SECONDS, FeatureWriter

if TYPE_CHECKING:
    import numpy as np

    from store.bulk import Order, RowReader, Rows
    from store.claims import Claims
    from store.compact import Compaction
    from store.repair import Repair
    from store.verify import Problem

__all__ = ["Failure", "FeatureStore", "FeatureWriter", "Features"]

T = TypeVar("T")


class FeatureStore:
    """Features of many videos, all made by one spec. Made by ``create`` or ``open``; picklable; any number of readers and writers.

    A video found in two shards is read from the first by name. A shard that cannot be used is listed in ``damaged`` (file name ->
    error), its videos count as missing, and ``verify`` reports it.
    """

    def __init__(self, path: Path, spec: dict[str, Any]) -> None:
        """Use ``create`` or ``open``."""
        self.path, self.spec, self.digest = path, spec, digest_of(spec)
        self._folder = ShardFolder(path / "shards", self.digest)
        self._index = VideoIndex()
        self.refresh()

    @classmethod
    def create(cls, root: Path, name: str, spec: Mapping[str, Any]) -> "FeatureStore":
        """The store for ``spec`` (JSON types or a spec dataclass) under ``root``, made if it is not there.

        The folder is ``root/<name>-<first 12 digits of the digest>``: equal specs share a store, different ones never do.
        """
        plain = to_plain(spec)
        path = cls.place(root, name, plain)
        if not (path / FILE_NAME).exists():
            write_spec_file(path, name, plain)
        return cls.open(path, plain)

    @classmethod
    def place(cls, root: Path, name: str, spec: Mapping[str, Any]) -> Path:
        """The folder that ``create`` would make, or has made."""
        return Path(root) / f"{safe_name(name, 'store name')}-{digest_of(to_plain(spec))[:12]}"

    @classmethod
    def open(cls, path: Path, spec: Mapping[str, Any] | None = None) -> "FeatureStore":
        """Open a store's folder (its digest may be left out); ``StoreError`` for none, ``SpecMismatchError`` for another spec."""
        path = find_store(Path(path))
        found = read_spec_file(path)["spec"]
        if spec is not None and digest_of(spec) != digest_of(found):
            raise SpecMismatchError(f"{path} was made from another spec: {difference(found, to_plain(spec))}")
        return cls(path, found)

    @property
    def spec_file(self) -> Path:
        """The file that makes a folder a store."""
        return self.path / FILE_NAME

    @property
    def name(self) -> str:
        """The folder's name."""
        return self.path.name

    @property
    def layout(self) -> tuple[Level, ...]:
        """Name, type and row shape of every level; empty while nothing is stored."""
        return self.shards[0].levels if self.shards else ()

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, sorted; empty while nothing is stored."""
        return tuple(level.name for level in self.layout)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The usable shards, by name."""
        return self._index.shards

    @property
    def damaged(self) -> dict[str, StoreError]:
        """The shards that cannot be used: file name -> error."""
        return self._folder.damaged

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._index

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, {len(self)} videos)"

    def ids(self) -> list[str]:
        """Ids of all videos, by shard and order of writing."""
        return list(self._index.ids())

    def num_rows(self) -> dict[str, int]:
        """Number of rows of every video, in the order of ``ids``."""
        return self._retried(lambda: self._index.num_rows())

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that have no features, in their order."""
        index = self._index
        return [video_id for video_id in ids if video_id not in index]

    def get(self, video_id: str, levels: Sequence[str] | None = None, check: bool = True) -> Features:
        """One video's features (copies; every level unless ``levels`` names some), compared with their digests unless ``check`` is False.

        Raises ``MissingFeaturesError`` for an unknown video or level, ``DamagedShardError`` naming shard and video for a changed byte.
        """

        def read() -> Features:
            shard, position = self._find(video_id)
            return shard.read(position, levels, check)

        return self._retried(read)

    def digests(self, video_id: str) -> dict[str, bytes]:
        """The stored digest of each level of one video (16 bytes each); equal ones mean equal features, frames and times.

        Raises ``MissingFeaturesError`` for an unknown video. Nothing but the index is read.
        """

        def read() -> dict[str, bytes]:
            shard, position = self._find(video_id)
            return dict(zip((level.name for level in shard.levels), shard.digests(position), strict=True))

        return self._retried(read)

    def read_rows(
        self,
        ids: Sequence[str] | None = None,
        level: str | None = None,
        out: "np.ndarray | None" = None,
        dtype: str | None = None,
        check: bool = True,
        order: "Order" = "ids",
        spans: bool = False,
        threads: int = 0,
    ) -> "Rows":
        """One level of many videos (default: all) in one array, which may be given; arguments and errors as of ``RowReader``."""
        return self.reader(self.ids() if ids is None else ids, level).read(None, out, dtype, check, order, spans, threads)

    def reader(self, ids: Sequence[str], level: str | None = None) -> "RowReader":
        """A reader of one level of these videos, to read some of them at a time, again and again, or in other processes."""
        from store.bulk import RowReader

        return self._retried(lambda: RowReader(self, ids, level))

    def places(self, ids: Sequence[str]) -> "tuple[list[Shard], np.ndarray, np.ndarray]":
        """Where videos are: the shards that hold them, and for each id int64 [V] its shard in that list and its position in the shard.

        Raises ``MissingFeaturesError`` that counts the videos the store lacks and names some.
        """
        index = self._index  # another thread may look at the folder meanwhile
        absent = [video_id for video_id in ids if video_id not in index]
        if len(absent) == 1:
            self._find(absent[0])
        if absent:
            raise MissingFeaturesError(
                f"{self.path} has no features of {len(absent)} of the {len(ids)} videos asked for: {', '.join(map(repr, absent[:5]))}"
                + (", ..." if len(absent) > 5 else "")
            )
        return index.find_all(ids)

    def failures(self) -> dict[str, Failure]:
        """The last failure of every video that failed and has no features, by id."""
        last, _ = failure_files.read_all(self.path / "failures")
        return {video_id: failure for video_id, failure in last.items() if video_id not in self._index}

    def writer(
        self,
        part: str = "main",
        max_bytes: int = DEFAULT_MAX_BYTES,
        max_seconds: float = DEFAULT_MAX_SECONDS,
        once: bool = False,
        claims: "Claims | None" = None,
    ) -> FeatureWriter:
        """A writer that publishes a shard whenever ``max_bytes`` of features or ``max_seconds`` of work have come together.

        With ``once`` it leaves out what another writer has published meanwhile with equal features; it tells ``claims`` what is there.
        """
        return FeatureWriter(self, part, max_bytes, max_seconds, once, claims)

    def refresh(self) -> None:
        """See what others have published, merged or repaired since; opens only files not seen before."""
        self._folder.look()
        self._index = self._index.updated(self._folder.usable)

    def verify(self, deep: bool = False) -> "list[Problem]":
        """Everything that is wrong with the store, read afresh from the disk; ``deep`` compares every digest. Raises nothing for damage."""
        from store.verify import verify

        return verify(self, deep)

    def repair(self) -> "Repair":
        """Set damaged shards aside, keeping the good videos in them, so that the next extract redoes exactly the rest."""
        from store.repair import repair

        return repair(self)

    def compact(self, target_bytes: int = 2 * DEFAULT_MAX_BYTES) -> "Compaction":
        """Merge small shards into ones of about ``target_bytes``; safe while others read, write or compact."""
        from store.compact import compact

        return compact(self, target_bytes)

    def info(self) -> dict[str, Any]:
        """Facts about the store in JSON's types."""
        rows = sum(shard.structure.total_rows for shard in self.shards)
        return {
            "path": str(self.path),
            "digest": self.digest,
            "spec": self.spec,
            "videos": len(self),
            "rows": rows,
            "shards": len(self.shards),
            "bytes": sum(shard.structure.size for shard in self.shards),
            "levels": {level.name: {"dtype": level.dtype, "row_shape": list(level.row_shape)} for level in self.layout},
            "failures": len(self.failures()),
            "damaged": {name: str(error) for name, error in sorted(self.damaged.items())},
            "partial_files": len(list((self.path / "shards").glob(f".*{PARTIAL_SUFFIX}"))),
        }

    def _retried(self, read: Callable[[], T]) -> T:
        """Read again, after a look at the folder, when a shard was merged into another one meanwhile."""
        for _ in range(8):
            try:
                return read()
            except FileNotFoundError:
                self.refresh()
        raise StoreError(f"{self.path}: shards vanish faster than they can be read")

    def _find(self, video_id: str) -> tuple[Shard, int]:
        found = self._index.find(video_id)
        if found is not None:
            return found
        message = f"{self.path} has no features of {video_id!r}"
        near = difflib.get_close_matches(str(video_id), itertools.islice(self._index.ids(), 10_000), n=1)
        message += f"; did you mean {near[0]!r}?" if near else ""
        if self.damaged:
            names = ", ".join(sorted(self.damaged)[:3])
            message += f"; {len(self.damaged)} of its shards cannot be used ({names}): run `actioncache store verify`"
        raise MissingFeaturesError(message)
