"""Trajectories of a list of videos as files, many videos at once: what ``actioncache idt extract`` does."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np

from extract.file_work import FileWork
from extract.lasting import MEMORY
from extract.pool import WorkerPool, worker_count
from extract.spec import DecodeSpec
from extract.trajectories.files import FORMATS, write_rows
from extract.trajectories.spec import PATCH, VERSION, TrajectorySpec
from extract.trajectories.walk import grey_frame, trajectories
from extract.video import VideoSource, open_source
from extract.worker import Emitter, StageError
from store import failures
from store.digest import Checked, demand, setting, to_plain
from store.errors import DecodeError, FeatureError, Interrupted, StoreError
from store.files import PARTIAL_SUFFIX, remove_asides, write_text
from store.trajectory_format import trajectory_path
from store.videos import VideoList

ABOUT = "trajectories.json"


@dataclass(frozen=True)
class TrajectoryOptions(Checked):
    """How extraction runs and what the files are; nothing here changes a trajectory."""

    format: Literal["npy", "txt.gz", "txt"] = setting(
        "npy", "npy: arrays, quickest to read; txt.gz and txt: the text that the original program prints"
    )
    workers: int = setting(0, "processes; 0 takes the number of processors")
    timeout_seconds: float = setting(120.0, "a process that finishes no frame for so long is stopped and its video is a failure")
    tries: int = setting(2, "how often a video may kill its process before it is a failure")
    retry_failed: bool = setting(False, "try videos again that failed before and whose file has not changed since")

    def check(self) -> None:
        demand(0 <= self.workers <= 4096, f"workers is {self.workers}; it must be 0 (one a processor) or from 1 to 4096")
        demand(self.tries >= 1, f"tries is {self.tries}; it must be at least 1")
        demand(self.timeout_seconds > 0, f"timeout_seconds is {self.timeout_seconds}; it must be positive")


@dataclass(frozen=True)
class TrajectoryJob:
    """One video for a worker."""

    path: Path
    target: Path
    decode: DecodeSpec
    spec: TrajectorySpec
    format: str


@dataclass(frozen=True)
class Tracked:
    """What came of one video."""

    frames: int
    trajectories: int


@dataclass(frozen=True)
class TrajectorySummary:
    """How extraction ended: done + skipped + failed = the videos asked for. ``empty``: videos just done in which nothing moves."""

    done: int
    skipped: int
    failed: dict[str, tuple[str, str]]  # id -> (stage, reason), failures of earlier runs included
    frames: int
    trajectories: int
    empty: tuple[str, ...]


def extract_list(
    videos: VideoList,
    spec: TrajectorySpec,
    decode: DecodeSpec,
    out: Path,
    options: TrajectoryOptions,
    stopped: Callable[[], bool] = lambda: False,
) -> TrajectorySummary:
    """Write the trajectories of every video whose file is not there yet, below ``out``, under its id.

    A video that cannot be done is recorded as a failure and the rest goes on. Raises ``ListError`` for ids that are no paths before
    anything is written, ``StoreError`` when ``out`` holds trajectories of other settings or the disk refuses, ``Interrupted`` once
    ``stopped()`` is true.
    """
    targets = {video.id: trajectory_path(out, video.id, FORMATS[options.format]) for video in videos}
    open_folder(out, {"version": VERSION, "opencv": cv2.__version__, "decode": to_plain(decode), "trajectories": to_plain(spec)})
    known = {} if options.retry_failed else failures.read_all(out)[0]
    absent = [video for video in videos if not targets[video.id].exists()]
    failed = {video.id: (known[video.id].stage, known[video.id].reason) for video in absent if _still(known.get(video.id), video.path)}
    todo = [video for video in absent if video.id not in failed]
    work = FileWork[Tracked]("trajectories", out, {video.id: video.path for video in todo}, "frames", lambda tracked: tracked.frames)
    jobs = ((video.id, TrajectoryJob(video.path.absolute(), targets[video.id], decode, spec, options.format)) for video in todo)
    pool = WorkerPool(write_trajectories, worker_count(options.workers, len(todo), most=0), options.timeout_seconds, options.tries)
    with work.progress, closing(pool.run(jobs, stopped)) as events:
        for event in events:
            work.handle(event)
    if left := len(todo) - len(work.done) - len(work.failed):
        raise Interrupted(f"interrupted with {left} of {len(videos)} videos left; finished ones are in {out}; run the command again")
    frames, found = (sum(getattr(done, name) for done in work.done.values()) for name in ("frames", "trajectories"))
    empty = tuple(video for video, done in work.done.items() if not done.trajectories)
    return TrajectorySummary(len(work.done), len(videos) - len(absent), {**failed, **work.failed}, frames, found, empty)


def write_trajectories(job: TrajectoryJob, emitter: Emitter) -> Tracked:
    """Track one video and write its file; runs in a worker."""
    cv2.setNumThreads(1)  # the workers are the parallelism
    remove_asides(job.target)
    found = 0
    try:
        with open_source(job.path, job.decode, on_progress=emitter.alive) as source:
            check_size(source, job.spec)
            with write_rows(job.target, job.format) as writer:
                for rows in trajectories(_grey(source, job.spec), source.num_frames, job.spec):
                    writer.add(rows)
                    found += len(rows)
                    emitter.alive()
            return Tracked(source.num_frames, found)
    except DecodeError as error:
        raise StageError("decode", str(error)) from None
    except FeatureError as error:
        raise StageError("track", str(error)) from None
    except OSError as error:
        raise StageError("write", f"{job.target}: {error.strerror or error}") from None


def check_size(source: VideoSource, spec: TrajectorySpec) -> None:
    """Raise ``FeatureError`` for frames that no patch fits into."""
    if not spec.short_side and min(source.height, source.width) < PATCH:
        raise FeatureError(
            f"{source.path}: frames are {source.width}x{source.height}, and a trajectory's patch is {PATCH}x{PATCH} pixels; "
            f"enlarge them with --short-side {PATCH} or more"
        )


def _grey(source: VideoSource, spec: TrajectorySpec) -> Iterator[np.ndarray]:
    for frame in source.frames(np.arange(source.num_frames)):
        yield grey_frame(frame, spec.short_side)


def open_folder(out: Path, settings: dict[str, Any]) -> None:
    """Make ``out`` and write what its files are made with, or check that it holds files of the same settings."""
    file = out / ABOUT
    if file.is_file():
        try:
            before = json.loads(file.read_text(encoding="utf-8"))
            differing = [name for name in settings if before.get(name) != settings[name]]
        except (OSError, ValueError, AttributeError) as error:
            raise StoreError(f"{file} cannot be read ({error}); give a new folder") from None
        if differing:
            changes = "; ".join(f"{name} {before.get(name)} there, {settings[name]} now" for name in differing)
            raise StoreError(f"{out} holds trajectories of other settings ({changes}); give another folder, or the settings of {file}")
    elif out.is_dir() and any(not path.name.startswith(".") and PARTIAL_SUFFIX not in path.name for path in out.iterdir()):
        raise StoreError(f"{out} holds other things and no {ABOUT}, so it may not be what it seems; give a new or an empty folder")
    else:
        write_text(file, json.dumps(settings, indent=2) + "\n")


def _still(failure: failures.Failure | None, path: Path) -> bool:
    return failure is not None and failure.stage != MEMORY and failure.is_current(path)
