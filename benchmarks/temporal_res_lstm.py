"""Do residual additions, and our LSTM, cost anything against a stack of nn.LSTM layers without them? 25 steps, batch 64."""

import torch
from figures import alternate, report
from recurrent_work import BATCH, Chain, recurrent_products, training_step
from torch import nn

from temporal.recurrence import RecurrentStack


def main() -> None:
    """Print every figure."""
    for hidden, layers in ((1024, 2), (256, 2)):
        ours = training_step(RecurrentStack("lstm", hidden, hidden, layers, residual=True), hidden)
        theirs = training_step(Chain([nn.LSTM(hidden, hidden) for _ in range(layers)]), hidden)
        products = recurrent_products(hidden, hidden, 4, layers, BATCH)
        own, other, alone = alternate(ours, theirs, products)
        size = f"{layers} x {hidden}, {torch.get_num_threads()} threads"
        report(f"training step of Res-LSTM, {size}", own / other, "of the time", "a stack of nn.LSTM layers", 1.1, at_least=False)
        report(f"training step of Res-LSTM over its matrix products, {size}", own / alone, "ratio", "matrix products alone")


if __name__ == "__main__":
    main()
