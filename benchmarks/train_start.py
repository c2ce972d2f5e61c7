"""How long from the command line to the end of the first epoch of a split as large as UCF-101's, the training itself not counted?

9,537 videos of 25 clips, 1,024 wide, float16 (488 MB), in a store by the ordinary writer. ``train-head`` is run for one epoch and for two:
the difference is an epoch, and what is left of the first run is starting, loading, and the end (saving, the curves).
"""

import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from figures import report

from store.features import Features, FeatureStore
from store.videos import Video, VideoList, write_csv

CLI = Path(__file__).resolve().parent.parent / "cli.py"
VIDEOS, CLIPS, WIDTH, CLASSES, RUNS = 9537, 25, 1024, 101, 3
BAR_SECONDS = 5.0


def build(folder: Path) -> tuple[Path, Path]:
    """The list and the store."""
    random = np.random.default_rng(0)
    values = random.standard_normal((4096, WIDTH), dtype=np.float32).astype(np.float16)
    frames = np.stack([np.arange(CLIPS), np.arange(CLIPS) + 1], 1)
    names = [
        f"Class{number % CLASSES:03d}/v_Class{number % CLASSES:03d}_g{number // 400:02d}_c{number:05d}.avi" for number in range(VIDEOS)
    ]
    store = FeatureStore.create(folder / "features", "ucf", {"made": "by a benchmark"})
    with store.writer() as writer:
        for name, first in zip(names, random.integers(0, 4096 - CLIPS, VIDEOS).tolist(), strict=True):
            writer.add(name, Features({"pool5": values[first : first + CLIPS]}, frames, frames / 25))
    classes = tuple(f"Class{number:03d}" for number in range(CLASSES))
    videos = tuple(Video(name, Path(name), name[:8], "train", f"g{number // 400:02d}") for number, name in enumerate(names))
    write_csv(VideoList(videos, classes), folder / "list.csv")
    return folder / "list.csv", store.path


def seconds(list_file: Path, store: Path, out: Path, epochs: int) -> float:
    """Of one command, in a process of its own."""
    settings = ["--train.validation", "0", "--train.batch-size", "64", "--train.epochs", str(epochs), "--name", "run", "--force"]
    command = [sys.executable, str(CLI), "train-head", str(list_file), "--features", str(store), "--out", str(out), *settings]
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def main() -> None:
    """Print the seconds beside the training, and those of an epoch."""
    with tempfile.TemporaryDirectory(dir=Path(__file__).parent) as name:
        list_file, store = build(Path(name))
        measured = [[seconds(list_file, store, Path(name) / "runs", epochs) for epochs in (1, 2)] for _ in range(RUNS)]
    one, two = (statistics.median(column) for column in zip(*measured, strict=True))
    report("command to the end of a run of one epoch, training not counted", 2 * one - two, "seconds", "bar of 5", BAR_SECONDS, False)
    report("an epoch of a GRU of 128 units on 9,537 videos", two - one, "seconds", "nothing")


if __name__ == "__main__":
    main()
