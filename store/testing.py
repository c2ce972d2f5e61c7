"""Conformance checks for programs that write or read shards by docs/format.md; they need no test framework.

``check_writer`` wants a callable ``write(root, name, spec, videos) -> folder``, ``check_reader`` a callable ``read(folder) -> videos``;
videos are ``{id: Features}``. ``kill_everywhere`` kills a Python program that changes a store at each of its steps, on systems that
fork. All raise ``AssertionError`` saying which rule was broken.
"""

import multiprocessing
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from store.features import FeatureStore
from store.layout import Features

Videos = dict[str, Features]
Write = Callable[[Path, str, dict[str, Any], Videos], Path]
Read = Callable[[Path], Mapping[str, Features]]
SYSTEM_CALLS = {"open", "write", "writev", "ftruncate", "fsync", "rename", "replace", "unlink", "mkdir"}

SPEC: dict[str, Any] = {"source": "conformance", "naïve": True, "nested": {"b": [1, 2.5, None], "a": "ü"}}
_IDS = ("a", "class one/v_1.avi", "../up", "ü/日本語/🎬", "tab\tand\nnewline", " padded ", "x" * 300, "-")
_LAYOUTS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "one level": {"high": ("float16", (8,))},
    "three levels": {"low": ("float16", (4,)), "mid.1": ("float32", (3, 5)), "High": ("float16", (2, 3, 2))},
    "numbers": {"score": ("float32", ())},
}


def sample(layout: str = "one level", videos: int = len(_IDS), seed: int = 0) -> Videos:
    """Seeded features with awkward ids: {id: Features}, 1 to 7 rows each; ``layout`` is "one level", "three levels" or "numbers"."""
    rng = np.random.default_rng(seed)
    ids = [*_IDS, *(f"more/{number}" for number in range(len(_IDS), videos))][:videos]
    return {video_id: _features(rng, _LAYOUTS[layout]) for video_id in ids}


def _features(rng: np.random.Generator, layout: Mapping[str, tuple[str, tuple[int, ...]]]) -> Features:
    rows = int(rng.integers(1, 8))
    starts = np.sort(rng.integers(0, 1000, rows))
    frames = np.stack([starts, starts + rng.integers(1, 17, rows)], 1).astype(np.int64)
    values = {name: rng.standard_normal((rows, *shape)).astype(dtype) for name, (dtype, shape) in layout.items()}
    return Features(values, frames, frames / 25.0)


def same(first: Features, second: Features) -> bool:
    """Whether two features agree in every bit, type and shape, whatever the order of their levels."""
    pairs = [(first.frames, second.frames), (first.times, second.times)]
    if first.values.keys() != second.values.keys():
        return False
    pairs += [(array, second.values[name]) for name, array in first.values.items()]
    return all(a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes() for a, b in pairs)


def check_writer(write: Write, scratch: Path) -> None:
    """Let ``write`` make stores in the empty folder ``scratch`` and read them with actioncache, every digest checked."""
    for layout in _LAYOUTS:
        videos = sample(layout)
        folder = Path(write(scratch / layout, "conform", SPEC, videos))
        store = FeatureStore.open(folder, SPEC)
        problems = store.verify(deep=True)
        _demand(not problems, f"{layout}: {'; '.join(map(str, problems))}")
        _compare(layout, videos, {video_id: store.get(video_id) for video_id in store.ids()})
        stray = [str(path) for path in folder.rglob("*") if path.name.endswith(".partial")]
        _demand(not stray, f"{layout}: the writer left {stray}")
    before = len(store)
    write(scratch / layout, "conform", SPEC, sample(layout, 12, seed=0))
    store.refresh()
    _demand(len(store) == 12 and before < 12, "a second call must add a shard and leave the first one alone")


