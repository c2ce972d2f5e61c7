"""How much faster than nn.GRU does our GRU train, and how much faster could anything be that does the same matrix products? 25 steps."""

import torch
from figures import alternate, report
from recurrent_work import recurrent_products, training_step
from torch import nn

from temporal.recurrence import RecurrentLayer

SIZES = ((32, 512, 128), (64, 1024, 128), (64, 2048, 256), (64, 1024, 1024))  # batch, width, units


def main() -> None:
    """Print every figure."""
    for batch, width, hidden in SIZES:
        ours = training_step(RecurrentLayer("gru", width, hidden), width, batch)
        theirs = training_step(nn.GRU(width, hidden), width, batch)
        own, other, alone = alternate(ours, theirs, recurrent_products(width, hidden, 3, 1, batch))
        size = f"batch {batch}, {width} -> {hidden}, {torch.get_num_threads()} threads"
        report(f"training step of GRU, {size}", other / own, "x faster", "nn.GRU", 4)
        report(f"matrix products of a GRU step, {size}", other / alone, "x faster", "nn.GRU, the bound of what is possible")


if __name__ == "__main__":
    main()
