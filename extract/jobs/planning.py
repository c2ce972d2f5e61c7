"""From an extraction's arguments to a plan: the spec resolved, the outstanding videos probed, a few of them timed, all cut into parts."""

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from extract.dry_run import Coming, Forecast, forecast
from extract.jobs.cost import Cost, makespan
from extract.jobs.plan import Plan, cut, imbalance, list_digest
from extract.prepare import prepare_wishes
from extract.presets import store_name
from extract.probe import Work, probe, sample
from extract.run import outstanding
from extract.spec import FeatureSpec, RunOptions
from extract.wishes import Wish
from store.digest import to_plain
from store.errors import SpecError
from store.features import FeatureStore
from store.videos import Video, VideoList

START_SECONDS = 30.0  # of a task: Python, torch, the network, and the wait for its first frames
FRAMES_A_CLIP = 200.0  # decoding so many frames counts as one clip more, where no rate has been measured
UNREADABLE = 1.0  # clips' worth of work: a video that cannot be opened is still opened, and its failure recorded


@dataclass(frozen=True)
class Asked:
    """The arguments of ``extract``: one store, or two that are filled in one pass over the videos."""

    videos: VideoList
    wanted: Sequence[Wish]
    out: Path
    options: RunOptions


@dataclass(frozen=True)
class Outlook:
    """What is to be done, what it takes, and the ``plan`` (None when there is nothing). done + failed + queued + outstanding = the list."""

    stores: tuple[str, ...]
    done: int
    failed: int
    queued: int  # left to tasks that are in the queue
    outstanding: int
    clips: int
    frames: int
    bytes: int | None  # of features
    rate: float | None  # clips a second of one task
    measured: bool  # here, and not given
    parts: int
    imbalance: float  # largest part as a multiple of the mean
    hours: float | None  # of all tasks together; GPU hours where each has a GPU
    longest_hours: float | None
    at_once: int  # tasks
    wall_hours: float | None  # with so many at once
    cost: Cost | None  # of all that can be read, without the tasks' starts
    unreadable: dict[str, str] = field(default_factory=dict)
    plan: Plan | None = None


def make_plan(
    asked: Asked,
    parts: int,
    command: tuple[str, ...],
    rate: float | None = None,
    timed: bool = True,
    busy: Callable[[Sequence[Path]], set[str]] = lambda stores: set(),
    stopped: Callable[[], bool] = lambda: False,
    at_once: int = 1,
    least_cost: float = 0.0,
) -> Outlook:
    """Plan what is outstanding, less what ``busy(stores)`` says others are at, in ``parts`` parts; fewer where one would cost less than
    ``least_cost``, as earlier plans' ``costs`` count.

    ``rate``: clips a second of one task, as the summary of ``extract`` prints it; else ``timed`` times a few videos here.
    """
    options = asked.options
    streams = [Coming(spec, backbone, None) for spec, backbone in prepare_wishes(asked.wanted, options)]
    paths = tuple(_place(asked, wish, stream.spec) for wish, stream in zip(asked.wanted, streams, strict=True))
    left, known = _outstanding(asked, paths)
    others = busy(paths)
    todo = [video for video in left if video.id not in others]
    work, unreadable = probe(todo, [each.spec for each in streams], options, stopped)
    each = costs(work, unreadable, (video.id for video in todo))
    lists = cut(each, _fewer(parts, math.fsum(each.values()), least_cost))
    sums = tuple(math.fsum(each[key] for key in part) for part in lists)
    clips, frames = sum(item.all_clips for item in work.values()), sum(item.frames for item in work.values())
    chosen = sample(work)
    seen = forecast(asked.videos.subset(chosen), streams, options, stopped) if timed and chosen else []
    speed = rate or _rate(seen)
    seconds = tuple(START_SECONDS + cost * _a_unit(clips, sums) / speed for cost in sums) if speed and lists else None
    size = _bytes(seen, clips)
    stores = tuple(map(str, paths))
    plan = Plan(stores, list_digest(asked.videos), command, tuple(map(tuple, lists)), sums, seconds, str(Path.cwd())) if lists else None
    return Outlook(
        stores=stores,
        done=len(asked.videos) - len(left) - len(known),
        failed=len(known),
        queued=len(left) - len(todo),
        outstanding=len(todo),
        clips=clips,
        frames=frames,
        bytes=size,
        rate=speed,
        measured=rate is None and speed is not None,
        parts=len(lists),
        imbalance=imbalance(sums) if sums else 1.0,
        hours=sum(seconds) / 3600 if seconds else None,
        longest_hours=max(seconds) / 3600 if seconds else None,
        at_once=at_once,
        wall_hours=makespan(seconds, at_once) / 3600 if seconds else None,
        cost=Cost(len(work), clips, clips / speed / 3600 if speed else None, size) if work else None,
        unreadable=unreadable,
        plan=plan,
    )


def costs(work: Mapping[str, Work], unreadable: Iterable[str], order: Iterable[str]) -> dict[str, float]:
    """Work of each video in clips, decoding included, in the order of ``order``."""
    known = {key: each.all_clips + each.frames / FRAMES_A_CLIP for key, each in work.items()} | dict.fromkeys(unreadable, UNREADABLE)
    return {key: known[key] for key in order if key in known}


def _fewer(parts: int, cost: float, least: float) -> int:
    return min(parts, max(1, math.ceil(cost / least))) if least > 0 else parts


def create_stores(asked: Asked) -> None:
    """Make the stores' folders, so that plans and logs have a place."""
    for wish, (spec, _) in zip(asked.wanted, prepare_wishes(asked.wanted, asked.options), strict=True):
        FeatureStore.create(asked.out, wish.name or store_name(wish.preset), to_plain(spec))


def _place(asked: Asked, wish: Wish, spec: FeatureSpec) -> Path:
    return FeatureStore.place(asked.out, wish.name or store_name(wish.preset), to_plain(spec)).absolute()


def _outstanding(asked: Asked, paths: Sequence[Path]) -> tuple[list[Video], set[str]]:
    """Videos that any store lacks, in list order, and those of the others that are recorded as failed."""
    left: set[str] = set()
    failed: set[str] = set()
    for path in paths:
        todo, _, known = (
            outstanding(asked.videos, FeatureStore.open(path), asked.options.retry_failed) if path.exists() else (list(asked.videos), 0, {})
        )
        left |= {video.id for video in todo}
        failed |= set(known)
    return [video for video in asked.videos if video.id in left], failed - left


def check_rate(rate: float | None) -> None:
    """``SpecError`` for a rate that is none."""
    if rate is not None and not (math.isfinite(rate) and rate > 0):
        raise SpecError(f"rate is {rate}; it must be a positive number of clips a second, as the summary of `extract` prints it")


def _rate(seen: Sequence[Forecast]) -> float | None:
    """Clips a second of all stores together; their ``seconds`` are those of the whole work."""
    seconds = max((each.seconds for each in seen if each.seconds), default=None)
    return sum(each.clips for each in seen) / seconds if seconds else None


def _bytes(seen: Sequence[Forecast], clips: int) -> int | None:
    counted = sum(each.clips for each in seen)
    return round(sum(each.bytes or 0 for each in seen) / counted * clips) if counted else None


def _a_unit(clips: int, sums: tuple[float, ...]) -> float:
    """Clips in a unit of cost, so that all parts together take clips / rate."""
    total = math.fsum(sums)
    return clips / total if total else 0.0
