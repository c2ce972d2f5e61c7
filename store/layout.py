"""What a shard holds: features, the layout of a level, and the two digests (docs/format.md is normative)."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xxhash

from store.errors import FeatureError
from store.files import safe_name

FORMAT_NAME = "actioncache-shard"
VERSION = 1
DTYPES = {"float16": "<f2", "float32": "<f4"}  # as the user says it -> as the digests and HDF5 spell it
MAX_LEVELS = 64
MAX_ROW_DIMENSIONS = 8
MAX_ID_BYTES = 4096


@dataclass(frozen=True, eq=False)
class Features:
    """The features of one video: ``values`` {level: [N, ...] float16 or float32}, ``frames`` int64 [N, 2], ``times`` float64 [N, 2].

    Row n speaks of frames ``frames[n, 0]`` up to, not including, ``frames[n, 1]``, and of the seconds ``times[n, 0]`` to ``times[n, 1]``.
    """

    values: dict[str, np.ndarray]
    frames: np.ndarray
    times: np.ndarray

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True)
class Level:
    """Name, type ("float16" or "float32") and shape of one row of a level."""

    name: str
    dtype: str
    row_shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.name} {self.dtype} [N{''.join(f', {side}' for side in self.row_shape)}]"

    @property
    def storage(self) -> np.dtype[Any]:
        """The little-endian numpy type of the bytes on disk."""
        return np.dtype(DTYPES[self.dtype])

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        count = 1
        for side in self.row_shape:
            count *= side
        return count * self.storage.itemsize

    def encoded(self) -> bytes:
        """The level's part of both digests: u32 length, name, "<f2" or "<f4", u32 number of row dimensions, u64 each."""
        name, sides = self.name.encode(), self.row_shape
        return struct.pack("<I", len(name)) + name + DTYPES[self.dtype].encode() + struct.pack(f"<I{len(sides)}Q", len(sides), *sides)


def encode_id(video_id: str) -> bytes:
    """UTF-8 of a video's id; one that a shard cannot hold raises ``FeatureError``."""
    try:
        encoded = video_id.encode()
    except UnicodeEncodeError:
        raise FeatureError(
            f"video id {video_id!r} is not valid Unicode (a file name that is not UTF-8?); give the video another id"
        ) from None
    if not encoded or b"\0" in encoded or len(encoded) > MAX_ID_BYTES:
        raise FeatureError(f"video id {video_id[:80]!r} has {len(encoded)} bytes; it must have 1 to {MAX_ID_BYTES}, none of them NUL")
    return encoded


def digest_prefix(encoded_id: bytes, level: bytes, rows: int) -> bytes:
    """What a video's digest covers before its arrays: whose rows, of which level, how many."""
    return struct.pack("<I", len(encoded_id)) + encoded_id + level + struct.pack("<Q", rows)


def video_digest(encoded_id: bytes, level: bytes, rows: np.ndarray, frames: np.ndarray, times: np.ndarray) -> bytes:
    """XXH3-128 (16 bytes, canonical order) of one video's one level: who, what, where in time, and every value.

    ``level`` is ``Level.encoded()``; the arrays are C-contiguous and little-endian.
    """
    state = xxhash.xxh3_128(digest_prefix(encoded_id, level, len(rows)))
    state.update(frames.data)
    state.update(times.data)
    state.update(rows.data)
    digest: bytes = state.digest()
    return digest


def index_digest(spec_digest: str, levels: Sequence[Level], total_rows: int, index: dict[str, np.ndarray]) -> str:
    """XXH3-128 (32 hexadecimal digits) of everything that a reader believes before it reads a video.

    ``index`` holds ``id`` uint8 [V, itemsize], ``first`` and ``rows`` int64 [V], and per level uint8 [V, 16] under ``digests/<level>``.
    """
    ordered = sorted(levels, key=lambda level: level.name.encode())
    videos, id_bytes = index["id"].shape
    state = xxhash.xxh3_128(spec_digest.encode() + struct.pack("<QQII", videos, total_rows, id_bytes, len(ordered)))
    for level in ordered:
        state.update(level.encoded())
    for name in ("id", "first", "rows", *(f"digests/{level.name}" for level in ordered)):
        state.update(np.ascontiguousarray(index[name]).data)
    hexadecimal: str = state.hexdigest()
    return hexadecimal


