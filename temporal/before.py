"""Whether a head can be trained at all, on what was loaded and as it was asked for: known before any work, not after some of it."""

import numpy as np

from store.errors import TrainingError
from temporal.parallel import Job
from temporal.params import head_info
from temporal.projection import check_width
from temporal.sampling import sample_lengths, spread
from temporal.spec import HeadSpec
from temporal.task import cut


def check_layers(spec: HeadSpec) -> None:
    """TrainingError for a residual stack without a residual connection. Runs of versions that trained such are still read."""
    least = head_info(spec.name).layers
    if spec.layers < least:
        raise TrainingError(
            f"head.layers is {spec.layers} but head {spec.name} needs at least {least}: class scores come from the last layer's memory "
            "before the residual addition, so the addition of a single layer would change nothing; take the head "
            f"{spec.name.removeprefix('res_')} for one layer"
        )


def check_before(job: Job, device: str) -> None:
    """TrainingError or SpecError where the training of ``job`` would end in one: for its videos, projection, head or longest sequence.

    Nothing is allocated and no features are read for it.
    """
    from temporal.size import check_head
    from temporal.together import APART, can_train_together
    from temporal.train import check_trainable

    task, sequences, spec = job.task, job.sequences, job.task.spec
    check_layers(spec.head)
    check_trainable(sequences.subset(task.part.train))
    training, validation = cut(sequences, task.part, spec)
    width = sequences.width
    if spec.sequence.projection == "pca":
        rows = len(np.unique(spread(training.starts, training.counts)))
        check_width((rows, width), spec.sequence.width)
        width = spec.sequence.width
    read = [part.counts for part in (training, validation, sequences.subset(task.part.test)) if part is not None]
    longest = int(sample_lengths(np.concatenate(read), spec.sequence).max())
    head = check_head(spec.head, width, len(job.source.classes), longest, device)
    if job.source.together and not can_train_together(head):
        raise TrainingError(APART)
