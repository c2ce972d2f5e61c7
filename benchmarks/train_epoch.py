"""What does an epoch cost beside forward passes, backward passes and optimizer steps? The same batches, cut beforehand, are the yardstick.

2,048 videos of 25 clips, 1,024 wide, float16, as UCF-101's are, in batches of 64; the epoch gathers its batches, draws their order, sets
the learning rate, counts loss and hits, and asks whether it is time to save.
"""

import numpy as np
import torch
from figures import alternate, report
from torch import nn
from torch.nn import functional

from temporal.batches import Batch, PaddedSequences, padded
from temporal.checkpoint import Keeper
from temporal.epochs import Training, one_by_one
from temporal.heads import build_head
from temporal.projection import Projection
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

VIDEOS, CLIPS, WIDTH, CLASSES = 2048, 25, 1024, 101
BAR = 1.1
HEADS = {
    "mean pooling": HeadSpec(name="mean"),
    "GRU of 128 units": HeadSpec(name="gru"),
    "Res-LSTM, 2 layers of 256": HeadSpec(name="res_lstm", hidden=256, layers=2, output="last"),
}


def sequences() -> Sequences:
    """Noise with labels."""
    random = np.random.default_rng(0)
    rows = random.standard_normal((VIDEOS * CLIPS, WIDTH), dtype=np.float32).astype(np.float16)
    ids = tuple(f"v{number}" for number in range(VIDEOS))
    starts, counts = np.arange(VIDEOS) * CLIPS, np.full(VIDEOS, CLIPS)
    return Sequences(ids, rows, starts, counts, random.integers(0, CLASSES, VIDEOS), ids)


def plain_epoch(head: nn.Module, optimizer: torch.optim.Optimizer, batches: list[Batch], spec: TrainSpec) -> None:
    """Forward, backward and optimizer steps, and nothing else."""
    for batch in batches:
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(head(batch.x, batch.lengths), batch.labels).backward()
        nn.utils.clip_grad_norm_(head.parameters(), spec.gradient_clip)
        optimizer.step()


def main() -> None:
    """Print the ratio for heads from nothing to much to compute."""
    spec = RunSpec(SequenceSpec(sampling="all"), train=TrainSpec(batch_size=64, epochs=1000, validation=0.0))
    data = padded(sequences(), Projection(), spec.sequence, "cpu")
    assert isinstance(data, PaddedSequences)
    in_place = list(data.batches(64))
    for title, head_spec in HEADS.items():
        head = build_head(head_spec, WIDTH, CLASSES)
        training = Training(head, data, spec.train, "fit", 1000, None, [])

        def epoch(training: Training = training) -> None:
            one_by_one(training._one_epoch(Keeper()))

        def plain(training: Training = training) -> None:
            plain_epoch(training.head, training.optimizer, in_place, spec.train)

        whole, work = alternate(epoch, plain)
        report(f"epoch of {title}: whole / forward, backward and optimizer on data in place", whole / work, "x", "bar of 1.1", BAR, False)
        report(f"epoch of {title}", whole, "seconds", f"{work:.3f} s of work")


if __name__ == "__main__":
    main()
