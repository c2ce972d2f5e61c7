"""How fast are 10,000 videos read into one array, against copying the same bytes from one mapped file, .npy files, and h5py datasets?

Everything is in the page cache and the array is there already, for every contender.
"""

import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

import h5py
import numpy as np
from figures import alternate, report

from store.bulk import RowReader
from store.features import Features, FeatureStore

VIDEOS, ROWS, WIDTH = 10_000, 25, 1024


def main() -> None:
    """Print the ratios of speeds, each from turns taken in one run."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        store, ids = build(folder)
        out = np.empty((VIDEOS * ROWS, WIDTH), np.float16)
        flat = np.memmap(folder / "flat.bin", np.float16, "r").reshape(out.shape)
        shuffled = [ids[number] for number in np.random.default_rng(1).permutation(VIDEOS)]
        read, mixed = RowReader(store, ids).read, RowReader(store, shuffled).read

        def plan_and_read() -> None:
            store.read_rows(ids, out=out)

        contenders: dict[str, Callable[[], object]] = {
            "copy": partial(np.copyto, out, flat),
            "digests": partial(read, out=out),
            "no digests": partial(read, out=out, check=False),
            "digests, one thread": partial(read, out=out, threads=1),
            "no digests, one thread": partial(read, out=out, threads=1, check=False),
            "digests, shuffled list": partial(mixed, out=out),
            "digests, shuffled list in storage order": partial(mixed, out=out, order="storage"),
            "digests, planning included": plan_and_read,
            "get": lambda: [store.get(video).values for video in ids],
        }
        seconds = dict(zip(contenders, alternate(*contenders.values()), strict=True))
        bars = {"digests": 0.6, "no digests": 0.9}
        for what in contenders:
            if what != "copy":
                speed = seconds["copy"] / seconds[what]
                report(f"10,000 videos, {what}", speed, "of its speed", "one copy from one mapped file", bars.get(what))
        report("copy from one mapped file", out.nbytes / seconds["copy"] / 1e9, "GB/s", "itself")
        slow = alternate(plan_and_read, partial(npy_files, folder, ids, out), partial(h5_datasets, folder, ids, out), runs=5)
        report("10,000 videos, digests, planning included", slow[1] / slow[0], "times faster", "one .npy per video", 5.0)
        report("10,000 videos, digests, planning included", slow[2] / slow[0], "times faster", "one h5py dataset per video", 10.0)


def build(folder: Path) -> tuple[FeatureStore, list[str]]:
    """The same features as a store, a flat file, .npy files and h5py datasets."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(ROWS) * 8, np.arange(ROWS) * 8 + 16], 1)
    store = FeatureStore.create(folder, "bench", {"what": "benchmark"})
    ids = [f"v_HandstandWalking_g{number // 100:03}_c{number % 100:02}" for number in range(VIDEOS)]
    (folder / "npy").mkdir()
    with store.writer() as writer, h5py.File(folder / "datasets.h5", "w") as file, (folder / "flat.bin").open("wb") as flat:
        for video in ids:
            values = random.standard_normal((ROWS, WIDTH), dtype=np.float32).astype(np.float16)
            writer.add(video, Features({"features": values}, frames, frames / 25))
            file.create_dataset(video, data=values)
            np.save(folder / "npy" / f"{video}.npy", values)
            flat.write(values.tobytes())
    return FeatureStore.open(store.path), ids


def npy_files(folder: Path, ids: list[str], out: np.ndarray) -> None:
    """The usual loop."""
    for number, video in enumerate(ids):
        out[number * ROWS : (number + 1) * ROWS] = np.load(folder / "npy" / f"{video}.npy")


def h5_datasets(folder: Path, ids: list[str], out: np.ndarray) -> None:
    """The usual loop, straight into the array."""
    with h5py.File(folder / "datasets.h5", "r") as file:
        for number, video in enumerate(ids):
            file[video].read_direct(out[number * ROWS : (number + 1) * ROWS])


if __name__ == "__main__":
    main()
