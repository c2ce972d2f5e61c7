"""Compare two feature stores, usually of two specs: which videos differ, in which levels, and how far."""

import heapq
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np

from store.distance import Distance, DistanceSum
from store.errors import SpecError, StoreError
from store.features import FeatureStore
from store.layout import Features, Level
from store.progress import Progress
from store.spec_file import differences

TIMES_EQUAL_SECONDS = 1e-6  # times that are no farther apart count as equal
Pair = tuple[Level, Level]


@dataclass(frozen=True)
class VideoDifference:
    """Where one video differs.

    ``rows``: its numbers of rows in A and B. ``levels``: those whose digests differ; none when the numbers of rows differ. ``frames``:
    whether the frame spans differ. ``seconds``: how far apart the times are at most.
    """

    id: str
    rows: tuple[int, int]
    levels: dict[str, Distance] = field(default_factory=dict)
    frames: bool = False
    seconds: float = 0.0

    @property
    def spans(self) -> bool:
        """Whether frames or times differ."""
        return self.frames or not self.seconds <= TIMES_EQUAL_SECONDS

    @property
    def relative(self) -> float:
        """The largest relative distance of a level; infinite when the numbers of rows differ."""
        return math.inf if self.rows[0] != self.rows[1] else max((one.relative for one in self.levels.values()), default=0.0)

    def beyond(self, tolerance: float) -> bool:
        """Whether the video counts as different."""
        return self.spans or not self.relative <= tolerance


@dataclass
class LevelDifference:
    """One level over all videos that were read: how far apart together, the largest relative distance, and who is the farthest.

    ``worst``: {"max_abs", "relative", "cosine": id of the video that is farthest by that measure}.
    """

    first: Level
    second: Level
    videos: int = 0
    relative_max: float = 0.0
    worst: dict[str, str] = field(default_factory=dict)
    _sum: DistanceSum = field(default_factory=DistanceSum)

    def distance(self) -> Distance:
        """The distance over all rows of all these videos."""
        return self._sum.distance()

    def add(self, video_id: str, first: np.ndarray, second: np.ndarray) -> Distance:
        """Count one video's rows and return their distance."""
        gathered = DistanceSum()
        gathered.add(first, second)
        one = gathered.distance()
        farther = {
            "max_abs": one.max_abs > self._sum.max_abs,
            "relative": one.relative > self.relative_max,
            "cosine": one.cosine_min < self._sum.min_cosine,
        }
        self.worst |= {measure: video_id for measure, is_farther in farther.items() if is_farther}
        self.relative_max = max(self.relative_max, one.relative)
        self.videos += 1
        self._sum.merge(gathered)
        return one


@dataclass
class Diff:
    """How two stores A and B differ; every pair is (A's, B's).

    ``specs``: the settings that differ. ``levels_only``: levels that one store alone has. ``row_shapes``: levels with other row shapes.
    ``videos_only``: ids that one store alone has. Videos that both have are ``identical`` (equal digests of every compared level; no row
    is read), ``equal`` (other bytes, nothing beyond the tolerance), ``different``, or ``unreadable`` {id: reason}. Of those different,
    ``other_rows`` have other numbers of rows and ``other_spans`` other frames or times. ``levels``: by name, "A:B" where the names
    differ. ``worst``: the farthest videos: the different ones first, then by ``relative``.
    """

    stores: tuple[FeatureStore, FeatureStore]
    tolerance: float
    common: bool
    specs: dict[str, tuple[str, str]]
    levels_only: tuple[list[str], list[str]]
    row_shapes: dict[str, tuple[str, str]]
    videos_only: tuple[list[str], list[str]]
    levels: dict[str, LevelDifference]
    identical: int = 0
    equal: int = 0
    different: int = 0
    other_rows: int = 0
    other_spans: int = 0
    unreadable: dict[str, str] = field(default_factory=dict)
    worst: list[VideoDifference] = field(default_factory=list)

    @property
    def same(self) -> bool:
        """Whether nothing is different beyond the tolerance; with ``common``, what one store alone has is no difference."""
        lonely = not self.common and any((*self.levels_only, *self.videos_only))
        return not (lonely or self.row_shapes or self.different or self.unreadable)

    def count(self, one: VideoDifference) -> None:
        """File a video that was read."""
        self.other_rows += one.rows[0] != one.rows[1]
        self.other_spans += one.spans
        self.different += one.beyond(self.tolerance)
        self.equal += not one.beyond(self.tolerance)


