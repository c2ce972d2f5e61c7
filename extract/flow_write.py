"""Flow of a list of videos as files, many videos at once: what ``actioncache flow write`` does."""

import json
import os
import secrets
import shutil
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from extract.file_work import FileWork
from extract.flow_files import WRITTEN, WRITTEN_BY, flow_name
from extract.flow_frames import resolve_flow
from extract.flow_layouts import LAYOUTS, WriteJob, WriteSpec, Written, write_video
from extract.pool import WorkerPool, worker_count
from extract.spec import FLOW_FILES
from store.digest import Checked, demand, setting, to_plain
from store.errors import Interrupted, ListError, SpecError, StoreError
from store.exchange.naming import path_problem
from store.files import PARTIAL_SUFFIX, write_text
from store.options import resolve
from store.videos import VideoList

STALE_SECONDS = 24 * 3600.0  # what a killed process left is removed by a later one; a living one touches its folder at every video
SHOWN = 5
UNUSED = ("encoding", "pairs", "offset", "with_rgb", "origin")  # settings of FlowSpec that say nothing about files


@dataclass(frozen=True)
class WriteOptions(Checked):
    """How writing runs; nothing here changes a file."""

    workers: int = setting(0, "processes; 0 takes the number of processors")
    timeout_seconds: float = setting(120.0, "a process that computes no flow for so long is stopped and its video is a failure")
    tries: int = setting(2, "how often a video may kill its process before it is a failure")
    flow_weights: str = setting("", "weights of a flow method that is a network: a file, published, published:NAME or random:SEED")

    def check(self) -> None:
        demand(0 <= self.workers <= 4096, f"workers is {self.workers}; it must be 0 (one a processor) or from 1 to 4096")
        demand(self.tries >= 1, f"tries is {self.tries}; it must be at least 1")
        demand(self.timeout_seconds > 0, f"timeout_seconds is {self.timeout_seconds}; it must be positive")


@dataclass(frozen=True)
class WriteSummary:
    """How writing ended: done + skipped + failed = the videos asked for. ``clipped`` is the share of displacements beyond the bound."""

    done: int
    skipped: int
    failed: dict[str, tuple[str, str]]  # id -> (stage, reason)
    flows: int
    clipped: float
    seconds: float


def resolve_write(overrides: Mapping[str, Any], weights: str = "") -> WriteSpec:
    """A spec with the method's version, its parameters and the rounding written into it: ``dense_flow``, as others expect, unless given."""
    method = overrides.get("flow", {}).get("method", "")
    if method in ("", FLOW_FILES):
        problem = "flow from files is computed already" if method else "no flow method is given"
        raise SpecError(f"{problem}; set --flow.method, e.g. dis, see `actioncache flow methods`")
    spec = resolve(WriteSpec, overrides)
    return replace(spec, flow=replace(resolve_flow(spec.flow, weights), quantise=spec.flow.quantise or "dense_flow"))


def write_list(
    videos: VideoList, spec: WriteSpec, out: Path, options: WriteOptions, stopped: Callable[[], bool] = lambda: False
) -> WriteSummary:
    """Write the flow of every video whose files are not there yet; ``spec`` is resolved.

    Ids become paths below ``out`` and nothing else; one that cannot raises ``ListError`` before anything is written. A video that cannot
    be done is a failure and the rest goes on. Raises ``StoreError`` when ``out`` holds other things or the disk refuses, ``Interrupted``,
    once ``stopped()`` is true.
    """
    started = time.perf_counter()
    targets = video_targets(videos.ids, spec.layout, out)
    open_folder(out, spec)
    todo = [video for video in videos if not all(target.exists() for target in targets[video.id])]
    writing = FileWork[Written]("flow", out, {video.id: video.path for video in todo}, "flows", lambda written: written.flows)
    aside = out / f".{secrets.token_hex(4)}{PARTIAL_SUFFIX}"
    jobs = (
        (video.id, WriteJob(video.path.absolute(), targets[video.id], aside / str(number), spec, options.flow_weights))
        for number, video in enumerate(todo)
    )
    pool = WorkerPool(write_video, worker_count(options.workers, len(todo), most=0), options.timeout_seconds, options.tries)
    aside.mkdir()
    try:
        with writing.progress, closing(pool.run(jobs, stopped)) as events:
            for event in events:
                writing.handle(event)
                os.utime(aside)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    if left := len(todo) - len(writing.done) - len(writing.failed):
        raise Interrupted(
            f"interrupted with {left} of {len(videos)} videos left; all finished ones are complete in {out}; run the command again"
        )
    flows, clipped, displacements = (sum(getattr(written, name) for written in writing.done.values()) for name in vars(Written(0, 0, 0)))
    share = clipped / max(1, displacements)
    return WriteSummary(len(writing.done), len(videos) - len(todo), writing.failed, flows, share, time.perf_counter() - started)


