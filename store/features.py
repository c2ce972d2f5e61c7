"""FeatureStore: a folder of immutable shards that belong to one spec. docs/format.md says what is on the disk."""

import difflib
import itertools
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from store import failures as failure_files
from store.digest import digest as digest_of
from store.digest import to_plain
from store.errors import DamagedShardError, MissingFeaturesError, SpecMismatchError, StoreError
from store.failures import Failure
from store.files import PARTIAL_SUFFIX, safe_name
from store.layout import Features, Level
from store.shard import Shard
from store.spec_file import FILE_NAME, difference, find_store, read_spec_file, write_spec_file
from store.writer import DEFAULT_MAX_BYTES, DEFAULT_MAX_SECONDS, FeatureWriter

if TYPE_CHECKING:
    import numpy as np

    from store.bulk import Order, RowReader, Rows
    from store.compact import Compaction
    from store.repair import Repair
    from store.verify import Problem

__all__ = ["Failure", "FeatureStore", "FeatureWriter", "Features"]

T = TypeVar("T")
_POSITION_BITS = 32  # a video's place is shard number << 32 | position in the shard: one small object a video


class FeatureStore:
    """Features of many videos, all made by one spec. Made by ``create`` or ``open``; picklable; any number of readers and writers.

    A video found in two shards is read from the first by name. A shard that cannot be used is listed in ``damaged`` (file name ->
    error), its videos count as missing, and ``verify`` reports it.
    """

    def __init__(self, path: Path, spec: dict[str, Any]) -> None:
        """Use ``create`` or ``open``."""
        self.path, self.spec, self.digest = path, spec, digest_of(spec)
        self.damaged: dict[str, StoreError] = {}
        self._shards: dict[str, Shard] = {}
        self._order: list[Shard] = []
        self._places: dict[str, int] = {}
        self.refresh()

    @classmethod
    def create(cls, root: Path, name: str, spec: Mapping[str, Any]) -> "FeatureStore":
        """The store for ``spec`` (JSON types or a spec dataclass) under ``root``, made if it is not there.

        The folder is ``root/<name>-<first 12 digits of the digest>``: equal specs share a store, different ones never do.
        """
        plain = to_plain(spec)
        path = Path(root) / f"{safe_name(name, 'store name')}-{digest_of(plain)[:12]}"
        if not (path / FILE_NAME).exists():
            write_spec_file(path, name, plain)
        return cls.open(path, plain)

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
        return self._order[0].levels if self._order else ()

    @property
    def levels(self) -> tuple[str, ...]:
        """Names of the levels, sorted; empty while nothing is stored."""
        return tuple(level.name for level in self.layout)

    @property
    def shards(self) -> tuple[Shard, ...]:
        """The usable shards, by name."""
        return tuple(self._order)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def __repr__(self) -> str:
        return f"FeatureStore({str(self.path)!r}, {len(self)} videos)"

    def ids(self) -> list[str]:
        """Ids of all videos, by shard and order of writing."""
        return list(self._places)

    def num_rows(self) -> dict[str, int]:
        """Number of rows of every video, in the order of ``ids``."""
        counts = self._retried(lambda: [shard.num_rows() for shard in self._order])
        mask = (1 << _POSITION_BITS) - 1
        return {video_id: int(counts[place >> _POSITION_BITS][place & mask]) for video_id, place in self._places.items()}

    def missing(self, ids: Iterable[str]) -> list[str]:
        """Those of ``ids`` that have no features, in their order."""
        return [video_id for video_id in ids if video_id not in self._places]

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
        import numpy as np

        absent = self.missing(ids)
        if len(absent) == 1:
            self._find(absent[0])
        if absent:
            raise MissingFeaturesError(
                f"{self.path} has no features of {len(absent)} of the {len(ids)} videos asked for: {', '.join(map(repr, absent[:5]))}"
                + (", ..." if len(absent) > 5 else "")
            )
        places = np.fromiter((self._places[video_id] for video_id in ids), np.int64, len(ids))
        used, shard = np.unique(places >> _POSITION_BITS, return_inverse=True)
        return [self._order[number] for number in used], shard, places & (1 << _POSITION_BITS) - 1

    def failures(self) -> dict[str, Failure]:
        """The last failure of every video that failed and has no features, by id."""
        last, _ = failure_files.read_all(self.path / "failures")
        return {video_id: failure for video_id, failure in last.items() if video_id not in self._places}

    def writer(self, part: str = "main", max_bytes: int = DEFAULT_MAX_BYTES, max_seconds: float = DEFAULT_MAX_SECONDS) -> FeatureWriter:
        """A writer that publishes a shard whenever ``max_bytes`` of features or ``max_seconds`` of work have come together."""
        return FeatureWriter(self, part, max_bytes, max_seconds)

    def refresh(self) -> None:
        """See what others have published, merged or repaired since; opens only files not seen before."""
        for _ in range(100):
            names = self._list()
            if self._open_new(names) and names == self._list():  # equal lists: nothing was renamed while we looked
                break
        else:
            raise StoreError(f"{self.path / 'shards'} changes faster than it can be read")
        order = [self._shards[name] for name in sorted(self._shards)]
        if order != self._order:
            self._index(order)

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
        rows = sum(shard.structure.total_rows for shard in self._order)
        return {
            "path": str(self.path),
            "digest": self.digest,
            "spec": self.spec,
            "videos": len(self),
            "rows": rows,
            "shards": len(self._order),
            "bytes": sum(shard.structure.size for shard in self._order),
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
        place = self._places.get(video_id)
        if place is not None:
            return self._order[place >> _POSITION_BITS], place & (1 << _POSITION_BITS) - 1
        message = f"{self.path} has no features of {video_id!r}"
        near = difflib.get_close_matches(video_id, itertools.islice(self._places, 10_000), n=1)
        message += f"; did you mean {near[0]!r}?" if near else ""
        if self.damaged:
            names = ", ".join(sorted(self.damaged)[:3])
            message += f"; {len(self.damaged)} of its shards cannot be used ({names}): run `actioncache store verify`"
        raise MissingFeaturesError(message)

    def _list(self) -> list[str]:
        try:
            names = os.listdir(self.path / "shards")  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise StoreError(f"{self.path / 'shards'} cannot be read: {error.strerror or error}") from None
        return sorted(name for name in names if name.endswith(".h5") and not name.startswith("."))

    def _open_new(self, names: list[str]) -> bool:
        """Bring ``_shards`` and ``damaged`` in line with the folder; False if a file vanished meanwhile."""
        here = set(names)
        self._shards = {name: shard for name, shard in self._shards.items() if name in here}
        self.damaged = {name: error for name, error in self.damaged.items() if name in here}
        for name in names:
            if name in self._shards or isinstance(self.damaged.get(name), DamagedShardError | SpecMismatchError):
                continue
            try:
                self._shards[name] = Shard.open(self.path / "shards" / name, self.digest)
                self.damaged.pop(name, None)
            except FileNotFoundError:
                if not (self.path / "shards" / name).is_symlink():
                    return False
                self.damaged[name] = StoreError(f"{self.path / 'shards' / name} is a link to nothing")
            except StoreError as error:
                self.damaged[name] = error
        self._set_apart_other_levels()
        return True

    def _set_apart_other_levels(self) -> None:
        """All shards of a store have the levels of the first one by name."""
        first = self._shards[min(self._shards)] if self._shards else None
        for name, shard in list(self._shards.items()):
            if first and shard.levels != first.levels:
                ours, theirs = ("; ".join(map(str, one.levels)) for one in (shard, first))
                self.damaged[name] = SpecMismatchError(f"{shard.path} has levels {ours}; the store's first shard {first.name} has {theirs}")
                del self._shards[name]

    def _index(self, order: list[Shard]) -> None:
        known = len(self._order)
        appended = known > 0 and order[:known] == self._order
        places = dict(self._places) if appended else {}
        for number, shard in itertools.islice(enumerate(order), known if appended else 0, None):
            for position, video_id in enumerate(shard.ids):
                places.setdefault(video_id, number << _POSITION_BITS | position)
        self._order, self._places = order, places