def check_reader(read: Read, scratch: Path) -> None:
    """Let ``read`` read stores that actioncache wrote into the empty folder ``scratch``, whole and damaged."""
    for layout in _LAYOUTS:
        videos = sample(layout, 12)
        store = FeatureStore.create(scratch / layout, "conform", SPEC)
        for part, some in (("b", list(videos)[:7]), ("a", list(videos)[5:])):  # two videos stand in both shards
            with store.writer(part) as writer:
                for video_id in some:
                    writer.add(video_id, videos[video_id])
        (store.path / "shards" / ".a-000001-00000000.h5.0000.partial").write_bytes(b"half a shard")
        _compare(layout, videos, read(store.path))
    for number, (what, damaged) in enumerate(_damaged_copies(store.path, scratch)):
        try:
            found = read(damaged)
        except Exception:  # a foreign reader may refuse damage with whatever error it has; only wrong data is a fault
            continue
        wrong = [video_id for video_id, features in found.items() if video_id not in videos or not same(features, videos[video_id])]
        _demand(not wrong, f"damage {number}, {what}: wrong features of {wrong} were returned without an error")


def killed_at(step: int, work: Callable[[], object], every_call: bool = False) -> bool:
    """Run ``work`` in a fork that SIGKILLs itself at its ``step``-th event, counted from 1; False if ``work`` ended before.

    Events are the starts of the system calls that change the disk, or with ``every_call`` the start and end of every call in ``store``.
    """
    child = multiprocessing.get_context("fork").Process(target=_killer, args=(step, work, every_call))
    child.start()
    child.join(60)
    _demand(child.exitcode in (0, -signal.SIGKILL), f"step {step}: the work ended with exit code {child.exitcode}")
    return child.exitcode != 0


def _killer(left: int, work: Callable[[], object], every_call: bool) -> None:
    package = str(Path(__file__).parent)

    def count(frame: FrameType, event: str, argument: object) -> None:
        nonlocal left
        counts = event == "c_call" and getattr(argument, "__name__", "") in SYSTEM_CALLS
        left -= frame.f_code.co_filename.startswith(package) if every_call else counts
        if left == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.setprofile(count)
    work()
    sys.setprofile(None)


def kill_everywhere(path: Path, work: Callable[[FeatureStore], object], check: Callable[[Path], object], stride: int = 0) -> int:
    """Kill ``work`` on the store ``path`` at each system call that changes the disk, or with ``stride`` at every so many calls.

    Each time on a fresh copy of the store beside it, which ``check`` then looks at. Returns the number of kills.
    """
    kills = 0
    while True:
        copy = path.parent / str(kills) / path.name
        shutil.copytree(path, copy)
        killed = killed_at(1 + kills * max(1, stride), partial(work, FeatureStore.open(copy)), every_call=stride > 0)
        if killed:
            check(copy)
        shutil.rmtree(copy.parent)
        if not killed:
            return kills
        kills += 1


def _damaged_copies(folder: Path, scratch: Path) -> Iterator[tuple[str, Path]]:
    """Copies of a store, each with one byte of one shard changed or with its end missing."""
    original = sorted((folder / "shards").glob("*.h5"))[0]
    data = original.read_bytes()
    copy = scratch / "damaged" / folder.name
    shutil.copytree(folder, copy)
    target = copy / "shards" / original.name
    for position in range(0, len(data), max(1, len(data) // 97)):
        changed = bytearray(data)
        changed[position] ^= 1 << position % 8
        target.unlink()  # a new file, so that no map of the old one changes
        target.write_bytes(changed)
        yield f"byte {position} changed", copy
    for length in (0, 1, len(data) // 2, len(data) - 1):
        target.unlink()
        target.write_bytes(data[:length])
        yield f"cut to {length} bytes", copy


def _compare(layout: str, wanted: Mapping[str, Features], found: Mapping[str, Features]) -> None:
    _demand(wanted.keys() == found.keys(), f"{layout}: ids are {sorted(found)}, not {sorted(wanted)}")
    different = [video_id for video_id, features in wanted.items() if not same(features, found[video_id])]
    _demand(not different, f"{layout}: other features than were written for {different}")


def _demand(condition: bool, message: str) -> None:
    if not condition:
        raise AssertionError(message)
