"""What an extraction would do, and how long it would take here: counts packets, times a few videos, writes nothing."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from extract.backbones import Backbone
from extract.device import resolve_device
from extract.engine import Extraction, make_extraction, run_together
from extract.network import Network
from extract.passes import as_before, check_device
from extract.probe import probe, sample
from extract.run import outstanding
from extract.spec import FeatureSpec, RunOptions
from store.claims import is_untouched
from store.errors import Interrupted
from store.features import Features, FeatureStore
from store.progress import Progress
from store.videos import Video, VideoList

TIMED_SECONDS = 60.0  # then what has come of them is enough
SPAN_BYTES = 32  # first and last frame, begin and end in seconds, of one row


@dataclass(frozen=True)
class Forecast:
    """What is to be done. ``bytes`` is None where there are no clips, ``seconds`` when none of the ``timed`` videos could be decoded.

    With several stores ``seconds`` are for all of them together.
    """

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


@dataclass(frozen=True)
class Coming:
    """What a store is to be filled from: a resolved spec, its network, and the store (None: not there yet)."""

    spec: FeatureSpec
    backbone: Backbone
    store: FeatureStore | None


def forecast(
    videos: VideoList, streams: Sequence[Coming], options: RunOptions, stopped: Callable[[], bool] = lambda: False
) -> list[Forecast]:
    """For each stream count the clips of every video that its store lacks; time a few videos, done for all streams at once."""
    known = [outstanding(videos, each.store, options.retry_failed) if each.store else (list(videos), 0, {}) for each in streams]
    todo = {video.id: video for videos_left, _, _ in known for video in videos_left}
    work, unreadable = probe(todo.values(), [stream.spec for stream in streams], options, stopped)
    counted = []
    for number, (left, skipped, before) in enumerate(known):
        total = sum(work[video.id].clips[number] for video in left if video.id in work)
        missing = {video.id: unreadable[video.id] for video in left if video.id in unreadable}
        counted.append(Forecast(len(left), skipped, len(before), total, unreadable=missing))
    chosen = set(sample(work))
    trials: list[tuple[Extraction, list[Video]]] = []
    for number, stream in enumerate(streams) if chosen else ():
        if stream.store and known[number][0] and not options.any_device and not is_untouched(stream.store):
            check_device(stream.store.path, resolve_device(options.device))
        noted = as_before(options, stream.store.path, resolve_device(options.device)) if stream.store else options
        job = make_extraction(stream.backbone, stream.spec, noted, _Nowhere(), trials[0][0] if trials else None)
        counted[number] = replace(counted[number], bytes=counted[number].clips * (clip_bytes(job.network) + SPAN_BYTES))
        trials.append((job, [video for video in known[number][0] if video.id in chosen]))
    return timed(counted, trials, options, stopped) if trials else counted


def timed(
    counted: list[Forecast], work: Sequence[tuple[Extraction, list[Video]]], options: RunOptions, stopped: Callable[[], bool]
) -> list[Forecast]:
    """Forecasts' time from some of their videos, which run to their ends or for ``TIMED_SECONDS``."""

    def enough() -> bool:
        job = work[0][0]
        return stopped() or (job.seconds_at_work > TIMED_SECONDS and any(job.clips_so_far for job, _ in work))

    with Progress("time", len({video.id for _, videos in work for video in videos})) as progress:
        run_together(work, progress, options, enough, hold=False)
    if stopped():
        raise Interrupted("interrupted; nothing was written")
    return [
        replace(
            each,
            seconds=job.seconds_at_work * each.clips / job.clips_so_far,
            timed=len(job.done) + job.under_way,
            partly=job.under_way,
            shares=job.network.watch.shares(),
        )
        if job.clips_so_far
        else each
        for each, (job, _) in zip(counted, work, strict=True)
    ]


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
        """Nothing is."""
        return []

    def flush(self) -> None:
        """There is nothing to wait for."""
