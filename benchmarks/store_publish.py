"""What does it cost to put features into a store, checked and durable, against writing the same bytes durably and nothing more?

Also: does a store of 1,000 shards and 250,000 videos make publishing dearer?
"""

import os
import tempfile
from pathlib import Path

import numpy as np
from figures import RUNS, alternate, report

from store.features import Features, FeatureStore
from store.writer import FeatureWriter

VIDEOS, ROWS, WIDTH = 1290, 25, 1024  # 64 MB of 25 x 1024 float16, as ResNet and I3D features are
SMALL, SHARDS = 250, 1000
SMALL_VIDEO = Features({"level": np.ones((4, 8), np.float16)}, np.tile([[0, 1]], (4, 1)), np.tile([[0.0, 1.0]], (4, 1)))


def videos() -> dict[str, Features]:
    """One shard's worth of features."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(ROWS), np.arange(ROWS) + 16], 1)
    return {
        f"class_{number % 101:03d}/v_{number:06d}.avi": Features(
            {"level": random.standard_normal((ROWS, WIDTH), np.float32).astype(np.float16)}, frames, frames / 25
        )
        for number in range(VIDEOS)
    }


def durable_write(folder: Path, number: int, data: memoryview) -> None:
    """The least that a durable file costs: write aside, fsync, rename, fsync of the folder."""
    aside = folder / f".{number}.partial"
    descriptor = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    left = data
    while left:
        left = left[os.write(descriptor, left) :]
    os.fsync(descriptor)
    os.close(descriptor)
    aside.rename(folder / f"{number}.h5")
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def throughput(root: Path) -> None:
    """Publishing 64 MB, and adding and publishing them, against writing as many bytes."""
    some, turns = videos(), iter(range(1000))
    plain = root / "plain"
    plain.mkdir()
    store = FeatureStore.create(root, "bench", {"what": "publish"})

    def added() -> FeatureWriter:
        turn = next(turns)
        writer = store.writer(max_bytes=2**40, max_seconds=1e9)
        for video_id, features in some.items():
            writer.add(f"{turn}/{video_id}", features)
        return writer

    def add_and_publish() -> None:
        added().publish()

    add_and_publish()
    image = memoryview(store.shards[0].path.read_bytes())

    def write() -> None:
        durable_write(plain, next(turns), image)

    waiting = [added() for _ in range(RUNS + 1)]
    publishing, both, bare = alternate(lambda: waiting.pop().publish(), add_and_publish, write)
    report("publish 64 MB of features", len(image) / publishing / 1e6, "MB/s", "nothing")
    report("publish 64 MB of features", bare / publishing, "of the speed", "writing the same bytes with fsync", 0.6)
    report("add (copy, check, digest) and publish 64 MB of features", bare / both, "of the speed", "writing the same bytes with fsync")


def in_large_stores(root: Path) -> None:
    """Publishing one small shard into a store of many, which also sorts among them, against an empty store."""
    large = FeatureStore.create(root, "bench", {"what": "large"})
    with large.writer("m", max_bytes=2**40, max_seconds=1e9) as writer:
        for number in range(SHARDS * SMALL):
            writer.add(f"large/{number}", SMALL_VIDEO)
            if (number + 1) % SMALL == 0:
                writer.publish()
    turns = iter(range(1000))

    def publish(store: FeatureStore, part: str) -> None:
        turn = next(turns)
        with store.writer(part) as writer:
            for number in range(SMALL):
                writer.add(f"{turn}/{number}", SMALL_VIDEO)

    def into_empty() -> None:
        publish(FeatureStore.create(root, "bench", {"what": "empty", "turn": next(turns)}), "a")

    last, first, empty = alternate(lambda: publish(large, "z"), lambda: publish(large, "a"), into_empty)
    looks, _ = alternate(large.refresh, lambda: None)
    report(f"publish a small shard into a store of {SHARDS} shards, sorted last", last * 1e3, "milliseconds", "nothing")
    report(f"publish a small shard into a store of {SHARDS} shards, sorted first", first * 1e3, "milliseconds", "nothing")
    report("publish a small shard into an empty store", empty * 1e3, "milliseconds", "nothing")
    report(f"refresh() of a store of {SHARDS} shards, nothing new", looks * 1e3, "milliseconds", "nothing")


def main() -> None:
    """Print ratios and times, on the disk of this checkout."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        throughput(Path(folder))
        in_large_stores(Path(folder))


if __name__ == "__main__":
    main()
