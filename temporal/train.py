"""Fit a head: projection, batches, early stopping, refit. A seed determines the result on one machine; no global RNG is changed."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import TrainingError
from store.scores import Kind
from temporal.batches import Samples, padded
from temporal.heads import build_head
from temporal.projection import Projection, projection_for
from temporal.scoring import score_kind, video_scores
from temporal.sequences import Sequences
from temporal.solvers import Solvable, solve, with_choice
from temporal.spec import RunSpec, TrainSpec

SCORE_BATCH = 256  # samples scored at once; does not change a score
Epoch = dict[str, Any]  # one line of metrics.jsonl
OnEpoch = Callable[[Epoch], None]


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
) -> Fitted:
    """Fit projection and head on ``training``; with ``validation`` stop early and give the weights of its lowest loss.

    ``weights``: pretrained weights that the head starts from, where it takes any.

    Raises TrainingError: unlabelled videos, fewer than two videos or classes, a loss that is no number.
    """
    check_trainable(training)
    projection = projection_for(training, spec.sequence, spec.train.seed)
    data = padded(training, projection, spec.sequence, device)
    held_out = padded(validation, projection, spec.sequence, device) if validation is not None else None
    with seeded(spec.train.seed, device):
        head = build_head(spec.head, data.width, num_classes, weights).to(device)
        if isinstance(head, Solvable):
            choice = solve(head, data, held_out, spec, phase)
            history, best_epoch = choice.records, choice.best
            for record in history if on_epoch else ():
                on_epoch(record)  # type: ignore[misc]
            return Fitted(head.eval(), projection, history, best_epoch)
        history, best_epoch = _epochs(head, data, held_out, spec, on_epoch, phase)
    return Fitted(head.eval(), projection, history, best_epoch)


def refit(
    fitted: Fitted,
    training: Sequences,
    spec: RunSpec,
    num_classes: int,
    device: str,
    on_epoch: OnEpoch | None,
    weights: Path | None = None,
) -> Fitted:
    """Train anew on ``training`` (training and validation part) for the number of epochs that ``fitted`` found; histories are joined."""
    fixed = replace(spec, train=replace(spec.train, epochs=fitted.best_epoch))
    if isinstance(fitted.head, Solvable):
        fixed = with_choice(spec, fitted.history, fitted.best_epoch)
    again = fit(training, None, fixed, num_classes, device, on_epoch, "refit", weights)
    return Fitted(again.head, again.projection, fitted.history + again.history, fitted.best_epoch)


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
    with torch.inference_mode():
        parts = [head(batch.x, batch.lengths).float().cpu() for batch in data.batches(SCORE_BATCH)]
    return video_scores(torch.cat(parts).numpy(), data.owners, kind)


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """torch's generators start from ``seed`` inside and are as before outside."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def _epochs(
    head: nn.Module, data: Samples, held_out: Samples | None, run: RunSpec, on_epoch: OnEpoch | None, phase: str
) -> tuple[list[Epoch], int]:
    spec = run.train
    optimizer = _optimizer(head, spec)
    generator = np.random.default_rng(spec.seed)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = math.inf, spec.epochs, None
    for epoch in range(1, spec.epochs + 1):
        record: Epoch = {"phase": phase, "epoch": epoch, **_one_epoch(head, data, optimizer, spec, generator.permutation(len(data)))}
        _check_finite(record["train_loss"], "training", epoch, spec)
        if held_out is not None:
            record |= _evaluate(head, held_out, score_kind(run))
            _check_finite(record["val_loss"], "validation", epoch, spec)
            if record["val_loss"] < best_loss:
                best_loss, best_epoch = record["val_loss"], epoch
                best_state = copy.deepcopy(head.state_dict())
        history.append(record)
        if on_epoch:
            on_epoch(record)
        if held_out is not None and epoch - best_epoch >= spec.patience:
            break
    if best_state is not None:
        head.load_state_dict(best_state)
    return history, best_epoch


def _one_epoch(head: nn.Module, data: Samples, optimizer: torch.optim.Optimizer, spec: TrainSpec, order: np.ndarray) -> dict[str, float]:
    head.train()
    total, correct = torch.zeros((), device=data.device), torch.zeros((), device=data.device)
    for batch in data.in_order(order, spec.batch_size):
        optimizer.zero_grad(set_to_none=True)
        scores = head(batch.x, batch.lengths)
        loss = functional.cross_entropy(scores, batch.labels, label_smoothing=spec.label_smoothing)
        loss.backward()
        if spec.gradient_clip:
            nn.utils.clip_grad_norm_(head.parameters(), spec.gradient_clip)
        optimizer.step()
        total += loss.detach() * len(batch.labels)
        correct += _hits(scores.detach(), batch.labels)
    return {"train_loss": float(total) / len(data), "train_accuracy": float(correct) / len(data)}


def _evaluate(head: nn.Module, data: Samples, kind: Kind) -> dict[str, float]:
    """Of videos, not samples."""
    scores, labels = torch.from_numpy(class_scores(head, data, kind)), torch.from_numpy(data.video_labels)
    return {"val_loss": float(functional.cross_entropy(scores, labels)), "val_accuracy": float(_hits(scores, labels)) / len(labels)}


def _hits(scores: Tensor, labels: Tensor) -> Tensor:
    return (scores.argmax(1) == labels).sum()


def _check_finite(loss: float, part: str, epoch: int, spec: TrainSpec) -> None:
    if not math.isfinite(loss):
        raise TrainingError(
            f"the {part} loss became {loss} in epoch {epoch}; lower --train.learning-rate (now {spec.learning_rate:g}), set "
            f"--train.gradient-clip (now {spec.gradient_clip:g}), or normalise the features with --sequence.znorm"
        )


def _optimizer(head: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    parameters, rate, decay = head.parameters(), spec.learning_rate, spec.weight_decay
    if spec.optimizer == "rmsprop":
        return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay)
    if spec.optimizer == "adam":
        return torch.optim.Adam(parameters, lr=rate, weight_decay=decay)
    if spec.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.SGD(parameters, lr=rate, weight_decay=decay, momentum=0.9)
