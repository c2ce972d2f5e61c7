"""From an extraction's arguments to a plan: the spec resolved, the outstanding videos probed, a few of them timed, all cut into parts."""

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from extract.dry_run import TIMED_VIDEOS, Coming, Forecast, forecast
from extract.engine import worker_count
from extract.jobs.plan import Plan, cut, imbalance, list_digest
from extract.jobs.probe import costs, probe
from extract.prepare import prepare_wishes
from extract.presets import store_name
from extract.run import outstanding
from extract.spec import FeatureSpec, RunOptions
from extract.wishes import Wish
from store.digest import to_plain
from store.errors import SpecError
from store.features import FeatureStore
from store.videos import Video, VideoList

START_SECONDS = 30.0  # of a task: Python, torch, the network, and the wait for its first frames


@dataclass(frozen=True)
class Asked:
    """The arguments of ``extract``: one store, or two that are filled in one pass over the videos."""

    videos: VideoList
    wanted: Sequence[Wish]
    out: Path
    options: RunOptions


@dataclass(frozen=True)
class Outlook:
    """What is outstanding, what it takes, and the ``plan`` (None when nothing is outstanding)."""

    store: str
    done: int
    failed: int
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
    unreadable: dict[str, str] = field(default_factory=dict)
    plan: Plan | None = None


def make_plan(
    asked: Asked,
    parts: int,
    command: tuple[str, ...],
    rate: float | None = None,
    timed: bool = True,
    busy: Callable[[Path], set[str]] = lambda store: set(),
    stopped: Callable[[], bool] = lambda: False,
) -> Outlook:
    """Plan what is outstanding, less what ``busy(store)`` says others are at.

    ``rate``: clips a second of one task, as the summary of ``extract`` prints it; else ``timed`` times a few videos here.
    """
    options = asked.options
    streams = [Coming(spec, backbone, None) for spec, backbone in prepare_wishes(asked.wanted, options)]
    paths = [_place(asked, wish, stream.spec) for wish, stream in zip(asked.wanted, streams, strict=True)]
    todo, known = _outstanding(asked, paths)
    done = len(asked.videos) - len(todo) - len(known)
    others = busy(paths[0])
    todo = [video for video in todo if video.id not in others]
    work, unreadable = probe(todo, [each.spec for each in streams], options, worker_count(options.workers, max(1, len(todo))), stopped)
    each = costs(work, unreadable, (video.id for video in todo))
    lists = cut(each, parts)
    sums = tuple(math.fsum(each[key] for key in part) for part in lists)
    clips, frames = (sum(item[place] for item in work.values()) for place in (0, 1))
    chosen = _sample(work)
    seen = forecast(asked.videos.subset(chosen), streams, options, stopped) if timed and chosen else []
    speed = rate or _rate(seen)
    seconds = tuple(START_SECONDS + cost * _a_unit(clips, sums) / speed for cost in sums) if speed else None
    path = paths[0]
    plan = Plan(str(path), list_digest(asked.videos), command, tuple(map(tuple, lists)), sums, seconds, str(Path.cwd())) if lists else None
    return Outlook(
        str(path),
        done,
        len(known),
        len(todo),
        clips,
        frames,
        _bytes(seen, clips),
        speed,
        rate is None and speed is not None,
        len(lists),
        imbalance(sums) if sums else 1.0,
        sum(seconds) / 3600 if seconds else None,
        max(seconds) / 3600 if seconds else None,
        unreadable,
        plan,
    )


def create_store(asked: Asked) -> Path:
    """Make the first store's folder, so that plans and logs have a place; returns it, absolute."""
    spec, _ = prepare_wishes(asked.wanted, asked.options)[0]
    wish = asked.wanted[0]
    return FeatureStore.create(asked.out, wish.name or store_name(wish.preset), to_plain(spec)).path.absolute()


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


def _sample(work: Mapping[str, Any]) -> list[str]:
    """A few videos of all lengths."""
    by_size = sorted(work, key=lambda key: work[key].frames)
    return list(
        dict.fromkeys(by_size[(2 * place + 1) * len(by_size) // (2 * TIMED_VIDEOS)] for place in range(TIMED_VIDEOS if by_size else 0))
    )


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
