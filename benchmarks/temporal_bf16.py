"""How much faster is training with bfloat16 products, at the papers' sizes?"""

import torch
from figures import alternate, report
from recurrent_work import training_step

from temporal.recurrence import RecurrentStack

CASES = (("sru", 512, 1024, 3, False), ("lstm", 1024, 1024, 2, True), ("gru", 1024, 1024, 2, True))  # kind, width, units, layers, residual


def main() -> None:
    """Print every figure."""
    for kind, width, hidden, layers, residual in CASES:
        stack = RecurrentStack(kind, width, hidden, layers, residual)
        full, half = alternate(training_step(stack, width), training_step(stack, width, precision="bf16"))
        size = f"{'residual ' if residual else ''}{kind} {width} -> {layers} x {hidden}, {torch.get_num_threads()} threads"
        report(f"training step in bfloat16, {size}", full / half, "x faster", "float32", 1.5)


if __name__ == "__main__":
    main()
