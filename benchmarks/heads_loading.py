"""How long until a split of UCF-101 (9,537 videos x 25 x 1024) is ready to train on, from the start of the process?

And what Z-norm and PCA to 256 add, in time and in memory. The store is made here, and is in the page cache. Ready means: list, store and
digests read, parts cut, features on the device, head built, first batch gathered; each measured in a fresh process of the interpreter.
"""

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median

import numpy as np
from figures import RUNS, report

from store.features import Features, FeatureStore

VIDEOS, CLIPS, WIDTH, CLASSES = 9537, 25, 1024, 101

READY = """
import json, resource, sys, time
from pathlib import Path
from temporal.commands import train_head  # what the command line imports
from store.features import FeatureStore
from store.videos import read_list
from temporal.folds import list_part, validation_part
from temporal.sequences import load_sequences
from temporal.spec import RunSpec, SequenceSpec
folder, projected = Path(sys.argv[1]), sys.argv[2] == "projected"
spec = RunSpec(SequenceSpec(znorm=projected, projection="pca" if projected else "none", width=256))
videos = read_list(folder / "list.csv")
part = list_part(videos)
sequences = load_sequences([FeatureStore.open(folder / "features" / "ucf")], videos, spec.sequence)
loaded = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
from temporal.batches import padded
from temporal.heads import build_head
from temporal.projection import projection_for
everything = sequences.subset(part.train)
training, validation = (everything.subset(chosen) for chosen in validation_part(everything.labels, everything.groups, 0.15, 0))
started = time.perf_counter()
projection = projection_for(training, spec.sequence)
fitted = time.perf_counter() - started
data, held_out = (padded(each, projection, spec.sequence, "cpu") for each in (training, validation))
head = build_head(spec.head, data.width, len(videos.classes))
data.batch(sequences.owners[:32])
print(json.dumps({"fitted": fitted, "loaded": loaded, "peak": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss}))
"""


def main() -> None:
    """Print seconds of medians, and how many times the features' float32 size is in memory."""
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        build(folder)
        plain = measure(folder, "plain", RUNS)
        report("process start to the first batch of 9,537 videos", plain["seconds"], "s", "the clock", 5.0, at_least=False)
        torch = bare_import()
        report("process start to the first batch of 9,537 videos", plain["seconds"] / torch, "times", "a process that imports torch")
        projected = measure(folder, "projected", 3)
        report("the same with Z-norm and PCA to 256", projected["seconds"], "s", "the clock")
        product = covariance()
        report("fitting Z-norm and PCA", projected["fitted"] / product, "times", "one covariance product of the training part")
        single = VIDEOS * CLIPS * WIDTH * 4 / 1024
        report(
            "memory that Z-norm and PCA add", (projected["peak"] - projected["loaded"]) / single, "of the size", "all features in float32"
        )


def build(folder: Path) -> None:
    """A store of float16 features and its list: official size, three quarters for training, 25 groups a class."""
    random = np.random.default_rng(0)
    frames = np.stack([np.arange(CLIPS), np.arange(CLIPS) + 1], 1).astype(np.int64)
    lines = ["id,path,label,split,group"]
    store = FeatureStore.create(folder / "features", "ucf", {"made": "benchmark"})
    with store.writer() as writer:
        for video in range(VIDEOS):
            values = np.abs(random.standard_normal((CLIPS, WIDTH), dtype=np.float32)).astype(np.float16)
            writer.add(f"v{video:05d}", Features({"last": values}, frames, frames / 25.0))
            split = "train" if video % 4 else "test"
            lines.append(f"v{video:05d},v{video:05d}.avi,c{video % CLASSES:03d},{split},g{video // CLASSES % 25:02d}")
    (folder / "list.csv").write_text("\n".join(lines) + "\n")


def measure(folder: Path, kind: str, runs: int) -> dict[str, float]:
    """Medians over fresh processes, after one that is not measured."""
    found = []
    for _ in range(runs + 1):
        started = time.perf_counter()
        run = subprocess.run([sys.executable, "-c", READY, str(folder), kind], capture_output=True, text=True, check=True)
        found.append({"seconds": time.perf_counter() - started, **json.loads(run.stdout.splitlines()[-1])})
    return {name: median(each[name] for each in found[1:]) for name in found[0]}


def bare_import() -> float:
    """Median seconds of a process that imports torch and ends."""
    seconds = []
    for _ in range(RUNS):
        started = time.perf_counter()
        subprocess.run([sys.executable, "-c", "import torch"], check=True)
        seconds.append(time.perf_counter() - started)
    return median(seconds)


def covariance() -> float:
    """Median seconds of X' X, X float32 of the training part's size."""
    rows = np.random.default_rng(0).standard_normal((VIDEOS * 3 // 4 * CLIPS * 85 // 100, WIDTH), dtype=np.float32)
    seconds = []
    for _ in range(4):
        started = time.perf_counter()
        rows.T @ rows
        seconds.append(time.perf_counter() - started)
    return median(seconds[1:])


if __name__ == "__main__":
    main()
