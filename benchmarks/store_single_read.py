"""How long does one video's features take to read, digest checked, against copying the same bytes from memory?"""

import tempfile
from pathlib import Path

import numpy as np
from figures import alternate, report

from store.features import Features, FeatureStore

VIDEOS, READS = 2000, 1000


def main() -> None:
    """Print microseconds a read of 25 x 1024 float16, with and without the digest, and the bare copy's."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(25), np.arange(25) + 1], 1)
    with tempfile.TemporaryDirectory() as folder:
        store = FeatureStore.create(Path(folder), "bench", {"what": "benchmark"})
        with store.writer() as writer:
            for number in range(VIDEOS):
                values = random.standard_normal((25, 1024)).astype(np.float16)
                writer.add(f"v{number}", Features({"level": values}, frames, frames / 25))
        store = FeatureStore.open(store.path)
        ids = [f"v{number}" for number in random.integers(0, VIDEOS, READS)]
        block = np.concatenate([store.get(video).values["level"] for video in ids])

        def read(check: bool) -> None:
            for video in ids:
                store.get(video, check=check)

        def copy() -> None:
            for start in range(0, len(block), 25):
                block[start : start + 25].copy()

        checked, unchecked, bare = alternate(lambda: read(True), lambda: read(False), copy)
        report("one video, digest checked", checked / READS * 1e6, "microseconds", "bar of 50", 50.0, at_least=False)
        report("one video, digest checked", checked / bare, "times as long", "copying the bytes from memory")
        report("one video, no digest", unchecked / bare, "times as long", "copying the bytes from memory")


if __name__ == "__main__":
    main()
