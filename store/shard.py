"""One shard as a reader sees it: checked once when opened, then its rows mapped into memory; no HDF5 handle stays open."""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.arrays import Arrays, map_file, mapped, read_file
from store.errors import DamagedShardError, MissingFeaturesError, StoreError
from store.layout import Features, Level, index_digest, video_digest
from store.shard_structure import Structure, read_structure

ADVICE = "run `actioncache store repair`, then extract again"


@dataclass(frozen=True, eq=False)
class Shard:
    """An immutable file of features. Picklable, and safe under fork and spawn: files are mapped when first read in a process."""

    path: Path
    structure: Structure
    ids: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, spec_digest: str) -> "Shard":
        """Check everything but the features themselves, which every read checks.

        Raises ``DamagedShardError`` (not what its writer wrote, or no shard), ``SpecMismatchError`` (another store's), ``StoreError``
        (cannot be read here and now) and ``FileNotFoundError`` (gone).
        """
        structure = read_structure(path, spec_digest)
        with read_file(path, structure) as arrays:
            return cls(path, structure, _checked_index(path, structure, arrays, spec_digest))

    @classmethod
    def open_unchecked(cls, path: Path, spec_digest: str) -> "Shard":
        """Open a shard whose index may be wrong, to rescue the videos that still agree with their digests; ids are best guesses."""
        structure = read_structure(path, spec_digest)
        return cls(path, structure, tuple(raw.decode(errors="replace") for raw in _raw_ids(map_file(path, structure).id)))

    @property
    def name(self) -> str:
        """File name; shards are ordered by it."""
        return self.path.name

    @property
    def levels(self) -> tuple[Level, ...]:
        """The levels, ordered by name."""
        return self.structure.levels

    def renamed(self, path: Path) -> "Shard":
        """The same shard after its file was renamed."""
        return dataclasses.replace(self, path=path)

    def digests(self, position: int) -> tuple[bytes, ...]:
        """The stored digests of one video, in the order of ``levels``; equal ones mean equal features."""
        arrays = mapped(self.path, self.structure)
        return tuple(arrays.digests[level.name][position].tobytes() for level in self.levels)

    def num_rows(self) -> np.ndarray:
        """Rows of each video, int64 [V]."""
        return np.array(mapped(self.path, self.structure).num_rows)

    def read(self, position: int, levels: Sequence[str] | None = None, check: bool = True) -> Features:
        """Copy one video's features out of the file; ``check`` compares the copy with the digests.

        Raises ``DamagedShardError`` naming shard and video, ``MissingFeaturesError`` for an unknown level, and ``FileNotFoundError``
        when the file has been compacted away since.
        """
        return self._read(mapped(self.path, self.structure), position, levels, check)

    def read_each(self) -> Iterator[tuple[str, Features | StoreError]]:
        """Every video read and checked, without mapping: its features, or what is wrong with it.

        ``StoreError`` that is no ``DamagedShardError`` means that the disk did not answer; the bytes may be good.
        """
        with read_file(self.path, self.structure) as arrays:
            for position, video_id in enumerate(self.ids):
                try:
                    yield video_id, self._read(arrays, position, None, True)
                except StoreError as error:
                    yield video_id, error

    def _read(self, arrays: Arrays, position: int, levels: Sequence[str] | None, check: bool) -> Features:
        first, count, total = int(arrays.first[position]), int(arrays.num_rows[position]), self.structure.total_rows
        if count < 1 or not 0 <= first <= total - count:  # an index that repair reads unchecked; slices would quietly be cut to fit
            raise DamagedShardError(
                f"{self.path}: the index puts {self.ids[position]!r} at row {first} with {count} rows of {total}; {ADVICE}"
            )
        rows = slice(first, first + count)
        frames, times = arrays.frames[rows].copy(), arrays.times[rows].copy()
        values: dict[str, np.ndarray] = {}
        for name in arrays.values if levels is None else levels:
            if name not in arrays.values:
                raise MissingFeaturesError(f"no level {name!r} in {self.path}; it has {', '.join(arrays.values)}")
            values[name] = arrays.values[name][rows].copy()
        if check:
            self._check(arrays, position, values, frames, times)
        return Features(values, frames, times)

    def _check(self, arrays: Arrays, position: int, values: dict[str, np.ndarray], frames: np.ndarray, times: np.ndarray) -> None:
        encoded_id = self.ids[position].encode()
        for name, array in values.items():
            if video_digest(encoded_id, arrays.encoded[name], array, frames, times) != arrays.digests[name][position].tobytes():
                raise DamagedShardError(
                    f"{self.path}: video {self.ids[position]!r}, level {name}: the bytes are not the ones that were written; {ADVICE}"
                )


def _checked_index(path: Path, structure: Structure, arrays: Arrays, spec_digest: str) -> tuple[str, ...]:
    """The ids, once the index is what its writer wrote and speaks of rows that are there."""
    index: dict[str, np.ndarray] = {"id": arrays.id, "first": arrays.first, "rows": arrays.num_rows}
    index |= {f"digests/{name}": array for name, array in arrays.digests.items()}
    if index_digest(spec_digest, structure.levels, structure.total_rows, index) != structure.index_digest:
        raise DamagedShardError(f"{path}: the index is not the one that was written; {ADVICE}")
    first, rows, total = arrays.first, arrays.num_rows, structure.total_rows
    lying = np.flatnonzero((rows < 1) | (rows > total) | (first < 0) | (first > total - rows))
    if len(lying):
        at = lying[0]
        raise DamagedShardError(f"{path}: the index puts video {at} at row {first[at]} with {rows[at]} rows; there are {total} rows")
    return _decoded_ids(path, arrays.id)


def _decoded_ids(path: Path, raw: np.ndarray) -> tuple[str, ...]:
    try:
        ids = tuple(b"\0".join(_raw_ids(raw)).decode().split("\0"))
    except UnicodeDecodeError as error:
        raise DamagedShardError(f"{path}: an id is not UTF-8: {error}") from None
    if len(ids) != len(raw) or "" in ids:
        raise DamagedShardError(f"{path}: an id is empty or has a NUL inside")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DamagedShardError(f"{path}: the index names {twice!r} twice")
    return ids


def _raw_ids(raw: np.ndarray) -> list[bytes]:
    """Rows of uint8 [V, width] as bytes without the NULs at the end."""
    found: list[bytes] = raw.view(f"S{raw.shape[1]}")[:, 0].tolist()
    return found
