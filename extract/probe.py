"""What the packets of videos promise, read in parallel: clips and frames of each; nothing is decoded. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from typing import NamedTuple

from extract.clips import clip_indices
from extract.decode import DecodeJob, Stream
from extract.pool import Failed, Finished, WorkerPool, worker_count
from extract.spec import FeatureSpec, RunOptions
from extract.video import open_source
from extract.worker import Emitter, StageError
from store.errors import DecodeError, Interrupted
from store.progress import Progress
from store.videos import Video

SAMPLE_VIDEOS = 4  # to time


class Work(NamedTuple):
    """What the packets of one video promise: clips of each stream by its number, and the frames to decode for them."""

    clips: dict[int, int]
    frames: int

    @property
    def all_clips(self) -> int:
        """Of all streams together."""
        return sum(self.clips.values())


def promised_work(job: DecodeJob, emitter: Emitter) -> Work:
    """The ``Work`` of one video."""
    decode = next(iter(job.streams.values())).spec.decode
    try:
        with open_source(job.path, decode, on_progress=emitter.alive, draft=True) as source:
            specs = {number: stream.spec for number, stream in job.streams.items()}
            clips = {number: len(clip_indices(source.num_frames, spec.clips, spec.flow)) for number, spec in specs.items()}
            return Work(clips, source.num_frames)
    except DecodeError as error:
        raise StageError("decode", str(error)) from None


def probe(
    videos: Iterable[Video], specs: Sequence[FeatureSpec], options: RunOptions, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Work], dict[str, str]]:
    """``Work`` of every video that can be opened, and the reasons of those that cannot, by id, in the order of ``videos``.

    ``specs`` share ``FeatureSpec.decode``. Raises ``Interrupted`` once ``stopped()`` is true.
    """
    streams = {number: Stream(spec) for number, spec in enumerate(specs)}
    jobs = {video.id: DecodeJob(video.path, streams) for video in videos}
    found: dict[str, Work] = {}
    unreadable: dict[str, str] = {}
    pool = WorkerPool(promised_work, worker_count(options.workers, len(jobs)), options.timeout_seconds, options.tries)
    with Progress("count", len(jobs)) as progress, closing(pool.run(jobs.items(), stopped)) as events:
        for event in events:
            if isinstance(event, Finished):
                found[event.key] = event.result
            elif isinstance(event, Failed):
                unreadable[event.key] = event.reason
            progress.advance(isinstance(event, Finished | Failed))
    if stopped():
        raise Interrupted("interrupted; nothing was written")
    return {key: found[key] for key in jobs if key in found}, {key: unreadable[key] for key in jobs if key in unreadable}


def sample(work: Mapping[str, Work], count: int = SAMPLE_VIDEOS) -> list[str]:
    """Which videos to time: from equal parts of all, ordered by clips, then frames; each once."""
    by_size = sorted(work, key=lambda key: (work[key].all_clips, work[key].frames))
    places = [(2 * place + 1) * len(by_size) // (2 * count) for place in range(count)] if by_size else []
    return list(dict.fromkeys(by_size[place] for place in places))
