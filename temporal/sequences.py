"""Sequences in memory: the cached features of a list of videos, sampled in time, padded, and cut into batches by index."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from store.errors import FeatureError, ListError, MissingFeaturesError, SpecError
from temporal.spec import SequenceSpec

if TYPE_CHECKING:
    import torch

    from store.bulk import RowReader
    from store.videos import VideoList

NAMED = 8  # ids an error message names before it counts the rest
INNER_BYTES = 256 << 20  # of clips with several vectors each, in memory at once


class FeatureSource(Protocol):
    """What stage two needs of a feature store; ``store.features.FeatureStore`` is one."""

    @property
    def path(self) -> Path: ...
    @property
    def digest(self) -> str: ...
    @property
    def levels(self) -> Sequence[str]: ...
    def missing(self, ids: Sequence[str]) -> list[str]: ...
    def reader(self, ids: Sequence[str], level: str | None = None) -> "RowReader": ...


@dataclass(frozen=True)
class Batch:
    """Padded sequences: x [B, T, D] float32 with 0 at and after each length, lengths [B], labels [B] int64 (-1: none), ids."""

    x: "torch.Tensor"
    lengths: "torch.Tensor"
    labels: "torch.Tensor"
    ids: tuple[str, ...]


@dataclass(frozen=True)
class Sequences:
    """The clips of V videos in one array, so that a fold or a part is only another choice of spans and shares the features.

    rows float32 [R, D]; video v owns ``rows[starts[v] : starts[v] + counts[v]]``; labels int64 [V], -1 where there is none; groups [V].
    """

    ids: tuple[str, ...]
    rows: np.ndarray
    starts: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    groups: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def width(self) -> int:
        """Feature width D."""
        return int(self.rows.shape[1])

    def subset(self, chosen: np.ndarray | Sequence[int]) -> "Sequences":
        """The videos at positions ``chosen``, in that order; the features are shared, not copied."""
        index = np.asarray(chosen, dtype=np.int64)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            starts=self.starts[index],
            counts=self.counts[index],
            labels=self.labels[index],
            groups=tuple(self.groups[i] for i in index),
        )

    def own_rows(self) -> np.ndarray:
        """The feature rows of these videos and of no others, [sum of counts, D]; what a projection is fitted on."""
        index = [np.arange(start, start + count) for start, count in zip(self.starts, self.counts, strict=True)]
        return self.rows[np.concatenate(index)]


def sigma(num_clips: int, steps: int) -> np.ndarray:
    """Which of K clips the T steps take, int64 [T], counted from 0 (PAPERS A, with t counted from 1 there).

    sigma(t) = 1 + floor((t - 1)(K - 1) / (T - 1)); K < T repeats, K = T is the identity, T = 1 takes the first.
    """
    if num_clips < 1 or steps < 1:
        raise SpecError(f"a sequence needs at least one clip and one step, not {num_clips} and {steps}")
    return np.arange(steps, dtype=np.int64) * (num_clips - 1) // max(steps - 1, 1)


def step_indices(counts: np.ndarray, spec: SequenceSpec) -> list[np.ndarray]:
    """For each video with ``counts[v]`` clips, the clips its steps take."""
    if spec.sampling == "all":
        return [np.arange(count, dtype=np.int64) for count in counts]
    cached = {int(count): sigma(int(count), spec.steps) for count in np.unique(counts)}
    return [cached[int(count)] for count in counts]


class PaddedSequences:
    """A whole part on one device: the rows once, and for each video the rows of its steps; batches are gathered by index."""

    def __init__(self, sequences: Sequences, rows: np.ndarray, spec: SequenceSpec, device: str = "cpu") -> None:
        """``rows`` float32 [R, d]: the rows of ``sequences`` after projection."""
        import torch

        steps = step_indices(sequences.counts, spec)
        lengths = np.array([len(step) for step in steps], dtype=np.int64)
        used, index = _compact(sequences.starts, steps, int(lengths.max()))
        with_padding = np.zeros((len(used) + 1, rows.shape[1]), dtype=np.float32)
        with_padding[:-1] = rows[used]
        self.ids = sequences.ids
        self.rows = torch.from_numpy(with_padding).to(device)
        self.index = torch.from_numpy(index).to(device)
        self.host_lengths = lengths
        self.lengths = torch.from_numpy(lengths).to(device)
        self.labels = torch.from_numpy(np.array(sequences.labels)).to(device)

    def __len__(self) -> int:
        return len(self.ids)

    def batch(self, chosen: np.ndarray) -> Batch:
        """The videos at positions ``chosen`` int64 [B], padded to the longest of them."""
        import torch

        longest = int(self.host_lengths[chosen].max())
        at = torch.from_numpy(chosen).to(self.index.device)
        x = self.rows[self.index[at, :longest]]
        return Batch(x, self.lengths[at], self.labels[at], tuple(self.ids[i] for i in chosen))

    def batches(self, size: int) -> Iterator[Batch]:
        """All videos in order, ``size`` at a time."""
        for start in range(0, len(self), size):
            yield self.batch(np.arange(start, min(start + size, len(self))))


def _compact(starts: np.ndarray, steps: list[np.ndarray], longest: int) -> tuple[np.ndarray, np.ndarray]:
    """The rows that any step uses, and [V, longest] positions among them; padding points one past the last."""
    flat = np.concatenate([start + step for start, step in zip(starts, steps, strict=True)])
    used, position = np.unique(flat, return_inverse=True)
    index = np.full((len(steps), longest), len(used), dtype=np.int64)
    ends = np.cumsum([len(step) for step in steps])
    for row, (end, step) in enumerate(zip(ends, steps, strict=True)):
        index[row, : len(step)] = position[end - len(step) : end]
    return used, index


def load_sequences(
    stores: Sequence[FeatureSource],
    videos: "VideoList",
    spec: SequenceSpec,
    levels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
) -> Sequences:
    """Read the features of every video of the list into memory, fused (``spec.mid``) where there are two stores.

    ``levels``: one level a store, default ``resolve_levels``; ``classes``: what labels count in, default the list's.
    Raises MissingFeaturesError (how many and which), FeatureError (shapes that do not fit), ListError (a label that is no class).
    """
    if not len(videos):
        raise ListError("there are no videos in this list (or part of a list); nothing to load")
    levels = resolve_levels(stores, spec) if levels is None else levels
    absent = missing_videos(stores, videos)
    if absent:
        raise MissingFeaturesError(_missing_message(stores, absent, len(videos)))
    ids = [video.id for video in videos]
    rows, starts, counts = _level_rows(stores[0], levels[0], ids, spec)
    if spec.mid != "none":
        other, other_starts, other_counts = _level_rows(stores[1], levels[1], ids, spec)
        _check_equal(ids, stores, counts, other_counts, rows.shape[1], other.shape[1])
        assert np.array_equal(starts, other_starts), "rows of equal lists and counts lie alike"
        (np.add if spec.mid == "sum" else np.multiply)(rows, other, out=rows)
    labels = label_indices(videos, videos.classes if classes is None else classes)
    return Sequences(tuple(video.id for video in videos), rows, starts, counts, labels, tuple(video.group for video in videos))


def resolve_levels(stores: Sequence[FeatureSource], spec: SequenceSpec) -> tuple[str, ...]:
    """The level to read from each store; SpecError where that is open, there is none, or ``mid`` wants another number of stores."""
    wanted = 1 if spec.mid == "none" else 2
    if len(stores) != wanted:
        do = "give --features twice, or --sequence.mid none" if wanted == 2 else "give --sequence.mid sum or product to fuse two"
        raise SpecError(f"sequence.mid is {spec.mid!r}, which takes {wanted} feature store(s), not {len(stores)}; {do}")
    problems = []
    for store in stores:
        if not store.levels:
            problems.append(
                f"{store.path} holds no features yet; extract into it first (`actioncache store verify` tells of shards that are damaged)"
            )
        elif spec.level and spec.level not in store.levels:
            problems.append(f"{store.path} has no level {spec.level!r}; it has {', '.join(store.levels)}")
        elif not spec.level and len(store.levels) != 1:
            problems.append(f"{store.path} has the levels {', '.join(store.levels)}; choose one with --sequence.level")
    if problems:
        raise SpecError("\n".join(problems))
    return tuple(spec.level or store.levels[0] for store in stores)


def missing_videos(stores: Sequence[FeatureSource], videos: "VideoList") -> list[str]:
    """Ids of the list that at least one of the stores has no features of, in list order."""
    ids = [video.id for video in videos]
    absent = {id_ for store in stores for id_ in store.missing(ids)}
    return [id_ for id_ in ids if id_ in absent]


def label_indices(videos: "VideoList", classes: Sequence[str]) -> np.ndarray:
    """int64 [V], each video's class as a position in ``classes``, -1 without a label; ListError names labels that are no class."""
    position = {name: index for index, name in enumerate(classes)}
    strange = sorted({video.label for video in videos if video.label is not None and video.label not in position})
    if strange:
        raise ListError(f"labels {_some(strange)} are not among the {len(position)} classes: {_some(list(classes))}")
    return np.array([-1 if video.label is None else position[video.label] for video in videos], dtype=np.int64)


