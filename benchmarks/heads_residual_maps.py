"""A recurrent residual network (PAPERS B) on maps 14 x 14 x 1024: all steps in one batch of convolutions, against step after step.

Two sequences of 8 steps through block 4 of ResNet-50 with two identity skips, forward and backward. And reading maps from a store: how
long training waits for a batch that is read while the one before it is worked on, and how much memory that takes.
"""

import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from figures import alternate, report

from store.features import Features, FeatureStore
from store.videos import Video, VideoList
from temporal.batches import padded
from temporal.heads import build_head
from temporal.numerics import seeded
from temporal.projection import Projection
from temporal.sequences import load_sequences
from temporal.spec import HeadSpec, SequenceSpec

SEQUENCES, STEPS, CHANNELS, SIDE = 2, 8, 1024, 14
VIDEOS, FRAMES = 60, 18


def main() -> None:
    """Print the ratios, each from turns taken in one run."""
    spec = HeadSpec(name="recurrent_residual", params={"skips": 2}, dropout=0.0)
    with seeded(0):
        head = build_head(spec, CHANNELS, 101).train()
        maps = torch.randn(SEQUENCES, STEPS, CHANNELS, SIDE, SIDE).relu()
    before = torch.arange(STEPS).repeat(SEQUENCES) > 0

    def together() -> None:
        head._packed(maps.flatten(0, 1), before).sum().backward()

    def one_by_one() -> None:
        torch.stack([head.step_by_step(each) for each in maps]).sum().backward()

    fast, slow = alternate(together, one_by_one)
    report("recurrent residual block 4, 2 sequences of 8 steps, forward and backward", slow / fast, "times faster", "step by step")
    with tempfile.TemporaryDirectory(dir=".") as name:
        reading(Path(name), head)


def reading(folder: Path, head: torch.nn.Module) -> None:
    """Windows of three steps in random order, from a store of 0.4 GB."""
    store, videos = build(folder)
    spec = SequenceSpec(samples="windows", window=3, stride=3, sampling="all")
    data = padded(load_sequences([store], videos, spec, reads="maps"), Projection(), spec, "cpu")
    order = np.random.default_rng(0).permutation(len(data))[:96]
    list(data.in_order(order, 8))  # into the page cache, and the digests checked
    held = [data.batch(order[:8])]
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    def from_store() -> None:
        for batch in data.in_order(order, 8):
            head(batch.x, batch.lengths).sum().backward()

    def from_memory() -> None:
        for _ in range(0, len(order), 8):
            head(held[0].x, held[0].lengths).sum().backward()

    store_seconds, memory_seconds = alternate(from_store, from_memory, runs=3)
    report(
        "training on maps read from the store", store_seconds / memory_seconds, "times the time", "one batch that is in memory", 1.1, False
    )
    started = time.perf_counter()
    list(data.in_order(order, 8))
    report("reading alone", (time.perf_counter() - started) / memory_seconds, "of the time", "training on a batch in memory")
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) / 1024
    report("memory that training from the store adds", grown, "MiB", "one batch gathered (the store's mapped pages count)")


def build(folder: Path) -> tuple[FeatureStore, VideoList]:
    """Videos of 18 maps each, as every 10th frame of a clip of UCF-101 gives."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(FRAMES), np.arange(FRAMES) + 1], 1).astype(np.int64)
    store = FeatureStore.create(folder, "maps", {"made": "benchmark"})
    values = np.maximum(random.standard_normal((FRAMES, CHANNELS, SIDE, SIDE), dtype=np.float32), 0).astype(np.float16)
    with store.writer() as writer:
        for video in range(VIDEOS):
            writer.add(f"v{video}", Features({"block3.map": np.roll(values, video, axis=0)}, frames, frames / 2.5))
    store.refresh()
    return store, VideoList(tuple(Video(f"v{video}", Path(f"v{video}.avi")) for video in range(VIDEOS)), ("x",))


if __name__ == "__main__":
    main()
