"""Does one store bear 8 writers, 2 readers and a compaction at once, with HDF5's file locks off? Every video once, every read right.

The writers of each pair are given the same videos, and half of all writers the same part's name, as a job array started twice does.
"""

import argparse
import os
import tempfile
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from multiprocessing import get_context
from pathlib import Path

os.environ["HDF5_USE_FILE_LOCKING"] = "FALSE"  # before h5py is loaded

import numpy as np
from figures import report

from store.features import Features, FeatureStore
from store.testing import same

WRITERS, READERS = 8, 2
SPEC = {"what": "crowd"}
FAULTS = ("wrong reads", "videos that vanished", "errors", "videos missing at the end", "problems that verify --deep tells")


def features(video_id: str) -> Features:
    """What every writer computes for a video: 1 to 8 rows of 64 float16 and of 4 float32."""
    rng = np.random.default_rng(zlib.crc32(video_id.encode()))
    rows = int(rng.integers(1, 9))
    frames = (np.arange(rows) * 8)[:, None] + np.array([0, 16])
    values = {"high": rng.standard_normal((rows, 64)).astype(np.float16), "low": rng.standard_normal((rows, 4)).astype(np.float32)}
    return Features(values, frames, frames / 25)


def write(path: Path, ids: list[str], number: int) -> Counter[str]:
    """Add what is missing of a half of the list, in an order of one's own, in shards of a few videos."""
    rng, store = np.random.default_rng(number), FeatureStore.open(path)
    mine = [ids[n] for n in rng.permutation(len(ids)) if n % (WRITERS // 2) == number // 2]
    part = "same" if number % 4 < 2 else f"part{number}"
    with store.writer(part, max_bytes=int(rng.integers(1, 40)) * 500) as writer:
        for video_id in store.missing(mine):
            writer.add(video_id, features(video_id))
    return Counter({"videos written": len(mine)})


def read(path: Path, seed: int) -> Counter[str]:
    """Until all writers are done: look again, and read some videos one by one and some in bulk, by a new reader and by an old one."""
    rng, store, counts = np.random.default_rng(seed), FeatureStore.open(path), Counter[str]()
    seen: list[str] = []
    old, known = None, []
    ended = False
    while not ended:
        ended = done(path).exists()
        store.refresh()
        counts["videos that vanished"] += len(store.missing(seen))
        seen = store.ids()
        if not seen:
            continue
        chosen = [seen[n] for n in rng.integers(len(seen), size=min(len(seen), 40))]
        counts["wrong reads"] += sum(not same(store.get(video_id), features(video_id)) for video_id in chosen)
        counts["wrong reads"] += wrong(store.read_rows(chosen, "high", spans=True, order="storage"), chosen)
        if old is None or rng.random() < 0.1:
            old, known = store.reader(chosen, "high"), chosen
        counts["wrong reads"] += wrong(old.read(spans=True), known)
        counts["reads"] += 2 * len(chosen) + len(known)
        counts["looks"] += 1
    return counts


def wrong(rows: object, ids: list[str]) -> int:
    """How many videos of a bulk read are not what was written."""
    count = 0
    for number, video_id in enumerate(ids):
        span, wanted = slice(rows.starts[number], rows.starts[number] + rows.counts[number]), features(video_id)
        pairs = ((rows.of(number), wanted.values["high"]), (rows.frames[span], wanted.frames), (rows.times[span], wanted.times))
        count += any(a.tobytes() != b.tobytes() for a, b in pairs)
    return count


def compact(path: Path, seed: int) -> Counter[str]:
    """Merge shards until all writers are done."""
    rng, counts = np.random.default_rng(seed), Counter[str]()
    while not done(path).exists():
        merged = FeatureStore.open(path).compact(int(rng.integers(20, 2000)) * 1000)
        counts += Counter({"compactions": merged.merged > 0, "shards merged": merged.merged})
        time.sleep(0.01)
    return counts


def done(path: Path) -> Path:
    """The file that tells readers and the compaction that all writers have ended."""
    return path / "writers-are-done"


def guarded(work: Callable[[], Counter[str]]) -> Counter[str]:
    """Run in a process of its own; an error is counted."""
    try:
        return work()
    except Exception:
        traceback.print_exc()
        return Counter({"errors": 1})


def crowd(folder: Path, videos: int, seed: int) -> Counter[str]:
    """Let everybody at one store; returns what was counted."""
    store = FeatureStore.create(folder, "crowd", SPEC)
    ids = [f"class {n % 5}/v_{n:06}.avi" for n in range(videos)]
    with ProcessPoolExecutor(WRITERS + READERS + 1, get_context("spawn")) as pool:
        others = [pool.submit(guarded, partial(read, store.path, seed + n)) for n in range(READERS)]
        others += [pool.submit(guarded, partial(compact, store.path, seed))]
        writers = [pool.submit(guarded, partial(write, store.path, ids, number)) for number in range(WRITERS)]
        counts = sum((writer.result() for writer in writers), Counter())
        done(store.path).touch()
        counts = sum((other.result() for other in others), counts)
    store.refresh()
    counts["videos missing at the end"] += len(store.missing(ids)) + (len(store) != len(ids))
    counts["problems that verify --deep tells"] += len(store.verify(deep=True))
    counts["wrong reads"] += sum(not same(store.get(video_id), features(video_id)) for video_id in ids)
    counts["copies before the last compaction"] = sum(len(shard.ids) for shard in store.shards)
    store.compact()
    counts["copies after it"] = sum(len(shard.ids) for shard in store.shards)
    return counts


def main() -> None:
    """Print the numbers of faults, for which the bar is none, and how much went on."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--videos", type=int, default=4000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        counts = crowd(Path(folder), arguments.videos, arguments.seed)
    told = f"{WRITERS} writers, {READERS} readers, 1 compaction, {arguments.videos} videos"
    for fault in FAULTS:
        report(f"{told}: {fault}", counts[fault], "faults", "none", 0, at_least=False)
    once = counts.pop("copies after it") / arguments.videos
    report(f"{told}: copies of a video after one more compaction", once, "copies", "once", 1, at_least=False)
    for figure in sorted(counts.keys() - set(FAULTS)):
        report(f"{told}: {figure}", counts[figure], "", "as it happened")


if __name__ == "__main__":
    main()
