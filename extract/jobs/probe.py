"""How much work each outstanding video is: its packets, read in parallel; nothing is decoded. Imports no torch."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from extract.clips import clip_indices
from extract.pool import Failed, Finished, WorkerPool
from extract.spec import FeatureSpec, RunOptions
from extract.video import open_source
from extract.worker import Emitter, StageError
from store.errors import DecodeError, Interrupted
from store.progress import Progress
from store.videos import Video

FRAMES_A_CLIP = 200.0  # decoding so many frames counts as one clip more, where no rate has been measured
UNREADABLE = 1.0  # clips' worth of work: a video that cannot be opened is still opened, and its failure recorded


class ProbeJob(NamedTuple):
    """A video, and the specs of all stores that it is to go into; they share ``decode``."""

    path: Path
    specs: tuple[FeatureSpec, ...]


class Work(NamedTuple):
    """What the packets of one video promise, all stores together."""

    clips: int
    frames: int


def promised_work(job: ProbeJob, emitter: Emitter) -> Work:
    """The clips that a video's packets promise, and the frames that must be decoded for them."""
    try:
        with open_source(job.path, job.specs[0].decode, on_progress=emitter.alive, draft=True) as source:
            return Work(sum(len(clip_indices(source.num_frames, spec.clips)) for spec in job.specs), source.num_frames)
    except DecodeError as error:
        raise StageError("decode", str(error)) from None


def probe(
    videos: Iterable[Video], specs: Sequence[FeatureSpec], options: RunOptions, workers: int, stopped: Callable[[], bool] = lambda: False
) -> tuple[dict[str, Work], dict[str, str]]:
    """``Work`` of every video that can be opened, and the reasons of those that cannot, by id, in the order of ``videos``."""
    jobs = {video.id: ProbeJob(video.path, tuple(specs)) for video in videos}
    found: dict[str, Work] = {}
    unreadable: dict[str, str] = {}
    pool = WorkerPool(promised_work, workers, options.timeout_seconds, options.tries)
    with Progress("probe", len(jobs)) as progress, closing(pool.run(jobs.items(), stopped)) as events:
        for event in events:
            if isinstance(event, Finished):
                found[event.key] = event.result
            elif isinstance(event, Failed):
                unreadable[event.key] = event.reason
            progress.advance(isinstance(event, Finished | Failed))
    if stopped():
        raise Interrupted("interrupted; nothing was planned")
    return {key: found[key] for key in jobs if key in found}, unreadable


def costs(work: Mapping[str, Work], unreadable: Iterable[str], order: Iterable[str]) -> dict[str, float]:
    """Work of each video in clips, decoding included, in the order of ``order``."""
    known = {key: each.clips + each.frames / FRAMES_A_CLIP for key, each in work.items()} | dict.fromkeys(unreadable, UNREADABLE)
    return {key: known[key] for key in order if key in known}
