"""Fit a head: projection, epochs, refit. A seed determines the result on one machine; no global RNG is changed."""

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from store.errors import TrainingError
from store.scores import Kind
from temporal.batches import Samples, VectorSamples, padded
from temporal.checkpoint import Keeper
from temporal.epochs import Epoch, InSteps, OnEpoch, Training, count_hits, one_by_one
from temporal.heads import Pooling, build_head
from temporal.numerics import full_float32, seeded
from temporal.projection import Projection, projection_for
from temporal.scoring import score_kind, video_scores
from temporal.sequences import Sequences
from temporal.size import check_size
from temporal.solvers import Solvable, solve, with_choice
from temporal.spec import RunSpec

SCORE_BATCH = 256  # samples scored at once; does not change a score
NOTHING_KEPT = Keeper()


@dataclass(frozen=True)
class Fitted:
    """A head in evaluation mode, the projection before it, one ``Epoch`` each, and the epoch whose weights the head has."""

    head: nn.Module
    projection: Projection
    history: list[Epoch]
    best_epoch: int


def fit(
    training: Sequences,
    validation: Sequences | None,
    spec: RunSpec,
    num_classes: int,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    phase: str = "fit",
    weights: Path | None = None,
    keeper: Keeper = NOTHING_KEPT,
    before: Fitted | None = None,
) -> Fitted:
    """``fit_in_steps``, all at once."""
    return one_by_one(fit_in_steps(training, validation, spec, num_classes, device, on_epoch, phase, weights, keeper, before))


def fit_in_steps(
    training: Sequences,
    validation: Sequences | None,
    spec: RunSpec,
    num_classes: int,
    device: str = "cpu",
    on_epoch: OnEpoch | None = None,
    phase: str = "fit",
    weights: Path | None = None,
    keeper: Keeper = NOTHING_KEPT,
    before: Fitted | None = None,
) -> InSteps[Fitted]:
    """Fit projection and head on ``training``; with ``validation`` stop early and give the weights of its lowest loss.

    ``weights``: pretrained weights that the head starts from, where it takes any. ``keeper``: where the training is saved, and may go on
    from. ``before``: the phase before this one, whose best epoch is the last one here, at the learning rates that it had.

    Raises TrainingError: unlabelled videos, fewer than two videos or classes, a loss that is no number.
    """
    check_trainable(training)
    projection = keeper.projection(phase)
    if projection is None:
        projection = projection_for(training, spec.sequence, spec.train.seed)
        keeper.save_projection(phase, projection)
    data = padded(training, projection, spec.sequence, device)
    held_out = padded(validation, projection, spec.sequence, device) if validation is not None else None
    earlier = before.history if before else []
    check_size(spec.head, data.width, num_classes, device)
    with seeded(spec.train.seed, device):
        head = build_head(spec.head, data.width, num_classes, weights).to(device)
        if isinstance(head, Solvable):
            history, best_epoch = _solve(head, data, held_out, spec, phase, on_epoch)
        else:
            if isinstance(head, Pooling):
                data, held_out = pooled(head, data), None if held_out is None else pooled(head, held_out)
            evaluate = None if held_out is None else partial(_evaluate, data=held_out, kind=score_kind(spec))
            last_epoch = before.best_epoch if before else spec.train.epochs
            loop = Training(head, data, spec.train, phase, last_epoch, evaluate, earlier)
            yield from loop.run(keeper, on_epoch)
            history, best_epoch = loop.history, loop.best_epoch
    return Fitted(head.eval(), projection, earlier + history, best_epoch)


def refit(
    fitted: Fitted,
    training: Sequences,
    spec: RunSpec,
    num_classes: int,
    device: str,
    on_epoch: OnEpoch | None,
    weights: Path | None = None,
    keeper: Keeper = NOTHING_KEPT,
) -> Fitted:
    """``refit_in_steps``, all at once."""
    return one_by_one(refit_in_steps(fitted, training, spec, num_classes, device, on_epoch, weights, keeper))


def refit_in_steps(
    fitted: Fitted,
    training: Sequences,
    spec: RunSpec,
    num_classes: int,
    device: str,
    on_epoch: OnEpoch | None,
    weights: Path | None = None,
    keeper: Keeper = NOTHING_KEPT,
) -> InSteps[Fitted]:
    """Train anew on ``training`` (training and validation part) for the number of epochs that ``fitted`` found; histories are joined."""
    if isinstance(fitted.head, Solvable):
        spec = with_choice(spec, fitted.history, fitted.best_epoch)
    again = yield from fit_in_steps(training, None, spec, num_classes, device, on_epoch, "refit", weights, keeper, fitted)
    return replace(again, best_epoch=fitted.best_epoch)


def pooled(head: Pooling, data: Samples) -> VectorSamples:
    """Samples of what ``head`` begins with, of every sample once."""
    with torch.no_grad():
        return VectorSamples(data, torch.cat([head.pooled(batch.x, batch.lengths) for batch in data.batches(SCORE_BATCH)]))


def _solve(
    head: Solvable, data: Samples, held_out: Samples | None, spec: RunSpec, phase: str, on_epoch: OnEpoch | None
) -> tuple[list[Epoch], int]:
    choice = solve(head, data, held_out, spec, phase)
    if on_epoch:
        on_epoch(choice.records[choice.best - 1] | {"epoch": 1})  # one piece of work, whatever was tried
    return choice.records, choice.best


def check_device(device: str) -> None:
    """TrainingError, with torch's reason, for a device that is not there."""
    try:
        torch.empty(1, device=device).cpu()  # "meta" makes tensors without values
    except (RuntimeError, AssertionError) as error:
        raise TrainingError(f"device {device!r} cannot be used here: {str(error).splitlines()[0]}") from None


def check_trainable(training: Sequences) -> None:
    """Raise TrainingError where nothing can be learned."""
    without = [id_ for id_, label in zip(training.ids, training.labels, strict=True) if label < 0]
    if without:
        raise TrainingError(f"{len(without)} training videos have no label: {', '.join(without[:8])}; label them or leave them out")
    if len(training) < 2:
        raise TrainingError(f"there is {len(training)} training video; training needs at least two")
    if len(np.unique(training.labels)) < 2:
        raise TrainingError(f"all {len(training)} training videos are of one class; a classifier needs at least two")


def class_scores(head: nn.Module, data: Samples, kind: Kind = "scores") -> np.ndarray:
    """Scores of every video, float32 [V, C]; ``kind`` says what they are and how samples of one video become one, see ``scoring``."""
    head.eval()
    with torch.inference_mode(), full_float32():
        parts = [head(batch.x, batch.lengths).float().cpu() for batch in data.batches(SCORE_BATCH)]
    return video_scores(torch.cat(parts).numpy(), data.owners, kind)


def _evaluate(head: nn.Module, data: Samples, kind: Kind) -> dict[str, float]:
    """Of videos, not samples."""
    scores, labels = torch.from_numpy(class_scores(head, data, kind)), torch.from_numpy(data.video_labels)
    return {"val_loss": float(functional.cross_entropy(scores, labels)), "val_accuracy": float(count_hits(scores, labels)) / len(labels)}
