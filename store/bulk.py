"""Many videos into one array: planned from the index alone, then copied block by block, each video's digest taken of the copy."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, TypeVar

import numpy as np

from store.bulk_copy import Copy
from store.bulk_plan import Plan
from store.errors import FeatureError, MissingFeaturesError, StoreError
from store.layout import Level, video_digest

if TYPE_CHECKING:
    import torch

    from store.features import FeatureStore

T = TypeVar("T")

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
        self.plan = Plan.make(store, self.level, ids)

    def __len__(self) -> int:
        return len(self.plan)

    @property
    def counts(self) -> np.ndarray:
        """Number of rows of each video of the list, int64 [V]."""
        return self.plan.counts

    def id(self, video: int) -> str:
        """Id of the video at a position of the list."""
        return self.plan.id(video)

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
        does not fit, values that ``dtype`` cannot hold, and positions that are no whole numbers (a mask, say).
        """
        if order not in ("ids", "storage") or threads < 0:
            raise FeatureError(f"order is {order!r} and threads {threads}; order is 'ids' or 'storage', threads 0 or more")
        videos = np.arange(len(self)) if chosen is None else _positions(chosen, len(self))
        return self._retried(lambda plan: self._read(plan, videos, out, dtype, check, order, spans, threads or _threads()))

    def one(self, video: int, check: bool = True, rows: np.ndarray | None = None) -> np.ndarray:
        """The rows [N, ...] of the video at one position of the list, as stored, copied; errors as of ``read``.

        ``rows`` int [n]: only these of the video's rows; the digest, which is one of all rows, costs reading all of them.
        """
        if not 0 <= video < len(self):
            raise IndexError(f"position {video} of a list of {len(self)} videos")
        if rows is not None and len(rows) and not 0 <= rows.min() <= rows.max() < self.counts[video]:
            raise IndexError(f"rows {rows.min()} to {rows.max()} of a video of {self.counts[video]} rows")
        return self._retried(lambda plan: _read_one(plan, video, check, rows))

    def _read(
        self,
        plan: Plan,
        videos: np.ndarray,
        out: np.ndarray | None,
        dtype: str | None,
        check: bool,
        order: Order,
        spans: bool,
        threads: int,
    ) -> Rows:
        counts = plan.counts[videos]
        on_disk = np.lexsort((plan.first[videos], plan.shard[videos]))
        starts = _starts(counts, on_disk if order == "storage" else None)
        total = int(counts.sum())
        rows = Rows(self.level.name, self._target(out, dtype, total), starts, counts)
        if spans:
            rows = replace(rows, frames=np.empty((total, 2), "<i8"), times=np.empty((total, 2), "<f8"))
        if len(videos):
            Copy(plan, rows, videos[on_disk], starts[on_disk], check).run(threads)
        return rows

    def _retried(self, read: Callable[[Plan], T]) -> T:
        """Read by the plan; by a new one when shards have been merged into others since."""
        from store.features import FeatureStore

        for _ in range(TRIES):
            plan = self.plan
            try:
                return read(plan)
            except FileNotFoundError:
                ids = [plan.id(video) for video in range(len(plan))]
            with suppress(FileNotFoundError):
                self.plan = Plan.make(FeatureStore.open(self.path), self.level, ids)
        raise StoreError(f"{self.path}: shards vanish faster than they can be read")

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


def _read_one(plan: Plan, video: int, check: bool, rows: np.ndarray | None) -> np.ndarray:
    arrays, level = plan.arrays(int(plan.shard[video])), plan.level
    span = slice(int(plan.first[video]), int(plan.first[video] + plan.counts[video]))
    if rows is not None and not check:
        return np.asarray(arrays.values[level.name][span][rows])
    values: np.ndarray = arrays.values[level.name][span].copy()
    if check:
        found = video_digest(plan.encoded_id(video), plan.encoded_level, values, arrays.frames[span], arrays.times[span])
        if found != arrays.digests[level.name][plan.position[video]].tobytes():
            raise plan.damage([video])
    return values if rows is None else values[rows]


def _positions(chosen: np.ndarray | Sequence[int], videos: int) -> np.ndarray:
    """Positions int64 [V]; a mask taken for positions would quietly read the first two videos again and again."""
    found = np.asarray(chosen)
    if found.ndim > 1 or (found.size and found.dtype.kind not in "iu"):
        raise FeatureError(
            f"chosen is {found.dtype} {list(found.shape)}; give positions in the list, whole numbers (a mask: np.flatnonzero)"
        )
    found = found.astype(np.int64).reshape(-1)
    if len(found) and not 0 <= found.min() <= found.max() < videos:
        raise IndexError(f"positions {found.min()} to {found.max()} of a list of {videos} videos")
    return found


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
