"""What an extraction would do, and how long it would take here: counts packets, times a few videos, writes nothing."""

from collections.abc import Callable, Iterable
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

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
TIMED_SECONDS = 60.0  # then what has come of them is enough
SPAN_BYTES = 32  # first and last frame, begin and end in seconds, of one row


@dataclass(frozen=True)
class Forecast:
    """What is to be done. ``bytes`` is None where there are no clips, ``seconds`` when none of the ``timed`` videos could be decoded."""

    todo: int
    skipped: int  # are in the store already
    failed: int  # are recorded as failed, and their files have not changed
    clips: int  # by the containers' packets
    bytes: int | None = None
    seconds: float | None = None
    timed: int = 0  # videos
    partly: int = 0  # of them, not to their end
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
    total = sum(clips.values())
    counted = Forecast(len(todo), skipped, len(known), total, unreadable=unreadable)
    if not clips:
        return counted
    by_size = sorted(clips, key=lambda key: clips[key])
    chosen = {by_size[(2 * place + 1) * len(by_size) // (2 * TIMED_VIDEOS)] for place in range(TIMED_VIDEOS)}
    network = make()
    counted = replace(counted, bytes=total * (clip_bytes(network) + SPAN_BYTES))
    return timed(counted, [video for video in todo if video.id in chosen], network, options, stopped)


def timed(counted: Forecast, sample: list[Video], network: Network, options: RunOptions, stopped: Callable[[], bool]) -> Forecast:
    """A forecast's time from some of its videos, which run to their ends or for ``TIMED_SECONDS``."""
    with Progress("time", len(sample)) as progress:
        job = Extraction(network, _Nowhere(), progress)

        def enough() -> bool:
            return stopped() or (job.clips_so_far > 0 and job.seconds_at_work > TIMED_SECONDS)

        job.run(sample, options, enough, hold=False)
        clips, seconds = job.clips_so_far, job.seconds_at_work
    if stopped():
        raise Interrupted("interrupted; nothing was written")
    if not clips:
        return counted
    partly = job.under_way
    return replace(
        counted, seconds=seconds * counted.clips / clips, timed=len(job.done) + partly, partly=partly, shares=network.watch.shares()
    )


def clip_bytes(network: Network) -> int:
    """Bytes that the stored features of one clip take."""
    spec, info = network.spec, network.backbone.info
    units = network.noise().expand(network.units_per_pass, *[-1] * 5)  # the one size that a compiled network knows
    numbers = sum(level[0].numel() for level in network.features(units).values())
    frames = spec.clips.length if info.clip_length == 1 and spec.clips.pool == "none" else 1
    return numbers * frames * np.dtype(spec.dtype).itemsize


class _Nowhere:
    """A sink that keeps nothing."""

    def add(self, key: str, features: Features) -> None:
        """It has taken its time, which is all that matters here."""

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
