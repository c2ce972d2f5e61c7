"""What an extraction would do, and how long it would take here: counts packets, times a few videos, writes nothing."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path

from extract.decode import DecodeJob, promised_clips
from extract.engine import Extraction, worker_count
from extract.network import Network
from extract.pool import Failed, Finished, WorkerPool
from extract.run import outstanding
from extract.spec import FeatureSpec, RunOptions
from store.errors import Interrupted
from store.features import Features, FeatureStore
from store.progress import Progress
from store.videos import Video, VideoList

TIMED_VIDEOS = 4
SPAN_BYTES = 32  # first and last frame, begin and end in seconds, of one row


@dataclass(frozen=True)
class Forecast:
    """What is to be done. ``bytes`` and ``seconds`` are None when none of the ``timed`` videos could be done."""

    todo: int
    skipped: int  # are in the store already
    failed: int  # are recorded as failed, and their files have not changed
    clips: int  # by the containers' packets
    bytes: int | None
    seconds: float | None
    timed: int
    shares: str = ""  # of the time that the timed videos took
    unreadable: dict[str, str] = field(default_factory=dict)  # video -> reason; more may turn out to be when they are decoded


def forecast(
    videos: VideoList,
    spec: FeatureSpec,
    store: FeatureStore | None,
    make: Callable[[], Network],
    options: RunOptions,
    stopped: Callable[[], bool] = lambda: False,
) -> Forecast:
    """Count the clips of every video that ``store`` (None: not there yet) lacks, and time a few with the network of ``make``."""
    todo, skipped, known = outstanding(videos, store, options.retry_failed) if store else (list(videos), 0, {})
    clips, unreadable = count_clips(todo, spec, options, stopped)
    by_size = sorted(clips, key=lambda key: clips[key])
    chosen = {by_size[(2 * place + 1) * len(by_size) // (2 * TIMED_VIDEOS)] for place in range(TIMED_VIDEOS)} if by_size else set()
    sample = [video for video in todo if video.id in chosen]
    total = sum(clips.values())
    nothing = Forecast(len(todo), skipped, len(known), total, None, None, 0, "", unreadable)
    if not sample:
        return nothing
    sink = _Measure()
    network = make()
    with Progress("time", len(sample)) as progress:
        job = Extraction(network, sink, progress)
        job.run(sample, options, stopped)
    if stopped():
        raise Interrupted("interrupted; nothing was written")
    if not sink.rows:
        return nothing
    share = total / sink.rows
    size = round(total * (sink.bytes / sink.rows + SPAN_BYTES))
    return Forecast(
        len(todo), skipped, len(known), total, size, share * job.seconds_at_work, len(job.done), network.watch.shares(), unreadable
    )


class _Measure:
    """A sink that keeps nothing but the sizes."""

    def __init__(self) -> None:
        self.rows = self.bytes = 0

    def add(self, key: str, features: Features) -> None:
        self.rows += len(features.frames)
        self.bytes += sum(level.nbytes for level in features.values.values())

    def fail(self, key: str, stage: str, reason: str, path: Path) -> None:
        """A failure is counted when it comes for good."""

    def refused(self, wait: bool = False) -> list[tuple[str, str]]:
        return []


def count_clips(
    videos: Iterable[Video], spec: FeatureSpec, options: RunOptions, stopped: Callable[[], bool]
) -> tuple[dict[str, int], dict[str, str]]:
    """Clips of each video by its container's packets, and why there are none; nothing is decoded."""
    jobs = {video.id: DecodeJob(video.path, spec) for video in videos}
    clips: dict[str, int] = {}
    unreadable: dict[str, str] = {}
    pool = WorkerPool(promised_clips, worker_count(options.workers, len(jobs)), options.timeout_seconds, options.tries)
    with Progress("count", len(jobs)) as progress, closing(pool.run(jobs.items(), stopped)) as events:
        for event in events:
            if isinstance(event, Finished):
                clips[event.key] = event.result
            elif isinstance(event, Failed):
                unreadable[event.key] = event.reason
            progress.advance(isinstance(event, Finished | Failed))
    if stopped():
        raise Interrupted("interrupted; nothing was written")
    return clips, unreadable
