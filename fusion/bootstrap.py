"""Bootstrap resamples of videos, or of whole groups of videos, and the intervals they give; numpy alone.

Videos of one group (a film, a scene, a sequence of recordings) are alike: as independent draws they would count for more than they are, and
intervals would be too narrow. So where groups are known a resample draws groups, each with all of its videos, as often as there are groups.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from store.errors import ScoreError

_BLOCK_BYTES = 32 * 2**20
FEW = 20  # groups; from fewer, intervals come out too narrow


@dataclass(frozen=True)
class Interval:
    """Percentile bootstrap interval of a statistic, at ``level`` (0.95: 2.5 % lie below ``low`` and 2.5 % above ``high``)."""

    low: float
    high: float
    level: float


@dataclass(frozen=True, eq=False)
class Units:
    """What is drawn: ``of`` int64 [V] is the number of each video's unit in 0 .. ``count`` - 1; ``what``: "videos" or "groups"."""

    of: np.ndarray
    count: int
    what: str = "groups"

    def sums(self, values: np.ndarray) -> np.ndarray:
        """Sum of ``values`` [V] over the videos of each unit, float64 [count]."""
        return np.bincount(self.of, np.asarray(values, np.float64), minlength=self.count)


def each_video(num_videos: int) -> Units:
    """Every video by itself."""
    return Units(np.arange(num_videos), num_videos, "videos")


def whole_groups(ids: Sequence[str], groups: Mapping[str, str]) -> Units:
    """The groups {id: group} of ``ids``; a video without a group is one by itself."""
    names = [("group", groups[name]) if groups.get(name) else ("video", name) for name in ids]
    place = {name: number for number, name in enumerate(dict.fromkeys(names))}
    return Units(np.array([place[name] for name in names], np.int64), len(place))


def resamples(num_units: int, samples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit is drawn in each bootstrap resample: float32 blocks [S, U] of bounded size, S adding up to ``samples``."""
    if samples < 1:
        raise ScoreError(f"{samples} bootstrap samples; ask for at least 1")
    generator = np.random.default_rng(seed)
    block = max(1, min(samples, _BLOCK_BYTES // (8 * num_units)))
    for first in range(0, samples, block):
        size = min(block, samples - first)
        drawn = generator.integers(0, num_units, (size, num_units)) + np.arange(size)[:, None] * num_units
        yield np.bincount(drawn.ravel(), minlength=size * num_units).reshape(size, num_units).astype(np.float32)


def bootstrap_means(hits: np.ndarray, samples: int = 1000, seed: int = 0, units: Units | None = None) -> np.ndarray:
    """Mean of ``hits`` [V] (0/1, or any number a video has, e.g. a difference of hits) over the videos drawn, float64 [samples]."""
    units = units or each_video(len(hits))
    sums, sizes = units.sums(hits).astype(np.float32), units.sums(np.ones(len(hits))).astype(np.float32)
    return np.concatenate([(counts @ sums).astype(np.float64) / (counts @ sizes) for counts in resamples(units.count, samples, seed)])


def bootstrap_class_means(
    hits: np.ndarray, labels: np.ndarray, num_classes: int, samples: int = 1000, seed: int = 0, units: Units | None = None
) -> np.ndarray:
    """Mean class accuracy in each resample, float64 [samples]; a class that a resample misses is left out of that resample's mean."""
    units = units or each_video(len(labels))
    members, right = (np.zeros((units.count, num_classes), np.float32) for _ in range(2))
    np.add.at(members, (units.of, labels), 1)
    np.add.at(right, (units.of, labels), np.asarray(hits, np.float32))
    means = []
    for counts in resamples(units.count, samples, seed):
        seen = counts @ members
        share = np.divide(counts @ right, seen, out=np.zeros_like(seen), where=seen > 0)
        means.append(share.sum(axis=1, dtype=np.float64) / (seen > 0).sum(axis=1))
    return np.concatenate(means)


def interval(draws: np.ndarray, level: float = 0.95) -> Interval:
    """Percentile interval of bootstrap draws [S]."""
    if not 0 < level < 1:
        raise ScoreError(f"the level of an interval is {level}; it must lie between 0 and 1, e.g. 0.95")
    low, high = np.quantile(draws, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high), level)