def checked(video_id: str, features: Features) -> Features:
    """Return a private, contiguous, little-endian copy of ``features``; anything that must not be stored raises ``FeatureError``.

    Refused: no level, no row, levels of different length, other types than float16 and float32, NaN and Inf, bad spans.
    """
    frames, times = _checked_spans(video_id, features)
    if not 1 <= len(features.values) <= MAX_LEVELS:
        raise FeatureError(f"{video_id}: {len(features.values)} levels; a shard holds 1 to {MAX_LEVELS}")
    values = {name: _checked_rows(video_id, safe_name(name, "level"), array, len(frames)) for name, array in features.values.items()}
    return Features(values, frames, times)


def levels_of(features: Features) -> dict[str, Level]:
    """The layout of features that passed ``checked``."""
    return {name: Level(name, _dtype_name(array.dtype), array.shape[1:]) for name, array in features.values.items()}


@lru_cache(64)
def _dtype_name(dtype: np.dtype[Any]) -> str:
    """``dtype.name``, which numpy puts together anew each time; it took a quarter of adding a video."""
    return dtype.name


def _checked_spans(video_id: str, features: Features) -> tuple[np.ndarray, np.ndarray]:
    for name, kind in (("frames", np.int64), ("times", np.float64)):
        array = getattr(features, name)
        if not isinstance(array, np.ndarray) or array.dtype != kind or array.ndim != 2 or array.shape[1] != 2:
            raise FeatureError(f"{video_id}: {name} is {_describe(array)}; it must be {np.dtype(kind)} [N, 2]")
    frames, times = np.array(features.frames, "<i8", order="C"), np.array(features.times, "<f8", order="C")
    if not len(frames) or len(frames) != len(times):
        raise FeatureError(f"{video_id}: {len(frames)} rows of frames and {len(times)} of times; there must be equally many, at least one")
    if not np.isfinite(times).all():
        raise FeatureError(f"{video_id}: times of row {int(np.argwhere(~np.isfinite(times))[0, 0])} are NaN or Inf")
    wrong = np.flatnonzero((frames[:, 0] < 0) | (frames[:, 1] < frames[:, 0]))
    if len(wrong):
        raise FeatureError(f"{video_id}: frames of row {wrong[0]} are {frames[wrong[0]].tolist()}; they must be 0 <= first <= end")
    return frames, times


def _checked_rows(video_id: str, level: str, array: np.ndarray, rows: int) -> np.ndarray:
    if not isinstance(array, np.ndarray) or _dtype_name(array.dtype) not in DTYPES or array.ndim < 1:
        raise FeatureError(f"{video_id}, level {level}: {_describe(array)}; features are arrays [N, ...] of float16 or float32")
    if len(array) != rows:
        raise FeatureError(f"{video_id}, level {level}: {len(array)} rows, but frames and times have {rows}")
    if not array.size or array.ndim > MAX_ROW_DIMENSIONS + 1:
        raise FeatureError(
            f"{video_id}, level {level}: shape {list(array.shape)}; rows have 0 to {MAX_ROW_DIMENSIONS} dimensions, none empty"
        )
    copy = np.array(array, DTYPES[_dtype_name(array.dtype)], order="C")
    if not all_finite(copy):
        finite = np.isfinite(copy)
        place = np.argwhere(~finite)[0]
        raise FeatureError(
            f"{video_id}, level {level}, row {place[0]}: {copy[tuple(place)]} among {int((~finite).sum())} values that are not finite; "
            "such features are never stored (look at the video, the weights, or use --precision fp32 and --dtype float32)"
        )
    return copy


def all_finite(array: np.ndarray) -> bool:
    """``np.isfinite(array).all()`` of a contiguous, little-endian float16 or float32 array; for float16 by its bits, which is faster."""
    if array.dtype == np.float16:
        return bool((array.view("<u2") & 0x7FFF).max() < 0x7C00)
    return bool(np.isfinite(array).all())


def _describe(array: object) -> str:
    return f"{array.dtype} {list(array.shape)}" if isinstance(array, np.ndarray) else f"a {type(array).__name__}"
