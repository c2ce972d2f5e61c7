"""Many videos into one array: planned from the index alone, then copied block by block, each video's digest taken of the copy."""

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from store.arrays import Arrays, mapped
from store.bulk_copy import SHOWN, Copy
from store.errors import DamagedShardError, FeatureError, MissingFeaturesError, StoreError
from store.layout import Level, digest_prefix, encode_id, video_digest
from store.shard import ADVICE

if TYPE_CHECKING:
    import torch

    from store.features import FeatureStore
    from store.shard_structure import Structure

MAX_THREADS = 4  # more do not make memory faster
TRIES = 8  # looks at a store whose shards are being merged
Order = Literal["ids", "storage"]


@dataclass(frozen=True, eq=False)
class Rows:
    """One level of many videos in one array: video v owns rows ``starts[v]`` to ``starts[v] + counts[v]``.

    ``values`` [R, ...]; ``starts`` and ``counts`` int64 [V]; where asked for, ``frames`` int64 [R, 2] and ``times`` float64 [R, 2] as in
    ``Features``.
    """

    level: str
    values: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    frames: np.ndarray | None = None
    times: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.counts)

    def of(self, video: int) -> np.ndarray:
        """The rows of the video at position ``video`` of what was asked for, [N, ...]; a view."""
        return self.values[self.starts[video] : self.starts[video] + self.counts[video]]

    def tensor(self) -> "torch.Tensor":
        """``values`` as a torch tensor that shares their memory."""
        import torch

        return torch.from_numpy(self.values)


