"""Eight seeds of a small recurrent head: as one batched program against one after another. Both to the same epochs, from data in memory.

Beside it, what the matrix products leave to be gained: those of all updates alone, seed by seed and batched, as each program does them. No
program that does the same products as the batched one can be faster than the training one after another over these.
"""

import argparse
from collections.abc import Callable, Iterator

import numpy as np
import torch
from figures import alternate, report

from temporal.epochs import InSteps
from temporal.recurrence.products import input_products, recurrent_product, weight_gradient
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.together import all_together
from temporal.train import Fitted, fit, fit_in_steps

SEEDS = range(8)
STEPS, CLASSES, HIDDEN = 25, 6, 128
GATES = {"gru": 3, "lstm": 4}


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
    return [(RunSpec(SequenceSpec(), HeadSpec(name=head, hidden=HIDDEN, layers=1), each), device) for each in train]


def works(data: Sequences, head: str, epochs: int, device: str) -> Iterator[InSteps[Fitted]]:
    """One training a seed, in steps."""
    for spec, on in settings(head, epochs, device):
        yield fit_in_steps(data, None, spec, CLASSES, on)


def products(head: str, count: int, width: int, epochs: int, device: str, seeds: int) -> Callable[[], None]:
    """All matrix products of a layer in so many epochs of all seeds, ``seeds`` in one call, by the functions that training uses."""
    size = TrainSpec().batch_size
    recurrent = head in GATES
    blocks = GATES[head] if recurrent else 3 + (width != HIDDEN)
    w_x, w_h = (torch.randn(seeds, blocks * HIDDEN, each, device=device) for each in (width, HIDDEN))
    batches = []
    for batch in (min(size, count - start) for start in range(0, count, size)):
        x, gates, memory = (torch.randn(seeds, STEPS, batch, each, device=device) for each in (width, blocks * HIDDEN, HIDDEN))
        batches.append((x, gates, memory))

    def update(x: torch.Tensor, gates: torch.Tensor, memory: torch.Tensor) -> None:
        input_products(x, w_x)
        weight_gradient(gates, x)
        if recurrent:
            forward = recurrent_product(w_h.transpose(1, 2), into=torch.empty_like(gates[:, 0]))
            back = recurrent_product(w_h, into=torch.empty_like(memory[:, 0]))
            for step in range(STEPS - 1):
                forward(memory[:, step])
                back(gates[:, step])
            weight_gradient(gates[:, 1:], memory[:, :-1])

    def multiply() -> None:
        for _ in range(epochs * len(SEEDS) // seeds):
            for batch in batches:
                update(*batch)
        if device != "cpu":
            torch.cuda.synchronize()

    return multiply


def compare(head: str, count: int, width: int, epochs: int, device: str, bar: float) -> None:
    """Seconds one after another over seconds together."""
    data = videos(count, width)

    def together() -> None:
        all_together(list(works(data, head, epochs, device)), device)

    def one_after_another() -> None:
        for spec, on in settings(head, epochs, device):
            fit(data, None, spec, CLASSES, on)

    size = f"{count} videos x {STEPS} x {width}, {epochs} epochs, {device}, {torch.get_num_threads()} threads"
    title = f"8 seeds of a {head} head of {HIDDEN} units"
    if head != "mean":
        alone, batched = (products(head, count, width, epochs, device, seeds) for seeds in (1, len(SEEDS)))
        slow, quick, of_one, of_all = alternate(one_after_another, together, alone, batched)
        report(f"matrix products of {title}, batched, {size}", of_one / of_all, "x faster", "the products one after another")
        report(f"{title} together if all but its products took no time, {size}", slow / of_all, "x faster", "one after another")
        report(f"time of {title} together over its batched products, {size}", quick / of_all, "times", "its batched matrix products")
    else:
        slow, quick = alternate(one_after_another, together)
    report(f"{title} together, {size}", slow / quick, "x faster", "one after another", bar)


def main() -> None:
    """Print every figure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--heads", nargs="+", default=["gru", "sru", "lstm", "mean"])
    parser.add_argument("--videos", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=4)
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[torch.get_num_threads()], help="1 is what a worker of a sweep has.")
    chosen = parser.parse_args()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    for threads in chosen.threads:
        torch.set_num_threads(threads)
        for width in chosen.widths:
            for head in chosen.heads:
                compare(head, chosen.videos, width, chosen.epochs, device, 1.5 if device == "cpu" else 5)


if __name__ == "__main__":
    main()
