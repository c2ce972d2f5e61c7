"""How much memory and time does compaction take, against the bytes that it merges and against copying them durably?"""

import multiprocessing
import os
import shutil
import tempfile
from pathlib import Path

import numpy as np
from figures import alternate, report
from store_open import resident_megabytes

from store.features import Features, FeatureStore

SHARDS, VIDEOS, ROWS, WIDTH = 48, 160, 25, 1024  # 48 shards of 8 MB, as a network of 5 videos/s leaves them
TARGET = 128 * 2**20


def build(root: Path) -> FeatureStore:
    """Many small shards."""
    random, store = np.random.default_rng(0), FeatureStore.create(root, "bench", {"what": "compact"})
    frames = np.stack([np.arange(ROWS), np.arange(ROWS) + 16], 1)
    with store.writer(max_bytes=2**60, max_seconds=1e9) as writer:
        for number in range(SHARDS * VIDEOS):
            values = random.standard_normal((ROWS, WIDTH), np.float32).astype(np.float16)
            writer.add(f"class/v_{number:06d}.avi", Features({"level": values}, frames, frames / 25))
            if (number + 1) % VIDEOS == 0:
                writer.publish()
    return store


def growth(path: Path) -> float:
    """Megabytes that a compaction in this process adds to what an open store takes, at most."""
    store = FeatureStore.open(path)
    before = resident_megabytes("VmRSS")
    assert store.compact(TARGET).merged == SHARDS
    return resident_megabytes("VmHWM") - before


def main() -> None:
    """Print megabytes and ratios, on the disk of this checkout."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as folder:
        root, turns = Path(folder), iter(range(1000))
        store = build(root / "origin")

        def fresh() -> Path:
            return Path(shutil.copytree(store.path, root / str(next(turns)) / store.name, copy_function=os.link))

        def copy_durably() -> None:
            for shard in store.shards:
                target = root / f"{next(turns)}.h5"
                shutil.copyfile(shard.path, target)
                descriptor = os.open(target, os.O_RDONLY)
                os.fsync(descriptor)
                os.close(descriptor)
                target.unlink()

        with multiprocessing.get_context("spawn").Pool(1) as pool:
            grown = pool.apply(growth, (fresh(),))
        ours, bare = alternate(lambda: FeatureStore.open(fresh()).compact(TARGET), copy_durably)
        megabytes = sum(shard.structure.size for shard in store.shards) / 1e6
        report(f"compaction of {SHARDS} shards of {megabytes / SHARDS:.0f} MB into 128 MB: memory", grown, "MB", "an open store")
        report("compaction, every video checked before and after", bare / ours, "of the speed", "copying the shards with fsync")


if __name__ == "__main__":
    main()
