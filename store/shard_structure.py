"""Where everything lies inside a shard, asked of HDF5 without reading, and trusted only as far as the file's size goes."""

import errno
import os
import stat
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from h5py import h5a, h5d, h5f, h5g, h5l, h5o, h5p, h5s, h5t

from store.errors import DamagedShardError, SpecMismatchError, StoreError
from store.files import safe_name
from store.hdf5_guard import Guard, Refused
from store.layout import FORMAT_NAME, MAX_ID_BYTES, MAX_LEVELS, MAX_ROW_DIMENSIONS, VERSION, Level

HDF5_ERRORS = (OSError, RuntimeError, ValueError, KeyError, TypeError, OverflowError, AttributeError, MemoryError)
_PASSING = (errno.EACCES, errno.EPERM, errno.EIO, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ETIMEDOUT)
_MAX_ATTRIBUTE_BYTES = 64
_SHOWN_BYTES = 200  # of a level's name, more than one may have
_TYPES = {
    "<f2": h5t.IEEE_F16LE,
    "<f4": h5t.IEEE_F32LE,
    "<f8": h5t.IEEE_F64LE,
    "<i8": h5t.STD_I64LE,
    "|u1": h5t.STD_U8LE,
}


@dataclass(frozen=True)
class Place:
    """A contiguous array in a file: byte offset, numpy type string, shape."""

    offset: int
    dtype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Structure:
    """Offsets, types and shapes of a shard whose parts all lie inside a file of ``size`` bytes."""

    size: int
    index_digest: str
    levels: tuple[Level, ...]
    id: Place  # uint8 [V, bytes of the longest id]
    first: Place
    rows: Place
    frames: Place
    times: Place
    values: dict[str, Place]
    digests: dict[str, Place]

    @property
    def videos(self) -> int:
        """Videos in the index."""
        return self.first.shape[0]

    @property
    def total_rows(self) -> int:
        """Rows of every level."""
        return self.frames.shape[0]


def read_structure(path: Path, spec_digest: str) -> Structure:
    """Ask HDF5 for the layout of a shard of the store ``spec_digest``, and check it against the format and the file's size.

    Raises ``DamagedShardError``, ``SpecMismatchError``, ``StoreError`` (cannot be read here and now, or newer format),
    ``FileNotFoundError``.
    """
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 - a store has thousands of shards, and this is three times as fast
            raise Refused("it is not a regular file")
        descriptor = os.open(path, os.O_RDONLY)
        try:
            return _structure(path, Guard(descriptor, os.fstat(descriptor).st_size), spec_digest)
        finally:
            os.close(descriptor)
    except Refused as reason:
        raise DamagedShardError(f"{path} is not a usable shard: {reason}") from None
    except HDF5_ERRORS as error:
        raise_gone(path, error)
        if isinstance(error, OSError) and error.errno in _PASSING:
            raise StoreError(f"{path} cannot be read: {os.strerror(error.errno or 0)}") from None
        raise DamagedShardError(f"{path} is not a usable shard: HDF5 says {str(error).strip() or type(error).__name__}") from None


def raise_gone(path: Path, error: Exception) -> None:
    """Raise ``FileNotFoundError`` where ``error`` says that there is no such file any more: so does ESTALE, by which a network disk tells
    that another client has removed it."""
    if isinstance(error, FileNotFoundError):
        raise error
    if isinstance(error, OSError) and error.errno == errno.ESTALE:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None


def _structure(path: Path, guard: Guard, spec_digest: str) -> Structure:
    guard.group(guard.superblock(), attributes=True)
    file = h5f.open(os.fsencode(path), h5f.ACC_RDONLY, fapl=_access())
    try:
        _check_header(path, file, spec_digest)
        return _Reader(file, guard).structure()
    except BaseException:
        file.close()  # an error keeps what it passed through alive; without one, letting go of the file closes it, which is faster
        raise


