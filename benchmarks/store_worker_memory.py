"""Does memory grow when four workers read a store in shuffled order, epoch after epoch? Under fork and under spawn.

Memory is what all processes together occupy (the proportional set size: a page that n share counts 1/n in each). Pages of the mapped
shards count too, though the system takes them back when it needs them; so memory rises to the size of the store in the first epoch.
"""

import multiprocessing
import os
import tempfile
import warnings
from pathlib import Path

import numpy as np
import torch
from figures import report
from torch.utils.data import DataLoader

from store.dataset import FeatureDataset, pad
from store.features import Features, FeatureStore

VIDEOS, ROWS, WIDTH, WORKERS, EPOCHS = 20_000, 5, 512, 4, 10
MARGIN = 1.02  # two percent are the allocator's breath


def main() -> None:
    """Print the memory at the end of the last epoch against that at the end of the second."""
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", message="This DataLoader will create")  # more workers than processors are meant
    with tempfile.TemporaryDirectory() as folder:
        store = build(Path(folder))
        for method in ("fork", "spawn"):
            together, anonymous = zip(*epochs(store, method), strict=True)
            against, what = "the end of the second epoch", f"{WORKERS} workers by {method} and their parent, end of epoch {EPOCHS}"
            report(f"memory of {what}", together[-1] / together[1], "times", against, MARGIN, False)
            report(f"memory without files of {what}", anonymous[-1] / anonymous[1], "times", against, MARGIN, False)
            report(f"memory without files of {what}", (anonymous[-1] - anonymous[1]) / 2**20, "MB more", against)


def epochs(store: FeatureStore, method: str) -> list[tuple[int, int]]:
    """Bytes of all processes at the end of each epoch, with and without pages of files."""
    data = FeatureDataset(store, store.ids())
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(
        data,
        64,
        shuffle=True,
        collate_fn=pad,
        num_workers=WORKERS,
        multiprocessing_context=method,
        persistent_workers=True,
        generator=generator,
    )
    measured = []
    for _ in range(EPOCHS):
        seen = sum(len(lengths) for _, lengths, _, _ in loader)
        assert seen == VIDEOS
        processes = [os.getpid(), *(child.pid for child in multiprocessing.active_children())]
        measured.append((sum(memory(pid, "Pss:") for pid in processes), sum(memory(pid, "Pss_Anon:") for pid in processes)))
    return measured


def memory(pid: int | None, field: str) -> int:
    """Bytes of a process by the kernel's account."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(field))


def build(folder: Path) -> FeatureStore:
    """A store of ROWS x WIDTH float16 a video."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(ROWS), np.arange(ROWS) + 1], 1)
    store = FeatureStore.create(folder, "bench", {"what": "benchmark"})
    with store.writer() as writer:
        for number in range(VIDEOS):
            values = random.standard_normal((ROWS, WIDTH), dtype=np.float32).astype(np.float16)
            writer.add(f"v_{number:06}", Features({"features": values}, frames, frames / 25))
    return FeatureStore.open(store.path)


if __name__ == "__main__":
    main()
