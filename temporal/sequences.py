"""The cached features of a list of videos, read once, and the samples that they are cut into."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from store.errors import FeatureError, ListError, MissingFeaturesError, SpecError, TrainingError
from temporal.maps import MapRows
from temporal.sampling import spread, windows
from temporal.spec import SequenceSpec

if TYPE_CHECKING:
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
    def spec(self) -> dict[str, Any]: ...
    @property
    def levels(self) -> Sequence[str]: ...
    def missing(self, ids: Sequence[str]) -> list[str]: ...
    def reader(self, ids: Sequence[str], level: str | None = None) -> "RowReader": ...


@dataclass(frozen=True)
class Sequences:
    """The samples of V videos in one array, so that a fold or a part is only another choice of spans and shares the features.

    rows float16 or float32 [R, D] (or maps [R, C, H, W], left on the disk); sample s owns ``rows[starts[s] : starts[s] + counts[s]]``
    and is of video ``owners[s]``; ids, labels int64 (-1 where there is none) and groups [V]. ``owner`` int64 [S], ascending, where a
    video may have several samples; None: it has one.
    """

    ids: tuple[str, ...]
    rows: "np.ndarray | MapRows"
    starts: np.ndarray
    counts: np.ndarray
    labels: np.ndarray
    groups: tuple[str, ...]
    owner: np.ndarray | None = None

    def __len__(self) -> int:
        """V: parts are chosen by video, so that all samples of a video, and videos of a group, stay together."""
        return len(self.ids)

    @property
    def width(self) -> int:
        """Feature width D, or channels C of maps."""
        return int(self.rows.shape[1])

    @property
    def owners(self) -> np.ndarray:
        """The position of each sample's video, int64 [S]."""
        return np.arange(len(self.ids)) if self.owner is None else self.owner

    def subset(self, chosen: np.ndarray | Sequence[int]) -> "Sequences":
        """The videos at positions ``chosen``, in that order; the features are shared, not copied."""
        index = np.asarray(chosen, dtype=np.int64)
        samples, owner = index, None
        if self.owner is not None:
            edges = np.searchsorted(self.owner, np.arange(len(self) + 1))
            many = (edges[1:] - edges[:-1])[index]
            samples, owner = spread(edges[index], many), np.repeat(np.arange(len(index)), many)
        return replace(
            self,
            ids=tuple(self.ids[i] for i in index),
            starts=self.starts[samples],
            counts=self.counts[samples],
            labels=self.labels[index],
            groups=tuple(self.groups[i] for i in index),
            owner=owner,
        )

    def own_rows(self) -> np.ndarray:
        """The feature rows of these videos and of no others, each once, [n, D]; what a projection is fitted on."""
        return self.compact().held_rows()

    def compact(self) -> "Sequences":
        """The same samples over an array of their own rows only; the same array where it holds no others."""
        index = np.unique(spread(self.starts, self.counts))
        rows = self.held_rows()
        if len(index) == len(rows):
            return self
        return replace(self, rows=rows[index], starts=np.searchsorted(index, self.starts))

    def held_rows(self) -> np.ndarray:
        """``rows`` as an array in memory; TrainingError where they are maps."""
        if not isinstance(self.rows, np.ndarray):
            raise TrainingError(
                "feature maps stay on the disk, so no Z-norm or PCA can be fitted on them; use --sequence.projection none and no "
                "--sequence.znorm"
            )
        return self.rows


def load_sequences(
    stores: Sequence[FeatureSource],
    videos: "VideoList",
    spec: SequenceSpec,
    levels: Sequence[str] | None = None,
    classes: Sequence[str] | None = None,
    reads: str = "vectors",
) -> Sequences:
    """Read the features of every video of the list into memory, fused (``spec.mid``) where there are two stores; maps stay on the disk.

    ``levels``: one level a store, default ``resolve_levels``; ``classes``: what labels count in, default the list's; ``reads``:
    "vectors" or "maps", which of the two the head takes.
    Raises MissingFeaturesError (how many and which), FeatureError (shapes that do not fit), ListError (a label that is no class).
    """
    if not len(videos):
        raise ListError("there are no videos in this list (or part of a list); nothing to load")
    levels = resolve_levels(stores, spec) if levels is None else levels
    absent = missing_videos(stores, videos)
    if absent:
        raise MissingFeaturesError(_missing_message(stores, absent, len(videos)))
    ids = [video.id for video in videos]
    found = _level_rows(stores[0], levels[0], ids, spec, reads)
    if spec.mid != "none":
        found = _fused(ids, stores, found, _level_rows(stores[1], levels[1], ids, spec, reads), spec)
    labels = label_indices(videos, videos.classes if classes is None else classes)
    starts, counts, owner = _samples(found, spec)
    return Sequences(tuple(ids), found.rows, starts, counts, labels, tuple(video.group for video in videos), owner)


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


@dataclass(frozen=True)
class _Level:
    """One level of all videos: ``rows`` [R, D], or maps; ``starts`` and ``counts`` of each video's clips, of ``inner`` rows each."""

    rows: "np.ndarray | MapRows"
    starts: np.ndarray
    counts: np.ndarray
    inner: int = 1


