"""What does an epoch cost beside forward passes, backward passes and optimizer steps? The same batches, cut beforehand, are the yardstick.

2,048 videos of 25 clips, 1,024 wide, float16, as UCF-101's are, in batches of 64; the epoch gathers its batches, draws their order, sets
the learning rate, counts loss and hits, and asks whether it is time to save. Pooling heads are trained on what they pool once; their
yardstick is the same, whole sequences, and beside it the pooled vectors in place.
"""

from functools import partial

import numpy as np
from figures import alternate, report
from torch import nn
from torch.nn import functional

from temporal.batches import Batch, Samples, padded
from temporal.checkpoint import Keeper
from temporal.epochs import Training, one_by_one
from temporal.heads import Pooling, build_head
from temporal.optimizers import Optimizer
from temporal.projection import Projection
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.train import pooled

VIDEOS, CLIPS, WIDTH, CLASSES, BATCH = 2048, 25, 1024, 101, 64
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


def plain_epoch(head: nn.Module, optimizer: Optimizer, batches: list[Batch], spec: TrainSpec) -> None:
    """Forward, backward and optimizer steps, and nothing else."""
    for batch in batches:
        optimizer.forget_gradients()
        functional.cross_entropy(head(batch.x, batch.lengths), batch.labels).backward()
        nn.utils.clip_grad_norm_(head.parameters(), spec.gradient_clip)
        optimizer.step()


def in_place(data: Samples) -> list[Batch]:
    """All samples, cut into batches beforehand."""
    return [data.batch(np.arange(start, min(start + BATCH, VIDEOS))) for start in range(0, VIDEOS, BATCH)]


def main() -> None:
    """Print the ratio for heads from nothing to much to compute."""
    spec = RunSpec(SequenceSpec(sampling="all"), train=TrainSpec(batch_size=BATCH, epochs=1000, validation=0.0))
    data = padded(sequences(), Projection(), spec.sequence, "cpu")
    whole = in_place(data)
    for title, head_spec in HEADS.items():
        head = build_head(head_spec, WIDTH, CLASSES)
        samples = pooled(head, data) if isinstance(head, Pooling) else data
        training = Training(head, samples, spec.train, "fit", 1000, None, [])
        batches = [whole, in_place(samples)] if isinstance(head, Pooling) else [whole]

        def epoch(training: Training = training) -> None:
            one_by_one(training._one_epoch(Keeper()))

        plain = [partial(plain_epoch, head, training.optimizer, each, spec.train) for each in batches]
        seconds, work, *of_vectors = alternate(epoch, *plain, runs=11)
        report(f"epoch of {title}: whole / forward, backward and optimizer on data in place", seconds / work, "x", "bar of 1.1", BAR, False)
        report(f"epoch of {title}", seconds, "seconds", f"{work:.3f} s of work")
        for shortest in of_vectors:
            report(
                f"epoch of {title}: whole / the same steps on pooled vectors in place", seconds / shortest, "x", f"{shortest:.3f} s of work"
            )


if __name__ == "__main__":
    main()
