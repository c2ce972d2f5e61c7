"""The arrays of a shard file: mapped into memory for readers, or read piece by piece for those who expect a failing disk."""

import mmap
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import DamagedShardError, StoreError
from store.shard_structure import Place, Structure, raise_gone

MAX_MAPS = 256  # mapped files a process keeps; each holds a file descriptor
_Key = tuple[str, int, str]
_maps: dict[_Key, "Arrays"] = {}  # least recently used first; changed by single operations only, so threads and forks need no lock


class Arrays:
    """A shard's arrays; ``frames``, ``times`` and each of ``values`` can be sliced by rows. They keep the map behind them alive.

    ``size`` is the file's size in bytes when it was opened; ``file_bytes()`` asks the system for the present one, in half a microsecond.
    """

    def __init__(
        self, structure: Structure, array: Callable[[Place], np.ndarray], rows: Callable[[Place], Any], file_bytes: Callable[[], int]
    ) -> None:
        self.size, self.file_bytes = structure.size, file_bytes
        self.id = array(structure.id)
        self.first, self.num_rows = array(structure.first), array(structure.rows)
        self.digests = {level.name: array(structure.digests[level.name]) for level in structure.levels}
        self.frames, self.times = rows(structure.frames), rows(structure.times)
        self.values = {level.name: rows(structure.values[level.name]) for level in structure.levels}
        self.encoded = {level.name: level.encoded() for level in structure.levels}


def mapped(path: Path, structure: Structure) -> Arrays:
    """The file's arrays from this process's maps, mapped now if they are not.

    Raises ``FileNotFoundError`` when the file is gone and ``DamagedShardError`` when its size has changed.
    """
    key = (str(path), structure.size, structure.index_digest)
    arrays = _maps.pop(key, None)
    if arrays is None or not _whole(arrays, structure):  # touching what was cut off a mapped file would end the process (SIGBUS)
        arrays = map_file(path, structure)
    _maps[key] = arrays
    if len(_maps) > MAX_MAPS:
        _maps.pop(next(iter(_maps)), None)
    return arrays


def _whole(arrays: Arrays, structure: Structure) -> bool:
    try:
        return arrays.file_bytes() == structure.size
    except OSError:  # another client of a network disk has removed the file: opening it tells
        return False


def map_file(path: Path, structure: Structure) -> Arrays:
    """Map a file, for as long as the result is held."""
    with _opened(path, structure) as descriptor:
        try:
            buffer = mmap.mmap(descriptor, structure.size, access=mmap.ACCESS_READ)
        except OSError as error:
            raise StoreError(f"{path} cannot be mapped: {error.strerror or error}") from None

    def view(place: Place) -> np.ndarray:
        return np.frombuffer(buffer, place.dtype, _count(place), place.offset).reshape(place.shape)

    return Arrays(structure, view, view, buffer.size)


@contextmanager
def read_file(path: Path, structure: Structure) -> Iterator[Arrays]:
    """The file's arrays by ordinary reads: a bad sector is a ``StoreError`` here, where a mapped page would end the process."""
    with _opened(path, structure) as descriptor:
        file = partial(_Rows, path, descriptor, structure.size)
        yield Arrays(structure, lambda place: file(place)[0 : place.shape[0]], file, lambda: os.fstat(descriptor).st_size)


class _Rows:
    """Rows of an open file; slicing reads."""

    def __init__(self, path: Path, descriptor: int, size: int, place: Place) -> None:
        self.path, self.descriptor, self.size, self.place = path, descriptor, size, place
        self.row_bytes = _count(place) // place.shape[0] * np.dtype(place.dtype).itemsize

    def __getitem__(self, rows: slice) -> np.ndarray:
        start, stop, _ = rows.indices(self.place.shape[0])
        shape = (max(0, stop - start), *self.place.shape[1:])
        wanted, offset = shape[0] * self.row_bytes, self.place.offset + start * self.row_bytes
        if offset + wanted > self.size:  # nothing is allocated for what a cut file only claims to hold
            raise DamagedShardError(f"{self.path} ends at byte {self.size}, inside an array")
        data = bytearray()
        while len(data) < wanted:
            try:
                piece = os.pread(self.descriptor, wanted - len(data), offset + len(data))
            except OSError as error:
                raise StoreError(f"{self.path}: byte {offset + len(data)} cannot be read: {error.strerror or error}") from None
            if not piece:
                raise DamagedShardError(f"{self.path} ends at byte {offset + len(data)}, inside an array")
            data += piece
        return np.ndarray(shape, self.place.dtype, data)


@contextmanager
def _opened(path: Path, structure: Structure) -> Iterator[int]:
    """A descriptor of the file as it is now. An older map of it is let go: a restored backup may have taken over the name since."""
    _maps.pop((str(path), structure.size, structure.index_digest), None)
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError as error:
        raise_gone(path, error)
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None
    try:
        size = _size(path, descriptor)
        if size != structure.size:
            raise DamagedShardError(f"{path} has {size} bytes; it had {structure.size} when it was opened")
        yield descriptor
    finally:
        os.close(descriptor)


def _size(path: Path, descriptor: int) -> int:
    try:
        return os.fstat(descriptor).st_size
    except OSError as error:
        raise_gone(path, error)
        raise StoreError(f"{path} cannot be read: {error.strerror or error}") from None


def _count(place: Place) -> int:
    count = 1
    for side in place.shape:
        count *= side
    return count
