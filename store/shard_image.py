"""HDF5's part of a shard's file: everything but the rows, laid out in memory, with the places where the rows go."""

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import h5py
import numpy as np
from h5py import h5d, h5p, h5s, h5t

from store.layout import FORMAT_NAME, VERSION, Level, index_digest

ALIGNMENT = 64  # bytes, so that mapped rows start on a cache line
LEVELS = "levels/"
_PAGE = 4096


@dataclass(frozen=True)
class Region:
    """Bytes of the file that belong to the rows of the dataset ``path``; the image does not hold them."""

    offset: int
    bytes: int
    path: str


class SparseFile(io.RawIOBase):
    """A file in memory that takes room only for what is written; the rest reads as zeros."""

    def __init__(self) -> None:
        self.size = self._position = 0
        self._pages: dict[int, bytearray] = {}

    def between(self, start: int, end: int) -> bytes:
        """The bytes from ``start`` up to ``end``."""
        self.seek(start)
        return self.read(max(0, min(end, self.size) - start)) or b""

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """As of any file."""
        self._position = offset + (0, self._position, self.size)[whence]
        return self._position

    def tell(self) -> int:
        """As of any file."""
        return self._position

    def truncate(self, size: int | None = None) -> int:
        """As of any file; nothing is allocated."""
        self.size = self._position if size is None else size
        return self.size

    def readable(self) -> bool:
        """True."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As of any file."""
        view = memoryview(buffer).cast("B")
        count = min(len(view), max(0, self.size - self._position))
        for page, inside, low, high in self._pieces(count):
            view[low:high] = self._pages.get(page, bytes(_PAGE))[inside : inside + high - low]
        self._position += count
        return count

    def write(self, data: Any) -> int:
        """As of any file."""
        view = memoryview(data).cast("B")
        for page, inside, low, high in self._pieces(len(view)):
            self._pages.setdefault(page, bytearray(_PAGE))[inside : inside + high - low] = view[low:high]
        self._position += len(view)
        self.size = max(self.size, self._position)
        return len(view)

    def _pieces(self, count: int) -> list[tuple[int, int, int, int]]:
        """The next ``count`` bytes by page: (page, first byte in it, first byte and end among the ``count``)."""
        edges = [self._position, *range(self._position - self._position % _PAGE + _PAGE, self._position + count, _PAGE)]
        ends = [*edges[1:], self._position + count]
        return [(low // _PAGE, low % _PAGE, low - self._position, high - self._position) for low, high in zip(edges, ends, strict=True)]


def lay_out(spec_digest: str, levels: Sequence[Level], total_rows: int, index: Mapping[str, np.ndarray]) -> tuple[SparseFile, list[Region]]:
    """The file without its rows, and where those go, in order of offset; the last region is empty and stands at the end of the file.

    ``index`` is as ``index_digest`` wants it. All that a reader asks for when it opens the shard comes first: HDF5's own, then the index.
    """
    image = SparseFile()
    settings = {"libver": ("v108", "v108"), "alignment_threshold": 512, "alignment_interval": ALIGNMENT}
    with h5py.File(image, "w", **settings) as file:
        file.attrs["format"] = np.bytes_(FORMAT_NAME)
        file.attrs["version"] = np.int64(VERSION)
        file.attrs["spec_digest"] = np.bytes_(spec_digest)
        file.attrs["index_digest"] = np.bytes_(index_digest(spec_digest, levels, total_rows, dict(index)))
        held = {name: _dataset(file, name if name.startswith("digests/") else f"index/{name}", array) for name, array in index.items()}
        rows: dict[str, tuple[np.dtype[Any], tuple[int, ...]]] = {
            "frames": (np.dtype("<i8"), (total_rows, 2)),
            "times": (np.dtype("<f8"), (total_rows, 2)),
            **{LEVELS + level.name: (level.storage, (total_rows, *level.row_shape)) for level in levels},
        }
        reserved = {path: _create(file, path, h5t.py_create(dtype), shape) for path, (dtype, shape) in rows.items()}
        for name, array in index.items():
            held[name].write(h5s.ALL, h5s.ALL, array, held[name].get_type())
        regions = [_reserve(reserved[path], path, dtype, shape) for path, (dtype, shape) in rows.items()]
        file.flush()
        end = Region(file.id.get_filesize(), 0, "")
    return image, [*sorted(regions, key=lambda region: region.offset), end]


def _dataset(file: h5py.File, path: str, array: np.ndarray) -> h5d.DatasetID:
    if path == "index/id":
        kind = h5t.py_create(h5py.string_dtype("utf-8", array.shape[1]))
        return _create(file, path, kind, array.shape[:1])
    return _create(file, path, h5t.py_create(array.dtype), array.shape)


def _create(file: h5py.File, path: str, kind: h5t.TypeID, shape: tuple[int, ...]) -> h5d.DatasetID:
    """A contiguous dataset, which gets its place in the file by the first write: after HDF5's own of all datasets."""
    properties = h5p.create(h5p.DATASET_CREATE)
    properties.set_layout(h5d.CONTIGUOUS)
    properties.set_alloc_time(h5d.ALLOC_TIME_LATE)
    properties.set_fill_time(h5d.FILL_TIME_NEVER)
    properties.set_obj_track_times(False)
    group, _, name = path.rpartition("/")
    parent = file.require_group(group).id if group else file.id
    return h5d.create(parent, name.encode(), kind, h5s.create_simple(shape), properties)


def _reserve(dataset: h5d.DatasetID, path: str, dtype: np.dtype[Any], shape: tuple[int, ...]) -> Region:
    """Give a dataset its place: by writing one number, which the rows overwrite."""
    one = (1,) * len(shape)
    chosen = dataset.get_space()
    chosen.select_hyperslab((0,) * len(shape), one)
    dataset.write(h5s.create_simple(one), chosen, np.zeros(one, dtype))
    return Region(dataset.get_offset(), math.prod(shape) * dtype.itemsize, path)