class RowReader:
    """Reads one level of a fixed list of videos, all of them or some at a time. Picklable; safe under fork and spawn, and with threads.

    It holds no Python object a video, only arrays, so that workers which share it by fork do not copy its pages bit by bit. When a shard
    has been compacted away since, it looks where the videos are now.
    """

    def __init__(self, store: "FeatureStore", ids: Sequence[str], level: str | None = None) -> None:
        """Plan the reading of ``ids`` (any order, repeats allowed) from the index; no feature is touched.

        Raises ``MissingFeaturesError`` for videos that the store lacks (all of them counted, some named) and for an unknown level.
        """
        self.path = store.path
        self.level = _chosen_level(store, level)
        self._encoded_level = self.level.encoded()
        self._find(store, ids)

    def __len__(self) -> int:
        return len(self.counts)

    def id(self, video: int) -> str:
        """Id of the video at a position of the list."""
        return self._encoded_id(video).decode()

    def read(
        self,
        chosen: np.ndarray | Sequence[int] | None = None,
        out: np.ndarray | None = None,
        dtype: str | None = None,
        check: bool = True,
        order: Order = "ids",
        spans: bool = False,
        threads: int = 0,
    ) -> Rows:
        """Read the videos at positions ``chosen`` int [V] of the list (default: all) into one array.

        ``out`` [R, ...] (C-contiguous, R rows exactly) takes the values, else a new array of ``dtype`` ("float16", "float32"; default: as
        stored) does. ``order="storage"`` lays the videos out as they lie on the disk, which is fastest; ``starts`` says where each one is.
        ``spans`` also gives frames and times. ``check=False`` leaves the digests out. ``threads`` 0 takes one a processor, at most 4.

        Raises ``DamagedShardError`` naming every video whose bytes are not the ones that were written, ``FeatureError`` for an ``out`` that
        does not fit or values that ``dtype`` cannot hold.
        """
        videos = np.arange(len(self)) if chosen is None else np.asarray(chosen, dtype=np.int64).reshape(-1)
        if len(videos) and not 0 <= videos.min() <= videos.max() < len(self):
            raise IndexError(f"positions {videos.min()} to {videos.max()} of a list of {len(self)} videos")
        maps = self._maps(videos)  # first, because it may find that everything has moved
        counts = self.counts[videos]
        on_disk = np.lexsort((self.first[videos], self.shard[videos]))
        starts = _starts(counts, on_disk if order == "storage" else None)
        total = int(counts.sum())
        rows = Rows(self.level.name, self._target(out, dtype, total), starts, counts)
        if spans:
            rows = replace(rows, frames=np.empty((total, 2), "<i8"), times=np.empty((total, 2), "<f8"))
        if len(videos):
            Copy(self, rows, videos[on_disk], starts[on_disk], maps, check).run(threads or _threads())
        return rows

    def one(self, video: int, check: bool = True) -> np.ndarray:
        """The rows [N, ...] of the video at one position of the list, as stored, copied; errors as of ``read``."""
        if not 0 <= video < len(self):
            raise IndexError(f"position {video} of a list of {len(self)} videos")
        (arrays,) = self._maps(np.array([video])).values()
        span = slice(int(self.first[video]), int(self.first[video] + self.counts[video]))
        values: np.ndarray = arrays.values[self.level.name][span].copy()
        if check:
            found = video_digest(self._encoded_id(video), self._encoded_level, values, arrays.frames[span], arrays.times[span])
            if found != arrays.digests[self.level.name][self.position[video]].tobytes():
                raise self.damage([video])
        return values

    def damage(self, videos: Sequence[int]) -> DamagedShardError:
        """The error that names these videos and their shards."""
        names = [f"video {self.id(video)!r} of {self._shards[self.shard[video]][0]}" for video in videos[:SHOWN]]
        more = f" and {len(videos) - SHOWN} more" if len(videos) > SHOWN else ""
        return DamagedShardError(
            f"{self.path}, level {self.level.name}: the bytes of {', '.join(names)}{more} are not the ones that were written; {ADVICE}"
        )

    def _find(self, store: "FeatureStore", ids: Sequence[str]) -> None:
        """Shard, position in it, first row and number of rows of each video, and how its digest begins."""
        shards, self.shard, self.position = store.places(ids)
        self._shards: list[tuple[Path, Structure]] = [(shard.path, shard.structure) for shard in shards]
        self.first, self.counts = np.empty_like(self.position), np.empty_like(self.position)
        for number, (path, structure) in enumerate(self._shards):
            chosen = self.shard == number
            arrays = mapped(path, structure)
            first, counts = arrays.first[self.position[chosen]], arrays.num_rows[self.position[chosen]]
            if ((counts < 1) | (counts > structure.total_rows) | (first < 0) | (first > structure.total_rows - counts)).any():
                raise DamagedShardError(f"{path}: the index has changed since the shard was opened; {ADVICE}")
            self.first[chosen], self.counts[chosen] = first, counts
        prefixes = [digest_prefix(encode_id(name), self._encoded_level, rows) for name, rows in zip(ids, self.counts.tolist(), strict=True)]
        self.prefixes = b"".join(prefixes)
        self.ends = np.cumsum([0, *map(len, prefixes)], dtype=np.int64)

    def _maps(self, videos: np.ndarray) -> dict[int, Arrays]:
        """The maps of all shards that these videos are in; after a compaction, of the shards that they are in now."""
        from store.features import FeatureStore

        for _ in range(TRIES):
            try:
                return {number: mapped(*self._shards[number]) for number in set(self.shard[videos].tolist())}
            except FileNotFoundError:
                self._find(FeatureStore.open(self.path), [self.id(video) for video in range(len(self))])
        raise StoreError(f"{self.path}: shards vanish faster than they can be read")

    def _encoded_id(self, video: int) -> bytes:
        prefix = self.prefixes[self.ends[video] : self.ends[video + 1]]
        return prefix[4 : 4 + int.from_bytes(prefix[:4], "little")]

    def _target(self, out: np.ndarray | None, dtype: str | None, total: int) -> np.ndarray:
        shape = (total, *self.level.row_shape)
        if out is None:
            if dtype not in (None, "float16", "float32"):
                raise FeatureError(f"features cannot be read as {dtype}; choose float16 or float32")
            return np.empty(shape, dtype or self.level.storage)
        fits = isinstance(out, np.ndarray) and out.shape == shape and out.dtype.name in ("float16", "float32", "float64")
        if not fits or not (out.flags.c_contiguous and out.flags.writeable and out.dtype.isnative):
            found = f"{out.dtype} {list(out.shape)}" if isinstance(out, np.ndarray) else f"a {type(out).__name__}"
            raise FeatureError(f"out is {found}; it must be a writable, C-contiguous float array {list(shape)}")
        if dtype is not None and out.dtype != np.dtype(dtype):
            raise FeatureError(f"out is {out.dtype} but dtype is {dtype}; give one of them")
        return out


def _chosen_level(store: "FeatureStore", name: str | None) -> Level:
    known = {level.name: level for level in store.layout}
    if name in known:
        return known[name]
    if name is None and len(known) == 1:
        return next(iter(known.values()))
    has = f"it has {', '.join(known)}" if known else "it holds no features yet"
    raise MissingFeaturesError(f"{store.path}: {'name one level to read' if name is None else f'there is no level {name!r}'}; {has}")


def _starts(counts: np.ndarray, order: np.ndarray | None) -> np.ndarray:
    """First row of each video in the array: one after the other, or in ``order``."""
    if order is None:
        ends: np.ndarray = np.cumsum(counts)
        return ends - counts
    starts = np.empty_like(counts)
    starts[order] = np.cumsum(counts[order]) - counts[order]
    return starts


def _threads() -> int:
    return min(MAX_THREADS, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)
