"""The extraction of many videos at once: decode workers -> shared memory -> forward passes -> float32 means -> a sink."""

import os
import time
from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

from extract.backbones import Backbone
from extract.decode import DecodeJob, decode_clips
from extract.device import resolve_device
from extract.network import Network
from extract.pool import Block, Event, Failed, Finished, Opened, WorkerPool
from extract.precision import exact_arithmetic
from extract.publish import Sink
from extract.spec import FeatureSpec, RunOptions
from extract.video_features import VideoFeatures
from store.errors import FeatureError, PipelineError
from store.progress import Progress
from store.videos import Video

MOST_WORKERS = 8  # by default
POLITENESS = 10  # niceness of decoders that share the processors with the network: they run while it waits for memory, or for them


def make_network(backbone: Backbone, spec: FeatureSpec, options: RunOptions) -> Network:
    """A network ready for its first pass; compiled, and known to treat the rows of a mixed pass alike."""
    device = resolve_device(options.device)
    mixed = options.mixed == "yes" or (options.mixed == "auto" and device.type == "cuda")
    network = Network(backbone, spec, device, options.batch_size, mixed)
    with exact_arithmetic():
        if spec.compile:
            network.warm_up()
        if not mixed or network.rows_agree():
            return network
    if options.mixed == "yes":
        raise PipelineError(f"on {device} features of {spec.backbone} depend on their place in a pass; set --mixed no")
    return Network(backbone, spec, device, options.batch_size)


class Extraction:
    """What is under way: the features gathered so far of each video that a worker is sending."""

    def __init__(self, network: Network, sink: Sink, progress: Progress) -> None:
        self.network, self.sink, self.progress = network, sink, progress
        self.clips = 0
        self.done: dict[str, int] = {}  # id -> clips
        self.failed: dict[str, tuple[str, str]] = {}
        self._videos: dict[str, Video] = {}
        self._pool: WorkerPool | None = None
        self._gathering: dict[str, VideoFeatures] = {}
        self._closing: dict[str, VideoFeatures] = {}  # whose frames are all here, in the order of their ends

    def run(self, videos: Iterable[Video], options: RunOptions, stopped: Callable[[], bool] = lambda: False, hold: bool = True) -> None:
        """Give every video's features, or its failure, to the sink; ends early, with what is complete, once ``stopped()`` is true.

        Without ``hold`` frames come as they are decoded, before their video is known to be whole.
        """
        self._videos = {video.id: video for video in videos}
        niceness = POLITENESS if self.network.device.device.type == "cpu" else 0
        workers = worker_count(options.workers, len(self._videos))
        pool = self._pool = WorkerPool(decode_clips, workers, options.timeout_seconds, options.tries, niceness)
        with exact_arithmetic():
            with closing(pool.run(self._jobs(options, hold), stopped)) as events:
                while (event := self._next(events)) is not None:
                    self._handle(event)
            self.network.finish()
            self._hand_over()
        self._take_back(wait=True)

    @property
    def seconds_at_work(self) -> float:
        """Since the first worker began its first video: the workers' start is left out."""
        heard = self._pool.heard if self._pool else None
        return time.monotonic() - heard if heard else 0.0

    @property
    def clips_so_far(self) -> float:
        """Clips done, and of videos under way as many as their frames that are here."""
        return self.clips + sum(video.clips_here for video in (*self._gathering.values(), *self._closing.values()))

    @property
    def under_way(self) -> int:
        """Videos of which some frames, but not all features, are here."""
        return sum(video.clips_here > 0 for video in (*self._gathering.values(), *self._closing.values()))

    def _jobs(self, options: RunOptions, hold: bool) -> Iterable[tuple[str, DecodeJob]]:
        flow_root = Path(options.flow_root) if options.flow_root else None
        spec, weights = self.network.spec, options.flow_weights
        return ((key, DecodeJob(video.path, spec, key, flow_root, weights, hold)) for key, video in self._videos.items())

    def _next(self, events: Any) -> Event | None:
        """The next thing that a worker has to say; the time without one is the decoders' debt."""
        with self.network.watch.stage("decode"):
            return next(events, None)

    def _handle(self, event: Event) -> None:
        """Act on one event; a problem with the features of one video fails that video."""
        try:
            self._act(event)
        except FeatureError as error:
            self._fail(event.key, "features", str(error))
        self._hand_over()

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
            video = self._closing[event.key] = self._gathering.pop(event.key)
            video.close(event.result)

    def _hand_over(self) -> None:
        """Give the sink what is complete, and take back what it refuses."""
        self.network.collect()
        for key in [key for key, video in self._closing.items() if video.complete]:
            try:
                features = self._closing.pop(key).finish()
            except FeatureError as error:
                self._fail(key, "features", str(error))
                continue
            with self.network.watch.stage("store"):
                self.sink.add(key, features)
            self.done[key] = len(features.frames)
            self.clips += len(features.frames)
            self.progress.advance(note=self._note())
        self._take_back()

    def _take_back(self, wait: bool = False) -> None:
        with self.network.watch.stage("store"):
            refused = self.sink.refused(wait)
        for key, reason in refused:
            self.clips -= self.done.pop(key)
            self.progress.advance(-1)  # it was counted as done, and is counted again as failed
            self._fail(key, "features", reason)

    def _fail(self, key: str, stage: str, reason: str) -> None:
        self._gathering.pop(key, None)
        self._closing.pop(key, None)
        if key in self.failed:
            return
        with self.network.watch.stage("store"):
            self.sink.fail(key, stage, reason, self._videos[key].path)
        self.failed[key] = (stage, reason)
        self.progress.advance(note=self._note())

    def _note(self) -> str:
        watch = self.network.watch
        failed = f"  {len(self.failed)} failed" if self.failed else ""
        return f"{self.clips} clips  {self.clips / max(watch.total, 1e-9):.2f} clips/s  time: {watch.shares()}{failed}"


def worker_count(asked: int, videos: int) -> int:
    """Decoding processes to start: never more than videos."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(asked or min(processors, MOST_WORKERS), videos))