def diff(
    first: FeatureStore,
    second: FeatureStore,
    levels: Sequence[str] = (),
    tolerance: float = 0.0,
    common: bool = False,
    worst: int = 10,
) -> Diff:
    """Compare two stores. Only levels whose digests differ are read, in float64, one video at a time; progress goes to stderr.

    ``levels``: names to compare, or ``A:B`` for a level that is called otherwise in B (default: every level that both have).
    ``tolerance``: the largest relative distance (``Distance.relative``) of a video's level that counts as equal. ``worst``: how many of
    the farthest videos to return. A level that is not there is a ``StoreError``; damage is told in the result and never raises.
    """
    if not tolerance >= 0:
        raise SpecError(f"tolerance is {tolerance}; it must be 0 or more")
    pairs = _pairs(first, second, levels)
    shapes = {name: (str(a), str(b)) for name, (a, b) in pairs.items() if a.row_shape != b.row_shape}
    found = Diff(
        (first, second),
        tolerance,
        common,
        differences(first.spec, second.spec),
        ([], []) if levels else _alone(first, second),
        shapes,
        (second.missing(first.ids()), first.missing(second.ids())),
        {name: LevelDifference(a, b) for name, (a, b) in pairs.items() if name not in shapes},
    )
    both = [video_id for video_id in first.ids() if video_id in second]
    if found.levels:
        _compare(found, both, worst)
    else:
        found.different = len(both)
    return found


def _pairs(first: FeatureStore, second: FeatureStore, wanted: Sequence[str]) -> dict[str, Pair]:
    """The levels to compare, by the name that they have in the result."""
    ours, theirs = ({level.name: level for level in store.layout} for store in (first, second))
    if not ours or not theirs:
        return {}
    pairs = {}
    for one in wanted or [name for name in ours if name in theirs]:
        name, _, other = one.partition(":")  # no level's name has a colon
        for store, asked in ((first, name), (second, other or name)):
            if asked not in store.levels:
                raise StoreError(f"no level {asked!r} in {store.path}; it has {', '.join(store.levels)}")
        pairs[one] = (ours[name], theirs[other or name])
    return pairs


def _alone(first: FeatureStore, second: FeatureStore) -> tuple[list[str], list[str]]:
    ours, theirs = first.levels, second.levels
    if not ours or not theirs:  # an empty store has no levels yet
        return [], []
    return [name for name in ours if name not in theirs], [name for name in theirs if name not in ours]


def _compare(found: Diff, both: list[str], worst: int) -> None:
    """Fill in what is known of the videos that both have: by their digests first, then by the rows of what these do not settle."""
    unsettled = list(_unsettled(found, both))
    found.identical = len(both) - len(unsettled)
    farthest: list[tuple[bool, float, int, VideoDifference]] = []  # a heap, the nearest first
    if not unsettled:
        return
    with Progress("compare", len(unsettled)) as progress:
        for number, (video_id, names) in enumerate(unsettled):
            one = _compare_rows(found, video_id, names)
            if one:
                found.count(one)
                heapq.heappush(farthest, (one.beyond(found.tolerance), one.relative, -number, one))
                if len(farthest) > worst:
                    heapq.heappop(farthest)
            progress.advance(note=f"{found.different} different")
    found.worst = [one for *_, one in sorted(farthest, key=lambda item: item[:3], reverse=True)]


def _unsettled(found: Diff, both: list[str]) -> Iterator[tuple[str, list[str]]]:
    """The videos with other digests, each with the levels that it concerns."""
    first, second = found.stores
    for video_id in both:
        try:
            ours, theirs = first.digests(video_id), second.digests(video_id)
        except StoreError:  # reading the rows tells what is wrong
            yield video_id, list(found.levels)
            continue
        names = [name for name, level in found.levels.items() if ours[level.first.name] != theirs[level.second.name]]
        if names:
            yield video_id, names


def _compare_rows(found: Diff, video_id: str, names: list[str]) -> VideoDifference | None:
    """How far apart the levels ``names`` of one video are; None if it cannot be read, which is noted."""
    read: list[Features] = []
    reasons: list[str] = []
    for side, store in zip("AB", found.stores, strict=True):
        wanted = [(level.first if side == "A" else level.second).name for level in (found.levels[name] for name in names)]
        try:
            read.append(store.get(video_id, wanted))
        except StoreError as error:
            reasons.append(f"{side}: {error}")
    if reasons:
        found.unreadable[video_id] = "; ".join(reasons)
        return None
    ours, theirs = read
    rows = len(ours), len(theirs)
    if rows[0] != rows[1]:
        return VideoDifference(video_id, rows)
    levels = {}
    for name in names:
        level = found.levels[name]
        levels[name] = level.add(video_id, ours.values[level.first.name], theirs.values[level.second.name])
    seconds = float(np.abs(ours.times - theirs.times).max())
    return VideoDifference(video_id, rows, levels, not np.array_equal(ours.frames, theirs.frames), seconds)