def video_targets(ids: list[str], layout: str, out: Path) -> dict[str, tuple[Path, ...]]:
    """Id -> the paths of its units. One ``ListError`` for ids that are no path, or whose files would be among another's."""
    names = {video_id: flow_name(video_id) for video_id in ids if not path_problem(video_id)}
    problems = [f"{video_id[:80]!r} {problem}" for video_id in ids if (problem := path_problem(video_id))]
    owner: dict[str, str] = {}
    for video_id, name in names.items():
        if (other := owner.setdefault(name, video_id)) != video_id:
            problems.append(f"{other!r} and {video_id!r} would both be {name!r}")
    for name, video_id in owner.items() if LAYOUTS[layout].images else ():
        problems += [f"{video_id!r} would be inside {owner[str(above)]!r}" for above in Path(name).parents if str(above) in owner]
    if problems:
        more = f"\n  ... and {len(problems) - SHOWN} more" if len(problems) > SHOWN else ""
        raise ListError(
            f"{len(problems)} of {len(ids)} ids cannot be names of flow files, so nothing was written:\n  "
            + "\n  ".join(problems[:SHOWN])
            + f"{more}\nchange these ids, or write them into another folder"
        )
    return {video_id: tuple(out / unit.format(name=name) for unit in LAYOUTS[layout].units) for video_id, name in names.items()}


def open_folder(out: Path, spec: WriteSpec) -> None:
    """Make ``out`` with its ``flow.json``, or check that it is a folder of the same settings; remove what dead processes left in it."""
    file, settings = out / WRITTEN, describe(spec)
    if file.is_file():
        _check_same(file, settings)
    elif out.is_dir() and any(not path.name.startswith(".") for path in out.iterdir()):
        raise StoreError(f"{out} holds other things and no {WRITTEN}, so it may not be what it seems; give a new or an empty folder")
    else:
        write_text(file, json.dumps({"written_by": f"{WRITTEN_BY} {_version()}", **settings}, indent=2) + "\n")
    for path in out.glob(f".*{PARTIAL_SUFFIX}"):
        if path.is_dir() and time.time() - path.stat().st_mtime > STALE_SECONDS:
            shutil.rmtree(path, ignore_errors=True)


def describe(spec: WriteSpec) -> dict[str, Any]:
    """What ``flow.json`` says, as JSON's types: layout, type of the files, decoding, and everything that decides the flow."""
    plain = to_plain(spec)
    plain["flow"] = {name: value for name, value in plain["flow"].items() if name not in UNUSED}
    unused = ("images", "quality", "rgb") if spec.layout == "npy" else ("dtype", *(["quality"] if spec.images == "png" else []))
    return {name: value for name, value in plain.items() if name not in unused}


def origin_words(spec: WriteSpec) -> str:
    """The flow in words, for ``--flow.origin``."""
    flow = spec.flow
    params = "".join(f" {name}={value:g}" for name, value in flow.params.items())
    return f"{flow.method} {flow.version}{params}, short side {flow.short_side or 'as decoded'}, by actioncache flow write"


def _check_same(file: Path, settings: dict[str, Any]) -> None:
    try:
        before = json.loads(file.read_text(encoding="utf-8"))
        differing = [name for name in settings if before.get(name) != settings[name]]
    except (OSError, ValueError, AttributeError) as error:
        raise StoreError(f"{file} cannot be read ({error}); give a new folder") from None
    if differing:
        changes = "; ".join(f"{name}: {_changes(before.get(name), settings[name])}" for name in differing)
        raise StoreError(f"{file.parent} holds flow of other settings ({changes}); give another folder, or the settings of {file}")


def _changes(before: Any, now: Any) -> str:
    if isinstance(before, dict) and isinstance(now, dict):
        return ", ".join(f"{name} {before.get(name)} there, {now[name]} now" for name in now if before.get(name) != now[name])
    return f"{before} there, {now} now"


def _version() -> str:
    try:
        return version("actioncache")
    except PackageNotFoundError:  # from a checkout that is not installed
        return "from a checkout"
