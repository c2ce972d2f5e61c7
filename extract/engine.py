"""The extraction of many videos at once: decode workers -> shared memory -> forward passes -> float32 means -> a sink."""

import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from extract.backbones import Backbone
from extract.decode import DecodeJob, Refused, Stream, decode_clips
from extract.device import resolve_device
from extract.flow import weights_for
from extract.flow_device import FlowQueue, FlowVideo, device_flow
from extract.network import Network
from extract.pool import Block, Event, Failed, Finished, Idle, Opened, WorkerPool, worker_count
from extract.precision import exact_arithmetic
from extract.publish import Sink
from extract.spec import FeatureSpec, RunOptions
from extract.turns import Turns
from extract.video_features import VideoFeatures
from extract.worker import StageError
from store.claims import Claims
from store.errors import FeatureError, PipelineError
from store.memory import keep_memory
from store.progress import Progress
from store.videos import Video

POLITENESS = 10  # niceness of decoders that share the processors with the network: they run while it waits for memory, or for them


def make_network(backbone: Backbone, spec: FeatureSpec, options: RunOptions) -> Network:
    """A network ready for its first pass; compiled, and known to treat the rows of a mixed pass alike."""
    device = resolve_device(options.device)
    if device.type == "cpu":
        keep_memory()
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


def make_extraction(
    backbone: Backbone, spec: FeatureSpec, options: RunOptions, sink: Sink, beside: "Extraction | None" = None
) -> "Extraction":
    """An extraction into ``sink``, its time told by the stopwatch of the one that it runs ``beside``."""
    network = make_network(backbone, spec, options)
    network.watch = beside.network.watch if beside else network.watch
    return Extraction(network, sink, device_flow(network, options))


class Extraction:
    """One stream of what is under way: the features gathered so far of each video that a worker is sending."""

    def __init__(self, network: Network, sink: Sink, flow: FlowQueue | None = None) -> None:
        """``flow`` computes the flow of the frames; without it workers do, or there is none."""
        self.network, self.sink, self.flow = network, sink, flow
        self.clips = 0
        self.done: dict[str, int] = {}  # id -> clips
        self.failed: dict[str, tuple[str, str]] = {}
        self.left: set[str] = set()  # neither done nor failed
        self.elsewhere: set[str] = set()  # done by another job meanwhile
        self.ended: list[str] = []  # done or failed since somebody last looked
        self.pool: WorkerPool | None = None  # that decodes for it
        self._videos: dict[str, Video] = {}
        self._gathering: dict[str, VideoFeatures | FlowVideo] = {}
        self._closing: dict[str, VideoFeatures | FlowVideo] = {}  # whose frames are all here, in the order of their ends

    def expect(self, videos: Iterable[Video], pool: WorkerPool) -> None:
        """The videos that will come, and from where."""
        self.pool = pool
        self._videos = {video.id: video for video in videos}
        self.left = set(self._videos)

    def __contains__(self, key: str) -> bool:
        return key in self._videos

    def leave(self, key: str, failure: tuple[str, str] | None = None) -> None:
        """Another job has done this video meanwhile, or recorded a failure (stage and reason)."""
        if failure is None:
            self.elsewhere.add(key)
        else:
            self.failed[key] = failure
        self._end(key)

    @property
    def seconds_at_work(self) -> float:
        """Since the first worker began its first video: the workers' start is left out."""
        heard = self.pool.heard if self.pool else None
        return time.monotonic() - heard if heard else 0.0

    @property
    def clips_so_far(self) -> float:
        """Clips done, and of videos under way as many as their frames that are here."""
        return self.clips + sum(video.clips_here for video in (*self._gathering.values(), *self._closing.values()))

    @property
    def under_way(self) -> int:
        """Videos of which some frames, but not all features, are here."""
        return sum(video.clips_here > 0 for video in (*self._gathering.values(), *self._closing.values()))

    def stream(self, options: RunOptions) -> Stream:
        """What workers are to send."""
        spec = self.network.spec
        return Stream(spec, weights_for(spec.flow, options.flow_weights), self.flow.inputs if self.flow else "")

    def handle(self, event: Event) -> None:
        """Act on one event; a problem with the features of one video fails that video."""
        try:
            self._act(event)
        except FeatureError as error:
            self._fail(event.key, "features", str(error))
        self._hand_over()

    def _act(self, event: Event) -> None:
        if isinstance(event, Idle):
            self.finish()
            self.sink.flush()
        elif event.key in self.failed or event.key in self.elsewhere:
            return  # its worker goes on sending what is no longer wanted
        elif isinstance(event, Failed):
            self._fail(event.key, event.stage, event.reason)
        elif isinstance(event, Opened):
            video = VideoFeatures(self.network, event.header)
            self._gathering[event.key] = FlowVideo(video, self.flow, self._videos[event.key].path) if self.flow else video
        elif isinstance(event, Block):
            self._gathering[event.key].add(event.frames)
        elif isinstance(event, Finished):
            closing = self._closing[event.key] = self._gathering.pop(event.key)
            closing.close(event.result)

    def finish(self) -> None:
        """Nothing is under way: compute what still waits for a full batch, and hand it over."""
        if self.flow:
            self.flow.finish()
        self.network.finish()
        self._hand_over()
        self._take_back(wait=True)

    def _hand_over(self) -> None:
        """Give the sink what is complete, and take back what it refuses."""
        self.network.collect()
        for key in [key for key, video in self._closing.items() if video.complete]:
            try:
                features = self._closing.pop(key).finish()
            except FeatureError as error:
                self._fail(key, "features", str(error))
                continue
            except StageError as error:
                self._fail(key, error.stage, str(error))
                continue
            with self.network.watch.stage("store"):
                self.sink.add(key, features)
            self.done[key] = len(features.frames)
            self._end(key)
            self.clips += len(features.frames)
        self._take_back()

    def _take_back(self, wait: bool = False) -> None:
        with self.network.watch.stage("store"):
            refused = self.sink.refused(wait)
        for key, reason in refused:
            self.clips -= self.done.pop(key)
            self._fail(key, "features", reason)

    def _fail(self, key: str, stage: str, reason: str) -> None:
        self._gathering.pop(key, None)
        self._closing.pop(key, None)
        if key in self.failed:
            return
        with self.network.watch.stage("store"):
            self.sink.fail(key, stage, reason, self._videos[key].path)
        self.failed[key] = (stage, reason)
        self._end(key)

    def _end(self, key: str) -> None:
        self.left.discard(key)
        self.ended.append(key)