@cache
def _access() -> Any:
    properties = h5p.create(h5p.FILE_ACCESS)
    properties.set_fclose_degree(h5f.CLOSE_STRONG)
    properties.set_file_locking(False, True)
    return properties


def _check_header(path: Path, file: Any, spec_digest: str) -> None:
    name = _text_attribute(file, "format")
    if name != FORMAT_NAME:
        raise Refused(f"its attribute format is {name!r}, not {FORMAT_NAME!r}")
    version = _attribute(file, "version", h5t.INTEGER)
    if version != VERSION:
        raise StoreError(f"{path} has shard format {version}; this version of actioncache reads format {VERSION}: use a newer one")
    found = _text_attribute(file, "spec_digest")
    if found != spec_digest:
        raise SpecMismatchError(
            f"{path} belongs to another store: it was written for spec {found[:12]}, this store's is {spec_digest[:12]}; "
            "move it where it belongs, or run `actioncache store repair`"
        )


def _text_attribute(file: Any, name: str) -> str:
    text: bytes = _attribute(file, name, h5t.STRING)
    return text.decode("ascii")


def _attribute(file: Any, name: str, kind: int) -> Any:
    if not h5a.exists(file, name.encode()):
        raise Refused(f"it has no attribute {name}")
    attribute = h5a.open(file, name.encode())
    held = attribute.get_type()
    fits = (
        held.get_class() == kind
        and held.get_size() <= _MAX_ATTRIBUTE_BYTES
        and attribute.get_space().get_simple_extent_type() == h5s.SCALAR
    )
    if not fits or (kind == h5t.STRING and held.is_variable_str()):
        raise Refused(f"its attribute {name} is not a scalar {'integer' if kind == h5t.INTEGER else 'fixed-length string'}")
    if kind == h5t.INTEGER:
        number = np.zeros((), np.int64)
        attribute.read(number)
        return int(number)
    text = np.zeros((), f"S{held.get_size()}")
    attribute.read(text, held)
    found = bytes(text[()]).split(b"\0")[0]
    return found.rstrip(b" ") if held.get_strpad() == h5t.STR_SPACEPAD else found


