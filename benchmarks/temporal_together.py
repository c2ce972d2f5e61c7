"""Eight seeds of a small recurrent head: as one batched program against one after another. Both to the same epochs, from data in memory."""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
from figures import alternate, report

from temporal.epochs import InSteps
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.together import all_together
from temporal.train import Fitted, fit, fit_in_steps

SEEDS = range(8)
STEPS, CLASSES = 25, 6


def videos(count: int, width: int) -> Sequences:
    """``count`` videos of 25 clips with random features and labels."""
    generator = np.random.default_rng(0)
    rows = generator.standard_normal((count * STEPS, width), dtype=np.float32)
    starts = np.arange(count) * STEPS
    labels = generator.integers(0, CLASSES, count)
    return Sequences(tuple(map(str, range(count))), rows, starts, np.full(count, STEPS), labels, tuple(map(str, range(count))))


def settings(head: str, epochs: int, device: str) -> list[tuple[RunSpec, str]]:
    """One setting a seed."""
    train = [TrainSpec(seed=seed, epochs=epochs, validation=0.0) for seed in SEEDS]
    return [(RunSpec(SequenceSpec(), HeadSpec(name=head, hidden=128, layers=1), each), device) for each in train]


def works(data: Sequences, head: str, epochs: int, device: str) -> Iterator[InSteps[Fitted]]:
    """One training a seed, in steps."""
    for spec, on in settings(head, epochs, device):
        yield fit_in_steps(data, None, spec, CLASSES, on)


def compare(head: str, count: int, width: int, epochs: int, device: str, bar: float) -> None:
    """Seconds one after another over seconds together."""
    data = videos(count, width)

    def together() -> None:
        all_together(list(works(data, head, epochs, device)), device)

    def one_after_another() -> None:
        for spec, on in settings(head, epochs, device):
            fit(data, None, spec, CLASSES, on)

    slow, quick = alternate(one_after_another, together)
    size = f"{count} videos x {STEPS} x {width}, {epochs} epochs, {device}, {torch.get_num_threads()} threads"
    report(f"8 seeds of a {head} head of 128 units together, {size}", slow / quick, "x faster", "one after another", bar)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs="+", default=["gru", "sru", "lstm", "mean"])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024])
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for width in chosen.widths:
        for head in chosen.heads:
            compare(head, chosen.videos, width, chosen.epochs, device, 1.5 if device == "cpu" else 5)


if __name__ == "__main__":
    main()
