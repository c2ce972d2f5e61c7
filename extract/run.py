"""Stage one: a list of videos becomes features in a store."""

import os
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from extract.backbones import Backbone
from extract.decode import DecodeJob, decode_clips
from extract.network import Network, VideoFeatures
from extract.pool import Block, Event, Failed, Finished, Opened, WorkerPool
from extract.precision import exact_arithmetic
from extract.spec import FeatureSpec, RunOptions
from store.errors import FeatureError, Interrupted, PipelineError
from store.features import FeatureStore, FeatureWriter
from store.progress import Progress
from store.videos import Video, VideoList


@dataclass(frozen=True)
class Summary:
    """How an extraction ended: done + skipped + failed = the videos asked for."""

    done: int
    skipped: int
    failed: dict[str, tuple[str, str]]  # id -> (stage, reason), failures recorded by earlier runs included
    damaged: dict[str, str] = field(default_factory=dict)  # shard -> why it cannot be used; its videos count as missing
    seconds: dict[str, float] = field(default_factory=dict)  # per stage; "wait" is time without frames to work on

    @property
    def asked(self) -> int:
        """Videos asked for."""
        return self.done + self.skipped + len(self.failed)


def extract_features(
    videos: VideoList,
    spec: FeatureSpec,
    store: FeatureStore,
    backbone: Backbone,
    options: RunOptions,
    part: str = "main",
    stopped: Callable[[], bool] = lambda: False,
) -> Summary:
    """Put the features of every video of the list that the store lacks into it.

    ``backbone`` is prepared (weights loaded, on the device) and ``spec`` resolved. A video that cannot be done is recorded as failed
    and the rest goes on. Raises ``Interrupted``, with everything complete published, once ``stopped()`` is true.
    """
    started = time.perf_counter()
    network = Network(backbone, spec, resolve_device(options.device), options.batch_size)
    todo, skipped, known = outstanding(videos, store, options.retry_failed)
    flow_root = Path(options.flow_root) if options.flow_root else None
    pool = WorkerPool(decode_clips, worker_count(options.workers, len(todo)), options.timeout_seconds, options.tries)
    with store.writer(part, max_seconds=options.publish_seconds) as writer, Progress("extract", len(todo)) as progress, exact_arithmetic():
        job = _Extraction(network, writer, progress, {video.id: video for video in todo})
        with closing(pool.run(((video.id, DecodeJob(video.path, spec, video.id, flow_root)) for video in todo), stopped)) as events:
            while (event := job.next(events)) is not None:
                job.handle(event)
        left = len(todo) - job.done - len(job.failed)
    seconds = {**network.watch.seconds, "total": time.perf_counter() - started}
    if left:
        raise Interrupted(
            f"interrupted with {left} of {len(videos)} videos left; all finished ones are in {store.path}; run the command again"
        )
    damaged = {name: str(error) for name, error in sorted(store.damaged.items())}
    return Summary(job.done, skipped, {**known, **job.failed}, damaged, seconds)


class _Extraction:
    """What is under way: the features gathered so far of each video that a worker is sending."""

    def __init__(self, network: Network, writer: FeatureWriter, progress: Progress, videos: dict[str, Video]) -> None:
        self.network, self.writer, self.progress, self.videos = network, writer, progress, videos
        self.done, self.clips = 0, 0
        self.failed: dict[str, tuple[str, str]] = {}
        self._gathering: dict[str, VideoFeatures] = {}

    def next(self, events: Any) -> Event | None:
        """The next thing that a worker has to say; the time without one is the decoders' debt."""
        with self.network.watch.stage("wait"):
            return next(events, None)

    def handle(self, event: Event) -> None:
        """Act on one event; a problem with the features of one video fails that video."""
        try:
            self._act(event)
        except FeatureError as error:
            self._fail(event.key, "features", str(error))
        with self.network.watch.stage("store"):
            self.writer.publish_due()

    def _act(self, event: Event) -> None:
        if isinstance(event, Failed):
            self._fail(event.key, event.stage, event.reason)
        elif event.key in self.failed:
            return  # its worker goes on sending what is no longer wanted
        elif isinstance(event, Opened):
            self._gathering[event.key] = VideoFeatures(self.network, event.header)
        elif isinstance(event, Block):
            self._gathering[event.key].add(event.frames)
            self.progress.note()
        elif isinstance(event, Finished):
            features = self._gathering.pop(event.key).finish()
            with self.network.watch.stage("store"):
                self.writer.add(event.key, features)
            self.done += 1
            self.clips += len(features.frames)
            self.progress.advance(note=f"{self.clips} clips, {len(self.failed)} failed")

    def _fail(self, key: str, stage: str, reason: str) -> None:
        self._gathering.pop(key, None)
        if key in self.failed:
            return
        self.writer.fail(key, stage, reason, path=self.videos[key].path)
        self.failed[key] = (stage, reason)
        self.progress.advance(note=f"{self.clips} clips, {len(self.failed)} failed")


def outstanding(videos: VideoList, store: FeatureStore, retry_failed: bool) -> tuple[list[Video], int, dict[str, tuple[str, str]]]:
    """Split a list by what the store knows: videos to do, the number that is there, and ``{id: (stage, reason)}`` recorded as failed.

    A failed video whose file has changed since is to do again.
    """
    missing = set(store.missing(videos.ids))
    failures = {} if retry_failed else store.failures()
    known = {
        video.id: (failures[video.id].stage, failures[video.id].reason)
        for video in videos
        if video.id in missing and video.id in failures and failures[video.id].is_current(video.path)
    }
    todo = [video for video in videos if video.id in missing and video.id not in known]
    return todo, len(videos) - len(missing), known


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; a device that is not there is a ``PipelineError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # "meta" makes tensors without values
    except (RuntimeError, AssertionError) as error:
        raise PipelineError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


def worker_count(asked: int, videos: int) -> int:
    """Decoding processes to start: never more than videos."""
    return max(1, min(asked or min(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, 8), videos))
