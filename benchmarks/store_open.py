"""How long does a store take to open, and how much memory? 100,000 videos, a million, and 100,000 in the small shards of a slow network.

Ids and shards are as a real store has them: 1,250 videos a shard is what 64 MB hold at 25 x 1024 float16. The rows are small here,
because opening never reads them. The stores are written by the ordinary writer. Each measurement is a fresh process; one of them starts
with the shards out of the page cache.
"""

import multiprocessing
import os
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import RUNS, report

from store.features import Features, FeatureStore

STORES = {  # title: (videos, videos a shard, bar in seconds)
    "100,000 videos in 80 shards": (100_000, 1250, 1.0),
    "100,000 videos in 2,000 shards": (100_000, 50, None),
    "1,000,000 videos in 800 shards": (1_000_000, 1250, 8.0),
}
MEGABYTES_BAR = 1000.0
Measured = dict[str, float]


def ids(videos: int) -> list[str]:
    """Ids as Kinetics and UCF-101 have them: class folder, YouTube id and time range, or class, group and clip."""
    letters = np.random.default_rng(0).integers(ord("a"), ord("z") + 1, (videos, 11), np.uint8).view("S11")[:, 0]
    names = []
    for number, youtube in enumerate(letters.tolist()):
        second = number % 600
        kinetics = f"class_{number % 400:03d}_doing_things/{youtube.decode()}_{second:06d}_{second + 10:06d}.mp4"
        names.append(kinetics if number % 2 else f"HandstandWalking{number % 101}/v_HandstandWalking{number % 101}_g{number:07d}_c01.avi")
    return names


def build(root: Path, videos: int, videos_a_shard: int) -> Path:
    """A store of so many videos with 1 to 7 rows each."""
    store = FeatureStore.create(root, "bench", {"videos": videos, "videos_a_shard": videos_a_shard})
    frames = np.stack([np.arange(8), np.arange(8) + 1], 1)
    one = [Features({"level": np.ones((rows, 8), np.float16)}, frames[:rows], frames[:rows] / 25) for rows in range(1, 8)]
    with store.writer(max_bytes=2**60, max_seconds=1e9) as writer:
        for number, name in enumerate(ids(videos), 1):
            writer.add(name, one[number % 7])
            if number % videos_a_shard == 0:
                writer.publish()
    return store.path


def resident_megabytes(which: str) -> float:
    """``VmRSS`` (now) or ``VmHWM`` (the most so far) of this process."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith(which))


def measure(path: Path, videos: int) -> Measured:
    """What a process meets that opens the store for the first time."""
    before, names, found = resident_megabytes("VmRSS"), ids(videos), {}
    found["megabytes of the ids asked for"] = resident_megabytes("VmRSS") - before
    times = [time.perf_counter()]
    store = FeatureStore.open(path)
    times.append(time.perf_counter())
    found["megabytes"] = resident_megabytes("VmHWM")
    assert store.missing(names) == []
    times.append(time.perf_counter())
    store.get(names[videos // 2])
    times.append(time.perf_counter())
    assert len(store.num_rows()) == videos
    times.append(time.perf_counter())
    steps = ("open", "missing", "get", "num_rows")
    return found | {step: end - start for step, start, end in zip(steps, times[:-1], times[1:], strict=True)}


def forget(path: Path) -> None:
    """Take the shards out of the page cache, as on the first morning of a job."""
    for file in (path / "shards").iterdir():
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def in_fresh_processes(path: Path, videos: int, runs: int) -> Measured:
    """The median of ``runs`` processes."""
    found = []
    for _ in range(runs):
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            found.append(pool.apply(measure, (path, videos)))
    return {name: statistics.median(one[name] for one in found) for name in found[0]}


def main() -> None:
    """Print seconds and megabytes of opening, and what the first questions cost."""
    for title, (videos, videos_a_shard, bar) in STORES.items():
        with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
            path = build(Path(folder), videos, videos_a_shard)
            forget(path)
            cold, warm = in_fresh_processes(path, videos, 1), in_fresh_processes(path, videos, RUNS)
        report(f"opening {title}", warm["open"], "seconds", f"bar of {bar}" if bar else "no bar", bar, at_least=False)
        report(f"opening {title}, nothing cached", cold["open"], "seconds", f"bar of {bar}" if bar else "no bar", bar, at_least=False)
        resident = warm["megabytes"] - warm["megabytes of the ids asked for"]
        report(f"most resident memory of a process that opened {title}", resident, "MB", "bar of 1000", MEGABYTES_BAR, at_least=False)
        report(f"missing(every id) of {title}", warm["missing"], "seconds", "nothing")
        report(f"num_rows() of {title}", warm["num_rows"], "seconds", "nothing")
        report(f"first get of {title}", warm["get"] * 1e3, "milliseconds", "nothing")


if __name__ == "__main__":
    main()
