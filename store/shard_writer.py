"""Write one shard, whole. HDF5 lays the file out in memory; the disk sees plain writes, so a full disk is a plain error."""

import errno
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from store.errors import StoreError
from store.files import atomic_path
from store.layout import FORMAT_NAME, VERSION, Features, Level, encode_id, index_digest, levels_of, video_digest
from store.shard import Shard

ALIGNMENT = 64  # bytes, so that mapped rows start on a cache line
_HDF5_TYPES = {"float16": h5t.IEEE_F16LE, "float32": h5t.IEEE_F32LE}
_MAX_PIECES = 512  # arrays handed to one system call


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


def write_shard(final: Path, spec_digest: str, entries: Sequence[Entry]) -> Shard:
    """Write ``entries`` (at least one, equal levels, unique ids) to the shard ``final``: aside, checked, fsynced, renamed.

    Returns the shard as a reader sees it. ``OSError`` when the disk refuses; nothing is left behind then.
    """
    image, regions = _lay_out(spec_digest, entries)
    with atomic_path(final) as aside:
        with aside.open("xb", buffering=0) as file:
            _write_regions(file.fileno(), image, regions)
        shard = Shard.open(aside, spec_digest)  # nothing gets a final name that a reader would refuse
    return shard.renamed(final)


def _lay_out(spec_digest: str, entries: Sequence[Entry]) -> tuple[memoryview, list[tuple[int, list[np.ndarray]]]]:
    """The file's bytes without the rows of the levels, and where those go: (offset, arrays), in order of offset."""
    levels = levels_of(entries[0].features)
    index = _index(entries, list(levels))
    total = int(index["rows"].sum())
    buffer = io.BytesIO()
    settings = {"libver": ("v108", "v108"), "alignment_threshold": 512, "alignment_interval": ALIGNMENT, "meta_block_size": 8192}
    with h5py.File(buffer, "w", **settings) as file:
        file.attrs["format"] = np.bytes_(FORMAT_NAME)
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["spec_digest"] = np.bytes_(spec_digest)
        file.attrs["index_digest"] = np.bytes_(index_digest(spec_digest, list(levels.values()), total, index))
        for name, array in index.items():
            _put(file, f"index/{name}" if name in ("id", "first", "rows") else name, array)
        places = [(_reserve(file.require_group("levels"), level, total), level) for level in levels.values()]
        file.flush()
        size = file.id.get_filesize()
    regions = sorted((offset, [entry.features.values[level.name] for entry in entries]) for offset, level in places)
    return buffer.getbuffer(), [*regions, (size, [])]


def _index(entries: Sequence[Entry], levels: list[str]) -> dict[str, np.ndarray]:
    encoded = [encode_id(entry.id) for entry in entries]
    width = max(map(len, encoded))
    rows = np.array([len(entry.features) for entry in entries], "<i8")
    digests = {
        f"digests/{level}": np.frombuffer(b"".join(entry.digests[level] for entry in entries), np.uint8).reshape(-1, 16) for level in levels
    }
    return {
        "id": np.frombuffer(b"".join(item.ljust(width, b"\0") for item in encoded), np.uint8).reshape(-1, width),
        "first": np.cumsum(rows) - rows,
        "rows": rows,
        "frames": np.concatenate([entry.features.frames for entry in entries]),
        "times": np.concatenate([entry.features.times for entry in entries]),
        **digests,
    }


def _put(file: h5py.File, name: str, array: np.ndarray) -> None:
    if name == "index/id":
        array = array.view(f"S{array.shape[1]}")[:, 0].astype(h5py.string_dtype("utf-8", array.shape[1]))
    file.create_dataset(name, data=array, track_times=False)


def _reserve(group: h5py.Group, level: Level, total: int) -> int:
    """Create a contiguous dataset without writing it; return its byte offset in the file."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_EARLY)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    space = h5s.create_simple((total, *level.row_shape))
    offset: int = h5d.create(group.id, level.name.encode(), _HDF5_TYPES[level.dtype], space, properties).get_offset()
    return offset


def _write_regions(descriptor: int, image: memoryview, regions: list[tuple[int, list[np.ndarray]]]) -> None:
    """Write the file from front to back: the image up to a region, the region's arrays, the image after it, ..."""
    position = 0
    for offset, arrays in regions:
        _write_all(descriptor, [image[position:offset]])
        os.ftruncate(descriptor, max(offset, position))
        os.lseek(descriptor, offset, os.SEEK_SET)
        _write_all(descriptor, [array.reshape(-1).view(np.uint8).data for array in arrays])
        position = offset + sum(array.nbytes for array in arrays)


def _write_all(descriptor: int, pieces: list[memoryview]) -> None:
    pieces = [piece for piece in pieces if piece.nbytes]
    while pieces:
        written = os.writev(descriptor, pieces[:_MAX_PIECES])
        while pieces and written >= pieces[0].nbytes:
            written -= pieces.pop(0).nbytes
        if pieces:
            pieces[0] = pieces[0][written:]


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
