"""Fit a head: projection, batches, early stopping, refit. A seed determines the result on one machine; no global RNG is changed."""

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import TrainingError
from temporal.heads import HEADS
from temporal.projection import Projection, fit_projection
from temporal.sequences import PaddedSequences, Sequences
from temporal.spec import RunSpec, TrainSpec

SCORE_BATCH = 256  # sequences scored at once; does not change a score
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
) -> Fitted:
    """Fit projection and head on ``training``; with ``validation`` stop early and give the weights of its lowest loss.

    Raises TrainingError: unlabelled videos, fewer than two videos or classes, a loss that is no number.
    """
    check_trainable(training)
    projection = fit_projection(training.own_rows(), spec.sequence, spec.train.seed)
    data = padded(training, projection, spec, device)
    held_out = padded(validation, projection, spec, device) if validation is not None else None
    with seeded(spec.train.seed, device):
        head = build_head(spec, int(data.rows.shape[1]), num_classes).to(device)
        history, best_epoch = _epochs(head, data, held_out, spec.train, on_epoch, phase)
    return Fitted(head.eval(), projection, history, best_epoch)


def refit(fitted: Fitted, training: Sequences, spec: RunSpec, num_classes: int, device: str, on_epoch: OnEpoch | None) -> Fitted:
    """Train anew on ``training`` (training and validation part) for the number of epochs that ``fitted`` found; histories are joined."""
    fixed = replace(spec, train=replace(spec.train, epochs=fitted.best_epoch))
    again = fit(training, None, fixed, num_classes, device, on_epoch, phase="refit")
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


def build_head(spec: RunSpec, input_width: int, num_classes: int) -> nn.Module:
    """The head of ``spec.head``, its weights drawn from the global generator (call inside ``seeded``)."""
    return HEADS.get(spec.head.name)(input_width, num_classes, spec.head)


def padded(sequences: Sequences, projection: Projection, spec: RunSpec, device: str) -> PaddedSequences:
    """Project and sample a whole part onto the device."""
    compact = Sequences(
        sequences.ids,
        projection.apply(sequences.own_rows()),
        np.cumsum(sequences.counts) - sequences.counts,
        sequences.counts,
        sequences.labels,
        sequences.groups,
    )
    return PaddedSequences(compact, compact.rows, spec.sequence, device)


def class_scores(head: nn.Module, data: PaddedSequences) -> np.ndarray:
    """Raw class scores (before softmax) of every sequence, float32 [V, C]."""
    head.eval()
    with torch.inference_mode():
        parts = [head(batch.x, batch.lengths) for batch in data.batches(SCORE_BATCH)]
    return torch.cat(parts).float().cpu().numpy()


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """torch's generators start from ``seed`` inside and are as before outside."""
    with torch.random.fork_rng(devices=[device] if device.startswith("cuda") else []):
        torch.manual_seed(seed)
        yield


def _epochs(
    head: nn.Module, data: PaddedSequences, held_out: PaddedSequences | None, spec: TrainSpec, on_epoch: OnEpoch | None, phase: str
) -> tuple[list[Epoch], int]:
    optimizer = _optimizer(head, spec)
    generator = np.random.default_rng(spec.seed)
    history: list[Epoch] = []
    best_loss, best_epoch, best_state = math.inf, spec.epochs, None
    for epoch in range(1, spec.epochs + 1):
        record: Epoch = {"phase": phase, "epoch": epoch, **_one_epoch(head, data, optimizer, spec, generator.permutation(len(data)))}
        _check_finite(record["train_loss"], "training", epoch, spec)
        if held_out is not None:
            record |= _evaluate(head, held_out)
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


def _one_epoch(
    head: nn.Module, data: PaddedSequences, optimizer: torch.optim.Optimizer, spec: TrainSpec, order: np.ndarray
) -> dict[str, float]:
    head.train()
    total, correct = torch.zeros((), device=data.rows.device), torch.zeros((), device=data.rows.device)
    for start in range(0, len(order), spec.batch_size):
        batch = data.batch(order[start : start + spec.batch_size])
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


def _evaluate(head: nn.Module, data: PaddedSequences) -> dict[str, float]:
    scores = torch.from_numpy(class_scores(head, data))
    labels = data.labels.cpu()
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