def run_together(
    work: Sequence[tuple[Extraction, Sequence[Video]]],
    progress: Progress,
    options: RunOptions,
    stopped: Callable[[], bool] = lambda: False,
    hold: bool = True,
    claims: Sequence[Claims] = (),
) -> None:
    """Give every video's features, or its failure, to the sink of each extraction that it is listed with; it is decoded once for all.

    The extractions' specs share ``FeatureSpec.decode``, and their networks a stopwatch. Ends early, with what is complete, once
    ``stopped()`` is true. Without ``hold`` frames come as they are decoded, before their video is known to be whole; those of the first
    videos do in any case, since the network has nothing else to do.
    ``claims``, one an extraction, say what other jobs are at; those videos are waited for. What a job died at is done last, alone.
    """
    extractions = [extraction for extraction, _ in work]
    paths = {video.id: video.path for _, videos in work for video in videos}
    network = extractions[0].network
    niceness = POLITENESS if network.device.device.type == "cpu" else 0
    workers = worker_count(options.workers, len(paths))
    pool = WorkerPool(decode_clips, workers, options.timeout_seconds, options.tries, niceness)
    held_from = workers if hold else len(paths)
    for extraction, videos in work:
        extraction.expect(videos, pool)
    tally = _Tally(extractions, progress)
    turns = Turns(extractions, claims, options.job_tries, tally.count)
    jobs = dict(_jobs(extractions, paths, options, held_from))

    def finish() -> None:
        for extraction in extractions:
            extraction.finish()

    def run(keys: Iterable[str], alone: bool = False) -> None:
        with closing(pool.run([(key, jobs[key]) for key in keys], stopped, turns, alone)) as events:
            while (event := _next(network, events)) is not None:
                for extraction, part in split(event, extractions):
                    extraction.handle(part)
                if alone and isinstance(event, Finished | Failed):
                    finish()  # before the next video begins
                tally.count()
        finish()
        tally.count()

    with exact_arithmetic():
        run(jobs)
        if turns.suspects and not stopped():
            for extraction in extractions:
                extraction.sink.flush()
            run(turns.next_suspects(), alone=True)


class _Tally:
    """Tells progress: of videos that every extraction which wants them is done with."""

    def __init__(self, extractions: Sequence[Extraction], progress: Progress) -> None:
        self._extractions, self._progress = extractions, progress
        self._failed: set[str] = set()
        self._counted: set[str] = set()  # the writer may refuse later what was counted

    def count(self) -> None:
        ended = [key for extraction in self._extractions for key in extraction.ended]
        whole = {key for key in ended if not any(key in extraction.left for extraction in self._extractions)} - self._counted
        self._counted |= whole
        self._failed |= {key for key in ended if any(key in extraction.failed for extraction in self._extractions)}
        for extraction in self._extractions:
            extraction.ended.clear()
        watch = self._extractions[0].network.watch
        clips = sum(extraction.clips for extraction in self._extractions)
        words = f"{clips} clips  {clips / max(watch.total, 1e-9):.2f} clips/s  time: {watch.shares()}"
        self._progress.advance(len(whole), f"{words}  {len(self._failed)} failed" if self._failed else words)


def _jobs(
    extractions: Sequence[Extraction], paths: Mapping[str, Path], options: RunOptions, held_from: int
) -> Iterable[tuple[str, DecodeJob]]:
    streams = [extraction.stream(options) for extraction in extractions]
    flow_root = Path(options.flow_root) if options.flow_root else None
    for place, (key, path) in enumerate(paths.items()):
        wanted = {number: stream for number, stream in enumerate(streams) if key in extractions[number]}
        yield key, DecodeJob(path, wanted, key, flow_root, hold=place >= held_from)


def _next(network: Network, events: Any) -> Event | None:
    """The next thing that a worker has to say; the time without one is the decoders' debt."""
    with network.watch.stage("decode"):
        return next(events, None)


def split(event: Event, extractions: Sequence[Extraction]) -> Iterator[tuple[Extraction, Event]]:
    """What an event of a job means to each extraction; a failure of the whole job is one to all that want the video."""
    if isinstance(event, Idle):
        yield from ((extraction, event) for extraction in extractions)
    elif isinstance(event, Failed):
        yield from ((extraction, event) for extraction in extractions if event.key in extraction)
    elif isinstance(event, Finished):
        for number, result in event.result.items():
            failed = isinstance(result, Refused)
            yield extractions[number], Failed(event.key, result.stage, result.reason) if failed else Finished(event.key, result)
    else:
        yield extractions[event.stream], event
