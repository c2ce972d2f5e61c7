"""Do residual additions, and our LSTM, cost anything against a stack of nn.LSTM layers without them? 25 steps, batch 64.

Of the widths that Lakhal et al. 2018 reduce their features of 4,096 to, from 256 to 2,048: their memory is as wide as its inputs (H = d_m),
for the residual addition, and H = 1,024 is what they report.
"""

import torch
from figures import RUNS, alternate, report
from recurrent_work import BATCH, Chain, recurrent_products, training_step
from torch import nn

from temporal.recurrence import RecurrentStack


def main() -> None:
    """Print every figure."""
    for hidden, layers, runs in ((256, 2, 5 * RUNS), (512, 2, RUNS), (1024, 2, RUNS), (2048, 2, 3)):
        ours = training_step(RecurrentStack("lstm", hidden, hidden, layers, residual=True), hidden)
        theirs = training_step(Chain([nn.LSTM(hidden, hidden) for _ in range(layers)]), hidden)
        products = recurrent_products(hidden, hidden, 4, layers, BATCH)
        own, other, alone = alternate(ours, theirs, products, runs=runs)
        size = f"{layers} x {hidden}, {torch.get_num_threads()} threads"
        report(f"training step of Res-LSTM, {size}", own / other, "of the time", "a stack of nn.LSTM layers", 1.1, at_least=False)
        report(f"training step of Res-LSTM over its matrix products, {size}", own / alone, "ratio", "matrix products alone")


if __name__ == "__main__":
    main()
