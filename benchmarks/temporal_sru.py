"""Is a training step of stacked SRUs hardly more than its matrix products, and faster than one of nn.LSTM? 25 steps, batch 64."""

import torch
from figures import alternate, report
from recurrent_work import BATCH, STEPS, products_alone, training_step
from torch import nn

from temporal.recurrence import RecurrentStack

WIDTH, HIDDEN, LAYERS = 512, 1024, 3


def main() -> None:
    """Print every figure."""
    rows = STEPS * BATCH
    shapes = [(rows, WIDTH, 4 * HIDDEN)] + [(rows, HIDDEN, 3 * HIDDEN)] * (LAYERS - 1)
    sru = training_step(RecurrentStack("sru", WIDTH, HIDDEN, LAYERS), WIDTH)
    lstm = training_step(nn.LSTM(WIDTH, HIDDEN, LAYERS), WIDTH)
    ours, products, theirs = alternate(sru, products_alone(shapes), lstm)
    size = f"{WIDTH} -> {LAYERS} x {HIDDEN}, {torch.get_num_threads()} threads"
    report(f"training step of SRUs, {size}", ours * 1000, "ms", "nothing")
    report(
        f"training step of SRUs over its matrix products, {size}", ours / products, "ratio", "matrix products alone", 1.3, at_least=False
    )
    report(f"training step of SRUs, {size}", theirs / ours, "x faster", "nn.LSTM of the same size", 2)


if __name__ == "__main__":
    main()
