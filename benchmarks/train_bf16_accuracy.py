"""Does training in bfloat16 cost accuracy? Top-1 of both precisions over five seeds, a group left out at a time, on features at hand.

    python benchmarks/train_bf16_accuracy.py LIST STORE [STORE ...] --heads gru res_lstm

Every head is trained on every store by the settings of examples/ut_interaction.py. It holds where the means are nearer to each other than
one deviation over the seeds (the larger of the two). Without arguments there is nothing to measure.
"""

import argparse
import statistics
import tempfile
from pathlib import Path

from figures import report

from store.features import FeatureStore
from store.videos import VideoList, read_list
from temporal.experiment import train_list
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

SEEDS = range(5)


def top1(store: FeatureStore, videos: VideoList, head: HeadSpec, precision: str, folder: Path) -> list[float]:
    """Per cent, a seed each."""
    train = TrainSpec(epochs=60, patience=10, refit=True, precision="bf16" if precision == "bf16" else "fp32")
    spec = RunSpec(SequenceSpec(znorm=True), head, train)
    outcome = train_list([store], videos, spec, folder / precision, cross_validate=True, seeds=SEEDS, together=True)
    return [100 * value for value in outcome.accuracies()]


def main() -> None:
    """Print both means and their distance."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("list", nargs="?", type=Path)
    parser.add_argument("stores", nargs="*", type=Path)
    parser.add_argument("--heads", nargs="+", default=["gru", "res_lstm"])
    chosen = parser.parse_args()
    for path in chosen.stores:
        for head in chosen.heads:
            with tempfile.TemporaryDirectory() as folder:
                store, videos = FeatureStore.open(path), read_list(chosen.list)
                full, half = (top1(store, videos, HeadSpec(name=head), precision, Path(folder)) for precision in ("fp32", "bf16"))
            where = f"{head} on {path.name}"
            for precision, values in (("fp32", full), ("bf16", half)):
                spread = f"deviation {statistics.stdev(values):.2f} over {len(values)} seeds"
                report(f"top-1 of {where}, trained in {precision}", statistics.mean(values), "per cent", spread)
            deviation = max(statistics.stdev(full), statistics.stdev(half))
            apart = abs(statistics.mean(full) - statistics.mean(half))
            report(f"distance of the precisions' top-1, {where}", apart, "per cent", f"a deviation of {deviation:.2f}", deviation, False)


if __name__ == "__main__":
    main()
