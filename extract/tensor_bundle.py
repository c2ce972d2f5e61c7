"""TensorFlow's checkpoints (tensor bundles), read without TensorFlow: ``model.ckpt.index`` and the data files beside it.

The index is a table of LevelDB: blocks of sorted keys, each key given by how much it shares with the one before; a block of blocks; and a
footer that says where that one is. A key is a variable's name, its value a message that says where in which data file the array lies,
with its type, shape and CRC-32C. Every checksum is verified, so the SHA-256 of the index vouches for the data as well.
"""

import struct
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch

from extract.wire import crc32c, fields, masked, varint
from store.errors import WeightsError

SUFFIX = ".index"
MAGIC = 0xDB4775248B80FB57
FOOTER, TRAILER = 48, 5  # bytes of the footer; of what follows each block: its compression and its CRC
DTYPES = {1: "<f4", 2: "<f8", 3: "<i4", 4: "u1", 6: "i1", 9: "<i8", 10: "?", 19: "<f2"}  # TensorFlow's number of a type -> NumPy's name
STRING = 7  # TensorFlow's own notes about its objects, no weights


class Entry(NamedTuple):
    """Where an array lies."""

    dtype: int
    shape: tuple[int, ...]
    shard: int
    offset: int
    size: int
    crc: int


def read_bundle(data: bytes, path: Path) -> dict[str, torch.Tensor]:
    """The variables of a checkpoint by name, given its index's bytes and path.

    Raises ``WeightsError`` for damage, a missing data file, and what this reader does not know (compressed or partitioned tables).
    """
    try:
        shards, entries = _index(memoryview(data))
        files = [path.with_suffix(f".data-{number:05d}-of-{shards:05d}") for number in range(shards)]
        return {name: _array(files[entry.shard], name, entry) for name, entry in entries.items() if entry.dtype != STRING}
    except FileNotFoundError as error:
        raise WeightsError(f"{path} is the index of {error.filename}, which is not there; put both into one folder") from None
    except (ValueError, IndexError, struct.error, OSError) as error:
        raise WeightsError(f"{path} is damaged or no index of a TensorFlow checkpoint: {error}; download it again") from None


def _index(data: memoryview) -> tuple[int, dict[str, Entry]]:
    """Number of data files, and every variable's entry."""
    if len(data) < FOOTER or struct.unpack("<Q", data[-8:])[0] != MAGIC:
        raise ValueError("it does not end as such an index does")
    footer = data[-FOOTER:]
    _, at = varint(footer, 0)  # where the block of properties is; TensorFlow writes none
    _, at = varint(footer, at)
    shards, entries = 0, {}
    for _, handle in _block(data, footer[at:]):
        for key, value in _block(data, handle):
            if key:
                entries[key.decode()] = _entry(value)
            else:
                shards = _shards(value)
    if not shards:
        raise ValueError("it has no header")
    return shards, entries


def _block(data: memoryview, handle: memoryview) -> Iterator[tuple[bytes, memoryview]]:
    """Keys and values of the block at ``handle`` (its offset and size)."""
    start, at = varint(handle, 0)
    size, _ = varint(handle, at)
    block, trailer = data[start : start + size], data[start + size : start + size + TRAILER]
    compression, crc = struct.unpack("<BI", trailer)
    if masked(crc32c(data[start : start + size + 1])) != crc:
        raise ValueError("a block's checksum is wrong")
    if compression:
        raise ValueError("its blocks are compressed, which TensorFlow never does by itself")
    restarts = struct.unpack("<I", block[-4:])[0]
    end, at, key = len(block) - 4 - 4 * restarts, 0, b""
    while at < end:
        shared, at = varint(block, at)
        added, at = varint(block, at)
        length, at = varint(block, at)
        key = key[:shared] + bytes(block[at : at + added])
        yield key, block[at + added : at + added + length]
        at += added + length


def _shards(header: memoryview) -> int:
    values = {number: value for number, value in fields(header) if isinstance(value, int)}
    if values.get(2):
        raise ValueError("its arrays are big-endian")
    return values.get(1, 0)


def _entry(message: memoryview) -> Entry:
    numbers: dict[int, int] = {}
    shape: tuple[int, ...] = ()
    for number, value in fields(message):
        if isinstance(value, int):
            numbers[number] = value
        elif number == 2:
            shape = tuple(_length(dimension) for kind, dimension in fields(value) if kind == 2)
        elif number == 6:
            numbers[number] = struct.unpack("<I", value)[0]
        elif number == 7:
            raise ValueError("it holds variables that are partitioned")
    dtype, shard, offset, size, crc = (numbers.get(number, 0) for number in (1, 3, 4, 5, 6))
    return Entry(dtype, shape, shard, offset, size, crc)


def _length(dimension: int | memoryview) -> int:
    if isinstance(dimension, int):
        raise ValueError("it holds a shape that is none")
    return next((value for number, value in fields(dimension) if number == 1 and isinstance(value, int)), 0)


def _array(path: Path, name: str, entry: Entry) -> torch.Tensor:
    if entry.dtype not in DTYPES:
        raise ValueError(f"{name} has type number {entry.dtype}, which is not known")
    with path.open("rb") as file:
        file.seek(entry.offset)
        data = file.read(entry.size)
    if len(data) != entry.size or masked(crc32c(data)) != entry.crc:
        raise ValueError(f"{name} in {path.name} is cut short or damaged")
    return torch.from_numpy(np.frombuffer(data, DTYPES[entry.dtype]).reshape(entry.shape).copy())