def _level_rows(store: FeatureSource, level: str, ids: list[str], spec: SequenceSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """One level of all videos as float32 [R, D], and the first row and number of rows of each video."""
    reader = store.reader(ids, level)
    shape = reader.level.row_shape
    if len(shape) == 2 and spec.inner == "mean":
        return _inner_means(reader, shape[1])
    if len(shape) != 1:
        raise FeatureError(_shape_message(ids[0], store, level, (int(reader.counts[0]), *shape)))
    found = reader.read(dtype="float32")
    return found.values, found.starts, found.counts


def _inner_means(reader: "RowReader", width: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """[R, n, D] to float32 [R, D]: the mean over a clip's vectors, a few videos at a time, since all of them are n times as large."""
    counts = reader.counts
    ends = np.cumsum(counts)
    means = np.empty((int(ends[-1]), width), np.float32)
    some = max(1, INNER_BYTES // (reader.level.row_bytes * int(counts.max())))
    for start in range(0, len(counts), some):
        end = min(start + some, len(counts))
        rows = reader.read(np.arange(start, end)).values
        rows.mean(axis=1, dtype=np.float32, out=means[ends[start] - counts[start] : ends[end - 1]])
    return means, ends - counts, counts


def _check_equal(
    ids: list[str], stores: Sequence[FeatureSource], counts: np.ndarray, others: np.ndarray, width: int, other_width: int
) -> None:
    differ = np.flatnonzero((counts != others) | (width != other_width))
    if len(differ):
        at = int(differ[0])
        raise FeatureError(
            f"mid fusion of video {ids[at]!r}: {stores[0].path} has {counts[at]} clips of width {width}, {stores[1].path} has {others[at]} "
            f"of width {other_width}; element-wise fusion needs equal numbers ({len(differ)} of {len(ids)} videos differ): extract both "
            "with the same clip rule and levels of equal width"
        )


def _shape_message(id_: str, store: FeatureSource, level: str, shape: tuple[int, ...]) -> str:
    what = f"features {level!r} of video {id_!r} in {store.path} have the shape {list(shape)}"
    if len(shape) == 3:
        return f"{what}: {shape[1]} vectors a clip (crops or frames kept); --sequence.inner mean takes their mean"
    if len(shape) == 4:
        return f"{what}: feature maps, which these heads cannot read; extract with spatial pooling"
    return f"{what}; a sequence needs [clips, width]"


def _missing_message(stores: Sequence[FeatureSource], absent: list[str], total: int) -> str:
    where = " and ".join(str(store.path) for store in stores)
    return (
        f"{len(absent)} of {total} videos have no features in {where}: {_some(absent)}; extract them, or leave them out with "
        "--allow-missing (reported, exit code 1)"
    )


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