def _level_rows(store: FeatureSource, level: str, ids: list[str], spec: SequenceSpec, reads: str) -> _Level:
    """One level of all videos as it is stored, in float32 where something is computed of it."""
    reader = store.reader(ids, level)
    shape = reader.level.row_shape
    if len(shape) == 2 and spec.inner == "mean":
        return _inner_means(reader, shape[1])
    if problem := _shape_problem(shape, spec, reads):
        raise FeatureError(
            f"features {level!r} of video {ids[0]!r} in {store.path} have the shape {[int(reader.counts[0]), *shape]}{problem}"
        )
    if reads == "maps":
        counts = reader.counts
        return _Level(MapRows(reader), np.cumsum(counts) - counts, counts)
    found = reader.read(dtype="float32" if spec.mid != "none" else None)
    inner = shape[0] if len(shape) == 2 else 1
    return _Level(found.values.reshape(-1, shape[-1]), found.starts, found.counts, inner)


def _inner_means(reader: "RowReader", width: int) -> _Level:
    """[R, n, D] to float32 [R, D]: the mean over a clip's vectors, a few videos at a time, since all of them are n times as large."""
    counts = reader.counts
    ends = np.cumsum(counts)
    means = np.empty((int(ends[-1]), width), np.float32)
    some = max(1, INNER_BYTES // (reader.level.row_bytes * int(counts.max())))
    for start in range(0, len(counts), some):
        end = min(start + some, len(counts))
        rows = reader.read(np.arange(start, end)).values
        rows.mean(axis=1, dtype=np.float32, out=means[ends[start] - counts[start] : ends[end - 1]])
    return _Level(means, ends - counts, counts)


def _fused(ids: list[str], stores: Sequence[FeatureSource], one: _Level, other: _Level, spec: SequenceSpec) -> _Level:
    """Mid fusion, element by element, in float32, into the first array."""
    widths = one.rows.shape[1] * one.inner, other.rows.shape[1] * other.inner
    differ = np.flatnonzero((one.counts != other.counts) | (one.rows.shape[1:] != other.rows.shape[1:]) | (one.inner != other.inner))
    if len(differ):
        at = int(differ[0])
        raise FeatureError(
            f"mid fusion of video {ids[at]!r}: {stores[0].path} has {one.counts[at]} clips of width {widths[0]}, {stores[1].path} has "
            f"{other.counts[at]} of width {widths[1]}; element-wise fusion needs equal numbers ({len(differ)} of {len(ids)} videos "
            "differ): extract both with the same clip rule and levels of equal width"
        )
    if not isinstance(one.rows, np.ndarray) or not isinstance(other.rows, np.ndarray):
        raise FeatureError("feature maps cannot be fused before a head; train one on each store and fuse their scores")
    assert np.array_equal(one.starts, other.starts), "rows of equal lists and counts lie alike"
    (np.add if spec.mid == "sum" else np.multiply)(one.rows, other.rows, out=one.rows)
    return one


def _samples(found: _Level, spec: SequenceSpec) -> tuple[np.ndarray, np.ndarray, np.ndarray | None]:
    """First row, number of rows and video of each sample; no videos where every video is one sample."""
    if spec.samples == "windows":
        return windows(found.starts, found.counts, spec.window, spec.stride)
    if spec.samples == "clips":
        starts = spread(found.starts, found.counts) * found.inner
        return starts, np.full(len(starts), found.inner), np.repeat(np.arange(len(found.counts)), found.counts)
    return found.starts, found.counts, None


def _shape_problem(shape: tuple[int, ...], spec: SequenceSpec, reads: str) -> str:
    """Why a head cannot read clips of this shape, and what to do; empty where it can."""
    wanted = 3 if reads == "maps" else 2 if spec.samples == "clips" else 1
    if len(shape) == wanted:
        return ""
    if len(shape) == 3:
        return ": feature maps, which this head cannot read; use head recurrent_residual, or extract with spatial pooling"
    if reads == "maps":
        return ", but this head reads feature maps [clips, C, H, W]; extract such a level, e.g. with preset resnet50-maps"
    if len(shape) == 2:
        return (
            f": {shape[0]} vectors a clip (crops or frames kept); --sequence.inner mean takes their mean, --sequence.samples clips makes a "
            "sequence of each clip's frames"
        )
    if len(shape) == 1:
        return ": one vector a clip, but --sequence.samples clips needs the frames of each, [clips, frames, width]"
    return "; a sequence needs [clips, width]"


def _missing_message(stores: Sequence[FeatureSource], absent: list[str], total: int) -> str:
    where = " and ".join(str(store.path) for store in stores)
    return (
        f"{len(absent)} of {total} videos have no features in {where}: {_some(absent)}; extract them, or leave them out with "
        "--allow-missing (reported, exit code 1)"
    )


def _some(names: Sequence[Any]) -> str:
    shown = ", ".join(str(name) for name in names[:NAMED])
    return shown if len(names) <= NAMED else f"{shown} and {len(names) - NAMED} more"
