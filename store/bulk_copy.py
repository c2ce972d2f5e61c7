"""The copying behind ``store.bulk``: blocks small enough that the copy is still in the cache when its digests are taken."""

import itertools
import sys
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import numpy as np
import xxhash

from store.arrays import Arrays
from store.bulk_plan import SHOWN, Plan
from store.errors import DamagedShardError, FeatureError
from store.layout import all_finite

if TYPE_CHECKING:
    from store.bulk import Rows

BLOCK_BYTES = 3 << 20  # and large enough for memcpy's streaming stores
DIGEST_BYTES = SPAN_BYTES = 16


class Copy:
    """One reading: the videos in the order of the disk, in blocks of one shard; runs that lie together on both sides are copied at once."""

    def __init__(self, plan: Plan, rows: "Rows", videos: np.ndarray, starts: np.ndarray, check: bool) -> None:
        self.plan, self.rows, self.check = plan, rows, check
        self.level, self.row_bytes = plan.level.name, plan.level.row_bytes
        self.videos, self.starts, self.counts = videos, starts, plan.counts[videos]
        self.shard, self.first, self.position = plan.shard[videos], plan.first[videos], plan.position[videos]
        self.apart = (self.first[1:] != (self.first + self.counts)[:-1]) | (starts[1:] != (starts + self.counts)[:-1])
        self.casts = rows.values.dtype != plan.level.storage
        self.bad: list[int] = []
        self.lossy: list[int] = []

    def run(self, threads: int) -> None:
        """Copy everything; raises one error for all that is wrong, ``FileNotFoundError`` when a shard has been merged away."""
        blocks = self._blocks()
        threads = min(threads, len(blocks))
        if threads == 1:
            self._copy(blocks)
        else:
            shares = [blocks[turn * len(blocks) // threads : (turn + 1) * len(blocks) // threads] for turn in range(threads)]
            with ThreadPoolExecutor(threads) as pool:  # numpy copies without the interpreter's lock
                list(pool.map(self._copy, shares))
        if self.bad:
            raise self.plan.damage(sorted(self.bad))
        if self.lossy:
            names = ", ".join(repr(self.plan.id(video)) for video in sorted(self.lossy)[:SHOWN])
            raise FeatureError(f"{self.plan.path}: {len(self.lossy)} videos have values beyond {self.rows.values.dtype}: {names}")

    def _blocks(self) -> list[tuple[int, int]]:
        """[low, high) ranges of videos of one shard, of about BLOCK_BYTES."""
        size = np.cumsum(self.counts) * self.row_bytes // BLOCK_BYTES
        cuts = np.flatnonzero((self.shard[1:] != self.shard[:-1]) | (size[1:] != size[:-1])) + 1
        return list(itertools.pairwise([0, *cuts.tolist(), len(self.videos)]))

    def _copy(self, blocks: list[tuple[int, int]]) -> None:
        scratch = np.empty((0, *self.plan.level.row_shape), self.plan.level.storage)
        for low, high in blocks:
            try:
                arrays = self.plan.arrays(int(self.shard[low]))  # as few maps at once as there are threads
            except DamagedShardError:
                self.bad += self.videos[low:high].tolist()
                continue
            copy, at = self.rows.values, self.starts[low:high]
            if self.casts:
                ends = np.cumsum(self.counts[low:high])
                at = ends - self.counts[low:high]
                copy = scratch = scratch if len(scratch) >= ends[-1] else np.empty((int(ends[-1]), *scratch.shape[1:]), scratch.dtype)
            self._copy_runs(arrays, low, high, copy, at)
            if self.check:
                self._check(arrays, low, high, copy, at)
            if self.casts:
                self._cast(low, high, copy, at)

    def _copy_runs(self, arrays: Arrays, low: int, high: int, copy: np.ndarray, at: np.ndarray) -> None:
        """Copy a block's videos: row ``at[n]`` of ``copy`` and on for the n-th, runs of neighbours at once."""
        cuts = np.flatnonzero(self.apart[low : high - 1]) + 1
        for start, end in itertools.pairwise([0, *cuts.tolist(), high - low]):
            source = int(self.first[low + start])
            rows = int(self.first[low + end - 1] + self.counts[low + end - 1]) - source
            target = int(at[start])
            copy[target : target + rows] = arrays.values[self.level][source : source + rows]
            if self.rows.frames is not None and self.rows.times is not None:
                target = int(self.starts[low + start])
                self.rows.frames[target : target + rows] = arrays.frames[source : source + rows]
                self.rows.times[target : target + rows] = arrays.times[source : source + rows]

    def _check(self, arrays: Arrays, low: int, high: int, copy: np.ndarray, at: np.ndarray) -> None:
        """Take the digest of each video of a block, of the copy. Every operation of the loop costs a percent of the speed."""
        digest, prefixes, row_bytes = xxhash.xxh3_128, memoryview(self.plan.prefixes), self.row_bytes
        spans, span_rows = (arrays.frames, arrays.times), self.first[low:high]
        if self.rows.frames is not None and self.rows.times is not None:
            spans, span_rows = (self.rows.frames, self.rows.times), self.starts[low:high]
        frames, times, values = (array.reshape(-1).view(np.uint8).data for array in (*spans, copy))
        wanted = arrays.digests[self.level][self.position[low:high]].tobytes()
        videos, digest_at = self.videos[low:high], 0
        for prefix, prefix_end, span, value, count in zip(
            self.plan.ends[videos].tolist(),
            self.plan.ends[videos + 1].tolist(),
            (span_rows * SPAN_BYTES).tolist(),
            (at * row_bytes).tolist(),
            self.counts[low:high].tolist(),
            strict=True,
        ):
            span_end = span + count * SPAN_BYTES
            state = digest(prefixes[prefix:prefix_end])
            state.update(frames[span:span_end])
            state.update(times[span:span_end])
            state.update(values[value : value + count * row_bytes])
            if state.digest() != wanted[digest_at : digest_at + DIGEST_BYTES]:
                self.bad.append(int(videos[digest_at // DIGEST_BYTES]))
            digest_at += DIGEST_BYTES

    def _cast(self, low: int, high: int, found: np.ndarray, at: np.ndarray) -> None:
        """Put a block's videos into the array as its type, by the same runs."""
        cuts = np.flatnonzero(self.apart[low : high - 1]) + 1
        for start, end in itertools.pairwise([0, *cuts.tolist(), high - low]):
            rows, target = int(self.counts[low + start : low + end].sum()), int(self.starts[low + start])
            block = self.rows.values[target : target + rows]
            cast(found[at[start] : at[start] + rows], block)
            if block.itemsize < found.itemsize and not all_finite(block):
                broken = ~np.isfinite(block.reshape(rows, -1)).all(1)
                ends = np.cumsum(self.counts[low + start : low + end])
                self.lossy += {int(self.videos[low + start + np.searchsorted(ends, row, side="right")]) for row in np.flatnonzero(broken)}


def cast(source: np.ndarray, target: np.ndarray) -> None:
    """Copy with a change of float type. torch, where the program has it loaded, does so some twenty times faster than numpy, to the bit."""
    torch = sys.modules.get("torch")
    if torch is None or not source.flags.writeable:
        with np.errstate(over="ignore"):
            np.copyto(target, source, casting="same_kind")
    else:
        torch.from_numpy(target).copy_(torch.from_numpy(source))
