"""One shard as a reader sees it: checked once when opened, then its rows mapped into memory; no HDF5 handle stays open."""

import dataclasses
import mmap
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.errors import DamagedShardError, MissingFeaturesError, StoreError
from store.layout import Features, Level, index_digest, video_digest
from store.shard_structure import Place, Structure, read_structure

MAX_MAPS = 256  # mapped files a process keeps; each holds a file descriptor
_maps: dict[str, "_Map"] = {}  # least recently used first; only ever changed by single, atomic operations


@dataclass(frozen=True, eq=False)
class Shard:
    """An immutable file of features. Picklable, and safe under fork and spawn: files are mapped when first read in a process."""

    path: Path
    structure: Structure
    ids: tuple[str, ...]

    @classmethod
    def open(cls, path: Path, spec_digest: str, index_check: bool = True) -> "Shard":
        """Check everything but the features themselves.

        Raises ``DamagedShardError`` (not what its writer wrote, or no shard), ``SpecMismatchError`` (another store's), ``StoreError``
        (cannot be read here and now) and ``FileNotFoundError`` (gone). Without ``index_check`` a wrong index is let through, for repair.
        """
        structure = read_structure(path, spec_digest)
        mapped = _Map.of_file(path, structure)  # for the index alone; let go of at once
        return cls(path, structure, _checked_index(path, structure, mapped, spec_digest, index_check))

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
        mapped = self._mapped()
        return tuple(mapped.array(self.structure.digests[level.name])[position].tobytes() for level in self.levels)

    def num_rows(self) -> np.ndarray:
        """Rows of each video, int64 [V]."""
        return np.array(self._mapped().rows)

    def read(self, position: int, levels: Sequence[str] | None = None, check: bool = True) -> Features:
        """Copy one video's features out of the file; ``check`` compares the copy with the digests.

        Raises ``DamagedShardError`` naming shard and video, ``MissingFeaturesError`` for an unknown level, and ``FileNotFoundError``
        when the file has been compacted away since.
        """
        mapped = self._mapped()
        first, count = int(mapped.first[position]), int(mapped.rows[position])
        rows = slice(first, first + count)
        frames, times = mapped.frames[rows].copy(), mapped.times[rows].copy()
        values = {name: self._rows(mapped, name)[rows].copy() for name in (mapped.values if levels is None else levels)}
        if check:
            encoded_id = self.ids[position].encode()
            for name, array in values.items():
                found = video_digest(encoded_id, mapped.encoded[name], array, frames, times)
                if found != mapped.digests[name][position].tobytes():
                    raise DamagedShardError(
                        f"{self.path}: video {self.ids[position]!r}, level {name}: the bytes are not the ones that were written; "
                        "run `actioncache store repair`, then extract again"
                    )
        return Features(values, frames, times)

    def _rows(self, mapped: "_Map", level: str) -> np.ndarray:
        try:
            return mapped.values[level]
        except KeyError:
            raise MissingFeaturesError(f"no level {level!r} in {self.path}; it has {', '.join(mapped.values)}") from None

    def _mapped(self) -> "_Map":
        key = str(self.path)
        mapped = _maps.pop(key, None)
        if mapped is None:
            mapped = _Map.of_file(self.path, self.structure)
        _maps[key] = mapped
        if len(_maps) > MAX_MAPS:
            _maps.pop(next(iter(_maps)), None)
        return mapped


class _Map:
    """Arrays over a mapped file. They keep the map alive; it is unmapped when the last one goes."""

    def __init__(self, buffer: mmap.mmap, structure: Structure) -> None:
        self._buffer = buffer
        self.first, self.rows = self.array(structure.first), self.array(structure.rows)
        self.frames, self.times = self.array(structure.frames), self.array(structure.times)
        self.values = {level.name: self.array(structure.values[level.name]) for level in structure.levels}
        self.digests = {level.name: self.array(structure.digests[level.name]) for level in structure.levels}
        self.encoded = {level.name: level.encoded() for level in structure.levels}

    @classmethod
    def of_file(cls, path: Path, structure: Structure) -> "_Map":
        """Map a file that must still have the size it had when it was checked."""
        try:
            descriptor = os.open(path, os.O_RDONLY)
            try:
                size = os.fstat(descriptor).st_size
                if size != structure.size:
                    raise DamagedShardError(f"{path} has {size} bytes; it had {structure.size} when it was opened")
                return cls(mmap.mmap(descriptor, size, access=mmap.ACCESS_READ), structure)
            finally:
                os.close(descriptor)
        except FileNotFoundError:
            raise
        except OSError as error:
            raise StoreError(f"{path} cannot be mapped: {error.strerror or error}") from None

    def array(self, place: Place) -> np.ndarray:
        """A read-only view of one place of the file."""
        count = 1
        for side in place.shape:
            count *= side
        return np.frombuffer(self._buffer, place.dtype, count, place.offset).reshape(place.shape)


def _checked_index(path: Path, structure: Structure, mapped: _Map, spec_digest: str, digest_check: bool) -> tuple[str, ...]:
    """The ids, once the index is what its writer wrote and speaks of rows that are there."""
    index: dict[str, np.ndarray] = {"id": mapped.array(structure.id), "first": mapped.first, "rows": mapped.rows}
    index |= {f"digests/{name}": array for name, array in mapped.digests.items()}
    if digest_check and index_digest(spec_digest, structure.levels, structure.total_rows, index) != structure.index_digest:
        raise DamagedShardError(f"{path}: the index is not the one that was written; run `actioncache store repair`, then extract again")
    first, rows, total = mapped.first, mapped.rows, structure.total_rows
    lying = np.flatnonzero((rows < 1) | (rows > total) | (first < 0) | (first > total - rows))
    if len(lying):
        at = lying[0]
        raise DamagedShardError(f"{path}: the index puts video {at} at row {first[at]} with {rows[at]} rows; there are {total} rows")
    return _decoded_ids(path, index["id"])


def _decoded_ids(path: Path, raw: np.ndarray) -> tuple[str, ...]:
    stripped = raw.view(f"S{raw.shape[1]}")[:, 0].tolist()
    try:
        ids = tuple(b"\0".join(stripped).decode().split("\0"))
    except UnicodeDecodeError as error:
        raise DamagedShardError(f"{path}: an id is not UTF-8: {error}") from None
    if len(ids) != len(raw) or "" in ids:
        raise DamagedShardError(f"{path}: an id is empty or has a NUL inside")
    if len(set(ids)) != len(ids):
        seen: set[str] = set()
        twice = next(name for name in ids if name in seen or seen.add(name))  # type: ignore[func-returns-value]
        raise DamagedShardError(f"{path}: the index names {twice!r} twice")
    return ids