class _Reader:
    """Walks an open file; every member is reached by hard links and lies inside ``size`` bytes."""

    def __init__(self, file: Any, guard: Guard) -> None:
        self.file, self.guard, self.size = file, guard, guard.size

    def structure(self) -> Structure:
        """The whole layout."""
        index, values, digests = (self.member(self.file, name, h5g.GroupID) for name in ("index", "levels", "digests"))
        names = _names(values)
        if names != _names(digests):
            raise Refused(f"it has levels {names} but digests of {_names(digests)}")
        first = self.place(index, "first", ("<i8",), 1)
        videos = first.shape[0]
        frames = self.place(self.file, "frames", ("<i8",), 2)
        total = frames.shape[0]
        held = {name: self.place(values, name, ("<f2", "<f4"), None) for name in names}
        structure = Structure(
            self.size,
            _text_attribute(self.file, "index_digest"),
            tuple(_level(name, place) for name, place in held.items()),
            self.id_place(index),
            first,
            self.place(index, "rows", ("<i8",), 1),
            frames,
            self.place(self.file, "times", ("<f8",), 2),
            held,
            {name: self.place(digests, name, ("|u1",), 2) for name in names},
        )
        _check_shapes(structure, videos, total)
        return structure

    def member(self, group: Any, name: str, kind: type) -> Any:
        """A group or dataset, reached by a hard link only."""
        encoded = name.encode()
        try:
            link = group.links.get_info(encoded)
        except HDF5_ERRORS:
            if group.links.exists(encoded):
                raise
            raise Refused(f"it has no {name}") from None
        if link.type != h5l.TYPE_HARD:
            raise Refused(f"{name} is a link to elsewhere")
        found = h5o.open(group, encoded)
        if not isinstance(found, kind):
            raise Refused(f"{name} is not a {'group' if kind is h5g.GroupID else 'dataset'}")
        if kind is h5g.GroupID:
            self.guard.group(link.u)
        return found

    def place(self, group: Any, name: str, types: tuple[str, ...], dimensions: int | None) -> Place:
        """Where a numeric dataset lies."""
        dataset = self.member(group, name, h5d.DatasetID)
        held = dataset.get_type()
        dtype = next((text for text in types if held == _TYPES[text]), None)
        if dtype is None:
            raise Refused(f"{name} has another type than {' or '.join(types)}")
        return self.contiguous(dataset, name, dtype, np.dtype(dtype).itemsize, dimensions)

    def id_place(self, index: Any) -> Place:
        """Where the ids lie, as bytes [V, width]."""
        dataset = self.member(index, "id", h5d.DatasetID)
        held = dataset.get_type()
        if held.get_class() != h5t.STRING or held.is_variable_str() or held.get_strpad() == h5t.STR_SPACEPAD:
            raise Refused("index/id is not of fixed-length, NUL-padded strings")
        width = held.get_size()
        if not 1 <= width <= MAX_ID_BYTES:
            raise Refused(f"ids are {width} bytes wide; 1 to {MAX_ID_BYTES} are allowed")
        place = self.contiguous(dataset, "id", "|u1", width, 1)
        return Place(place.offset, "|u1", (*place.shape, width))

    def contiguous(self, dataset: Any, name: str, dtype: str, item_bytes: int, dimensions: int | None) -> Place:
        """Check storage, shape and position of a dataset."""
        offset = dataset.get_offset()
        if offset is None and not _is_plain(dataset):
            raise Refused(f"{name} is not stored contiguously, uncompressed and inside the file")
        space = dataset.get_space()
        if space.get_simple_extent_type() != h5s.SIMPLE:
            raise Refused(f"{name} is not an array")
        shape = space.get_simple_extent_dims()
        if (dimensions is not None and len(shape) != dimensions) or min(shape) < 1:
            raise Refused(f"{name} has shape {list(shape)}")
        count = item_bytes
        for side in shape:
            count *= side
        if offset is None or not 0 < offset <= self.size - count:
            raise Refused(f"{name} claims {count} bytes at {offset} of a file of {self.size} bytes")
        return Place(int(offset), dtype, shape)


def _is_plain(dataset: Any) -> bool:
    """Whether a dataset is contiguous, unfiltered and not external. HDF5 gives no others an offset; one that has an offset need not ask."""
    properties = dataset.get_create_plist()
    return properties.get_layout() == h5d.CONTIGUOUS and not properties.get_external_count() and not properties.get_nfilters()


def _names(group: Any) -> list[str]:
    count = group.get_num_objs()
    if not 1 <= count <= MAX_LEVELS:
        raise Refused(f"it has {count} levels; 1 to {MAX_LEVELS} are allowed")
    try:
        names: list[bytes] = []
        group.links.iterate(names.append)
        return sorted(safe_name(name[:_SHOWN_BYTES].decode(), "level") for name in names)
    except (StoreError, UnicodeDecodeError) as error:
        raise Refused(str(error)) from None


def _level(name: str, place: Place) -> Level:
    if len(place.shape) > MAX_ROW_DIMENSIONS + 1:
        raise Refused(f"level {name} has {len(place.shape)} dimensions")
    return Level(name, np.dtype(place.dtype).name, place.shape[1:])


def _check_shapes(structure: Structure, videos: int, total: int) -> None:
    wanted = [("rows", structure.rows, (videos,)), ("frames", structure.frames, (total, 2)), ("times", structure.times, (total, 2))]
    wanted += [(f"digests/{name}", place, (videos, 16)) for name, place in structure.digests.items()]
    wanted += [(f"levels/{name}", place, (total, *place.shape[1:])) for name, place in structure.values.items()]
    wanted.append(("id", structure.id, (videos, structure.id.shape[1])))
    for name, place, shape in wanted:
        if place.shape != shape:
            raise Refused(f"{name} has shape {list(place.shape)} where {list(shape)} is needed")
