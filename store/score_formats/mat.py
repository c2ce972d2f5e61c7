"""MATLAB files of versions 5 to 7: a matrix of scores, perhaps a cell array of ids and a vector of labels."""

import math
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import ScoreError
from store.files import atomic_path
from store.score_formats import MAX_BYTES, SCORE_FORMATS, Found, Keys, ScoreFormat, choose, read_bytes, whole_numbers
from store.scores import ScoreTable

_COMPRESSED = 15  # miCOMPRESSED
_NUMBERS = ("double", "single", *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)))


def read(path: Path, keys: Keys) -> Found:
    """The only matrix of numbers, or the one named; ids from a cell array or a matrix of characters."""
    headers = _headers(path)
    looks = {name: f"{kind} {list(shape)}" for name, (shape, kind) in headers.items()}
    fitting = {name: looks[name] for name, (shape, kind) in headers.items() if kind in _NUMBERS and len(shape) == 2 and min(shape) > 1}
    chosen = choose(path, keys.values, fitting, "scores [videos, classes]", "--values", looks)
    wanted = [chosen, *(choose(path, key, {}, "names", flag, looks) for key, flag in _asked(keys))]
    large = [name for name in wanted if math.prod(headers[name][0]) * 8 > MAX_BYTES]
    if large:
        raise ScoreError(f"{path}: {large[0]} claims {looks[large[0]]}, which is more than {MAX_BYTES} bytes")
    arrays = _load(path, wanted)
    if arrays[chosen].ndim != 2 or arrays[chosen].dtype.kind not in "fiu":
        raise ScoreError(f"{path}: {chosen} is {looks[chosen]}; scores are a matrix of numbers, a row a video")
    return Found(
        arrays[chosen],
        _text(path, arrays[keys.ids], keys.ids) if keys.ids else None,
        _text(path, arrays[keys.classes], keys.classes) if keys.classes else None,
        _labels(path, arrays[keys.labels], keys.labels) if keys.labels else None,
        (f"scores are the variable {chosen}",),
    )


def _asked(keys: Keys) -> list[tuple[str, str]]:
    pairs = [(keys.ids, "--ids"), (keys.classes, "--class-key"), (keys.labels, "--labels")]
    return [(key, flag) for key, flag in pairs if key]


def _headers(path: Path) -> dict[str, tuple[tuple[int, ...], str]]:
    from scipy.io import whosmat

    data = read_bytes(path)
    if b"\x89HDF" in (data[:4], data[512:516]):
        raise ScoreError(f"{path} is a MATLAB file of version 7.3; save it in MATLAB with save(..., '-v7')")
    if unpacked_bytes(data) > MAX_BYTES:
        raise ScoreError(f"{path} has more than {MAX_BYTES} bytes unpacked, which is no table of scores")
    try:
        return {name: (tuple(shape), kind) for name, shape, kind in whosmat(str(path))}
    except Exception as error:  # damaged files end in any error of the reader
        raise ScoreError(f"{path} is no MATLAB file that can be read: {type(error).__name__}: {str(error)[:200]}") from None


def unpacked_bytes(data: bytes) -> int:
    """Bytes of all elements of a version 5 file, unpacked, or some number above ``MAX_BYTES``; a damaged end counts for nothing.

    The reader unpacks cell arrays before it knows how much they hold, and a kilobyte can hold a megabyte.
    """
    order = ">" if data[126:128] == b"MI" else "<"
    place, total = 128, 0
    while place + 8 <= len(data) and total <= MAX_BYTES:
        kind, size = struct.unpack(f"{order}II", data[place : place + 8])
        element = data[place + 8 : place + 8 + size]
        total += _inflated(element, MAX_BYTES - total) if kind == _COMPRESSED else len(element)
        place += 8 + size
    return total


def _inflated(packed: bytes, most: int) -> int:
    """Bytes that zlib's data unpacks to; counting stops above ``most``."""
    unpacker, total = zlib.decompressobj(), 0
    try:
        while packed and total <= most:
            total += len(unpacker.decompress(packed, 1 << 20))
            packed = unpacker.unconsumed_tail
    except zlib.error:  # the reader will say so
        pass
    return total


def _load(path: Path, names: list[str]) -> dict[str, Any]:
    from scipy.io import loadmat

    try:
        arrays: dict[str, Any] = loadmat(str(path), variable_names=names)
    except Exception as error:  # as above; MemoryError too: a damaged length can ask for any amount
        raise ScoreError(f"{path} is no MATLAB file that can be read: {type(error).__name__}: {str(error)[:200]}") from None
    if absent := [name for name in names if not isinstance(arrays.get(name), np.ndarray)]:
        raise ScoreError(f"{path}: {absent[0]} cannot be read")
    return arrays


def _text(path: Path, array: np.ndarray, name: str) -> tuple[str, ...]:
    cells = [cell.ravel() if isinstance(cell, np.ndarray) else np.array([cell]) for cell in array.ravel()]
    if any(cell.dtype.kind != "U" or len(cell) != 1 for cell in cells):
        raise ScoreError(f"{path}: {name} is no cell array of text")
    return tuple(str(cell[0]).strip() for cell in cells)


def _labels(path: Path, array: np.ndarray, name: str) -> np.ndarray | tuple[str, ...]:
    if array.dtype.kind in "OU":
        return _text(path, array, name)
    return whole_numbers(path, array, name)


def write(table: ScoreTable, path: Path) -> None:
    """``values``, ``ids`` and ``classes`` as cell arrays, and ``labels`` counted from 1, as MATLAB does."""
    from scipy.io import savemat

    arrays: dict[str, Any] = {"values": table.values.astype(np.float64)}
    arrays |= {"ids": np.array(table.ids, object)[:, None], "classes": np.array(table.classes, object)[:, None]}
    if table.labels is not None:
        arrays["labels"] = table.labels[:, None] + 1
    with atomic_path(path) as aside, aside.open("wb") as file:
        savemat(file, arrays, do_compression=True)


SCORE_FORMATS.register("mat")(ScoreFormat("MATLAB, versions 5 to 7: a matrix, cell arrays of names", (".mat",), read, write))
