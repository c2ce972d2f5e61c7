"""Write one shard, whole. HDF5 lays the file out in memory; the disk sees plain writes, so a full disk is a plain error."""

import errno
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from store.errors import StoreError
from store.files import atomic_path
from store.layout import Features, Level, encode_id, levels_of, video_digest
from store.shard import Shard
from store.shard_image import LEVELS, Region, SparseFile, lay_out

_MAX_PIECES = 512  # arrays handed to one system call
_BATCH_BYTES = 8 << 20


@dataclass(frozen=True)
class Entry:
    """One video ready for a shard; ``features`` passed ``layout.checked``, ``digests`` has 16 bytes a level."""

    id: str
    features: Features
    digests: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def of(cls, video_id: str, features: Features) -> "Entry":
        """Compute the digests of checked features."""
        encoded = encode_id(video_id)
        digests = {
            name: video_digest(encoded, level.encoded(), features.values[name], features.frames, features.times)
            for name, level in levels_of(features).items()
        }
        return cls(video_id, features, digests)

    @property
    def bytes(self) -> int:
        """Bytes of values, frames and times."""
        return sum(array.nbytes for array in self.features.values.values()) + self.features.frames.nbytes + self.features.times.nbytes


@dataclass(frozen=True)
class Contents:
    """What a shard is to hold: the index as it is, the rows piece by piece, so that a shard can be larger than the memory.

    ``ids`` encoded [V]; ``num_rows`` int64 [V]; ``digests`` {level: uint8 [V, 16]}; ``rows(path)`` gives the rows of the dataset
    ``frames``, ``times`` or ``levels/<level>`` in arrays one after the other, in the order of the videos, little-endian and C-contiguous.
    """

    ids: Sequence[bytes]
    levels: Mapping[str, Level]
    num_rows: np.ndarray
    digests: Mapping[str, np.ndarray]
    rows: Callable[[str], Iterable[np.ndarray]]

    @classmethod
    def of(cls, entries: Sequence[Entry]) -> "Contents":
        """Videos that are in memory: at least one, of equal levels, with unique ids."""
        levels = levels_of(entries[0].features)
        digests = {level: np.frombuffer(b"".join(entry.digests[level] for entry in entries), np.uint8).reshape(-1, 16) for level in levels}

        def rows(path: str) -> Iterator[np.ndarray]:
            level = path.removeprefix(LEVELS)
            return (getattr(entry.features, path) if path == level else entry.features.values[level] for entry in entries)

        num_rows = np.array([len(entry.features) for entry in entries], "<i8")
        return cls([encode_id(entry.id) for entry in entries], levels, num_rows, digests, rows)

    def index(self) -> dict[str, np.ndarray]:
        """The arrays of the index, as ``index_digest`` wants them."""
        width = max(map(len, self.ids))
        return {
            "id": np.frombuffer(b"".join(item.ljust(width, b"\0") for item in self.ids), np.uint8).reshape(-1, width),
            "first": np.cumsum(self.num_rows) - self.num_rows,
            "rows": self.num_rows,
            **{f"digests/{level}": array for level, array in self.digests.items()},
        }


def write_shard(final: Path, spec_digest: str, entries: Sequence[Entry]) -> Shard:
    """``write_contents`` of videos that are in memory: at least one, of equal levels, with unique ids."""
    return write_contents(final, spec_digest, Contents.of(entries))


def write_contents(final: Path, spec_digest: str, contents: Contents, deep: bool = False) -> Shard:
    """Write the shard ``final``: aside, checked, fsynced, renamed. ``deep`` reads every video back and compares its digests, too.

    Returns the shard as a reader sees it. ``OSError`` when the disk refuses, ``StoreError`` for what does not read back as it should;
    nothing is left behind then.
    """
    image, regions = lay_out(spec_digest, list(contents.levels.values()), int(contents.num_rows.sum()), contents.index())
    with atomic_path(final) as aside:
        with aside.open("xb", buffering=0) as file:
            _write_file(file.fileno(), image, regions, contents)
        shard = Shard.open(aside, spec_digest)  # nothing gets a final name that a reader would refuse
        for _, found in shard.read_each() if deep else ():
            if isinstance(found, StoreError):
                raise found
    return shard.renamed(final)


def _write_file(descriptor: int, image: SparseFile, regions: list[Region], contents: Contents) -> None:
    """Write the file from front to back: the image up to a region, the region's rows, the image after it, ..."""
    position = 0
    for region in regions:
        _write_all(descriptor, [memoryview(image.between(position, region.offset))])
        os.ftruncate(descriptor, max(region.offset, position))
        os.lseek(descriptor, region.offset, os.SEEK_SET)
        written = sum(_write_all(descriptor, batch) for batch in _batches(contents.rows(region.path) if region.path else ()))
        assert written == region.bytes, f"{region.path}: {written} bytes for {region.bytes}"
        position = region.offset + region.bytes


def _batches(arrays: Iterable[np.ndarray]) -> Iterator[list[memoryview]]:
    """As many pieces as one system call takes, and no more than a few megabytes."""
    batch: list[memoryview] = []
    size = 0
    for array in arrays:
        batch.append(array.reshape(-1).view(np.uint8).data)
        size += array.nbytes
        if len(batch) == _MAX_PIECES or size >= _BATCH_BYTES:
            yield batch
            batch, size = [], 0
    yield batch


def _write_all(descriptor: int, pieces: list[memoryview]) -> int:
    pieces = [piece for piece in pieces if piece.nbytes]
    total = sum(piece.nbytes for piece in pieces)
    while pieces:
        written = os.writev(descriptor, pieces)
        while pieces and written >= pieces[0].nbytes:
            written -= pieces.pop(0).nbytes
        if pieces:
            pieces[0] = pieces[0][written:]
    return total


def refused(folder: Path, error: OSError, consequence: str) -> StoreError:
    """An ``OSError`` of writing into a store as a ``StoreError`` that says which folder, why, and what became of the work."""
    reasons = {
        errno.ENOSPC: "the disk is full; make room and run the command again",
        errno.EDQUOT: "the disk quota is used up; make room and run the command again",
        errno.EROFS: "the file system is read-only",
        errno.EACCES: "no permission to write there",
        errno.ENOENT: "the folder has vanished",
    }
    reason = reasons.get(error.errno or 0, error.strerror or str(error))
    return StoreError(f"cannot write to {folder}: {reason} ({consequence})")
