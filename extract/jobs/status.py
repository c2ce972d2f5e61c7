"""How far a list is: read from the store, the recorded failures and the scheduler's queue; nothing else is kept. Imports no torch."""

import time
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from extract.jobs.plan import SUFFIX, Plan, load
from extract.jobs.slurm import TaskState, jobs_folder
from store.errors import SpecError
from store.failures import Failure
from store.features import FeatureStore
from store.progress import duration
from store.videos import Video, VideoList

RATE_SECONDS = 900.0  # how far back publishing is looked at for the present rate


@dataclass(frozen=True)
class State:
    """done + failed + outstanding = the list. ``rate`` in videos a second over the last minutes, None where nothing was published."""

    store: str
    videos: int
    done: int
    failed: dict[str, tuple[str, str]]  # id -> (stage, reason), as recorded
    outstanding: tuple[str, ...]
    running: int  # tasks
    pending: int  # tasks
    rate: float | None
    damaged: dict[str, str]  # shard -> why it cannot be used; its videos are outstanding

    def __post_init__(self) -> None:
        assert self.done + len(self.failed) + len(self.outstanding) == self.videos

    @property
    def complete(self) -> bool:
        """Whether every video is done or recorded as failed."""
        return not self.outstanding

    @property
    def seconds_left(self) -> float | None:
        """At the present rate."""
        return len(self.outstanding) / self.rate if self.rate and self.outstanding else None


def state(videos: VideoList, store: FeatureStore, tasks: Sequence[TaskState] = (), now: float | None = None) -> State:
    """Look at a store as it is now. A recorded failure counts as one until its video's file changes.

    Also one that ``extract`` tries again every time (``extract.lasting``): who watches would else wait for something that never comes.
    """
    missing = set(store.missing(videos.ids))
    recorded = store.failures()
    standing = {video.id: found for video in videos if video.id in missing and (found := _current(video, recorded))}
    failed = {video_id: (failure.stage, failure.reason) for video_id, failure in standing.items()}
    outstanding = tuple(video_id for video_id in videos.ids if video_id in missing and video_id not in failed)
    return State(
        str(store.path),
        len(videos),
        len(videos) - len(missing),
        failed,
        outstanding,
        sum(task.state == "RUNNING" for task in tasks),
        sum(task.active and task.state != "RUNNING" for task in tasks),
        publishing_rate(store, time.time() if now is None else now),
        {name: str(error) for name, error in sorted(store.damaged.items())},
    )


def _current(video: Video, recorded: Mapping[str, Failure]) -> Failure | None:
    failure = recorded.get(video.id)
    return failure if failure and failure.is_current(video.path) else None


def publishing_rate(store: FeatureStore, now: float, window: float = RATE_SECONDS) -> float | None:
    """Videos a second that were published in the last ``window`` seconds, from the shards' times of change.

    The first shard of the window only begins it, since its own work lies before it; None with fewer than two.
    """
    published = []
    for shard in store.shards:
        try:
            published.append((shard.path.stat().st_mtime, len(shard.ids)))
        except OSError:  # merged into another one meanwhile
            continue
    recent = sorted((when, count) for when, count in published if now - window <= when <= now)
    if len(recent) < 2 or now <= recent[0][0]:
        return None
    return sum(count for _, count in recent[1:]) / (now - recent[0][0])


def active_ids(stores: Collection[Path], tasks: Iterable[TaskState]) -> set[str]:
    """Videos of the parts that tasks in the queue are to do, or are doing, for all of these stores.

    ``SpecError`` where an active task's plan cannot be read: nobody then knows what it does.
    """
    plans: dict[str, Plan] = {}
    found: set[str] = set()
    for task in tasks:
        if not task.active:
            continue
        if not task.plan.endswith(SUFFIX):
            raise SpecError(
                f"job {task.job} of this store was not made by `jobs submit` (its comment is {task.plan!r}); wait for it, or scancel it"
            )
        plan = plans.get(task.plan) or load(Path(task.plan))
        plans[task.plan] = plan
        if {str(store) for store in stores} <= set(plan.stores):
            found |= set(plan.ids(task.place + 1))
    return found


def newest_plan(store: Path) -> Plan | None:
    """The plan of the last submission that filled this store; None where there was none."""
    plans = sorted(jobs_folder(store).glob(f"*{SUFFIX}"), key=lambda path: (path.stat().st_mtime_ns, path.name))
    return load(plans[-1]) if plans else None


def stores_with(store: Path) -> list[Path]:
    """This store and the one that the last submission fills in the same pass, the one whose jobs they are first.

    Of a store that was moved or copied with its plans, only itself: they are about the one in the old place.
    """
    plan = newest_plan(store)
    stores = [Path(each) for each in plan.stores] if plan else []
    return stores if store.resolve() in [each.resolve() for each in stores] else [store]


def text(states: Sequence[State], tasks: Sequence[TaskState], shown: int = 20) -> str:
    """The states of stores that are filled in one pass, and their tasks, in words."""
    lines = []
    for found in states:
        lines += [found.store, f"{found.done} done, {len(found.failed)} failed, {len(found.outstanding)} outstanding, of {found.videos}"]
        if found.rate is not None and not found.complete:
            left = found.seconds_left
            lines.append(f"{60 * found.rate:.1f} videos/min lately" + (f", {duration(left)} left" if left is not None else ""))
        lines += [f"failed {key} [{stage}]: {reason}" for key, (stage, reason) in list(found.failed.items())[:shown]]
        if len(found.failed) > shown:
            lines.append(f"... and {len(found.failed) - shown} more failures (--json has all)")
        lines += [f"warning: {shard} cannot be used: {reason}; run `actioncache store repair`" for shard, reason in found.damaged.items()]
    active = [task for task in tasks if task.active]
    lines.append(f"{states[0].running} tasks running, {states[0].pending} waiting")
    lines += [f"task {task.job}_{task.place}  {task.state}  {task.elapsed}  {task.node}" for task in active[:shown]]
    if not active and not all(found.complete for found in states):
        lines.append("nothing is running: `actioncache jobs retry` submits what is outstanding")
    return "\n".join(lines)
