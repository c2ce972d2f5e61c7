"""Heads that a solver fits at once, not gradient steps: their features are pooled, a setting is chosen on the validation part."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch

from store.errors import TrainingError
from temporal.batches import Samples
from temporal.scoring import video_scores
from temporal.spec import RunSpec

POOL_BATCH = 256  # samples pooled at once


@dataclass(frozen=True)
class Pooled:
    """Features float64 [S, D] and labels int64 [S] of samples; ``owners`` int64 [S] and ``video_labels`` [V] of their videos."""

    x: np.ndarray
    labels: np.ndarray
    owners: np.ndarray
    video_labels: np.ndarray


@dataclass(frozen=True)
class Choice:
    """The best of the values tried of setting ``name``: W [C, D] and b [C]; a record of each value, of which number ``best`` won."""

    name: str
    value: float
    weight: np.ndarray
    bias: np.ndarray
    records: list[dict[str, Any]]
    best: int


@runtime_checkable
class Solvable(Protocol):
    """A head that declares ``FITTED = "solver"``."""

    def pooled(self, x: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """What the solver is given of a batch, [B, D]."""

    def solve(self, training: Pooled, validation: Pooled | None, seed: int) -> Choice:
        """Fit the head's weights."""


def solve(head: Solvable, data: Samples, held_out: Samples | None, spec: RunSpec, phase: str) -> Choice:
    """Pool both parts on their device, then fit on the CPU."""
    validation = pool(head, held_out) if held_out is not None else None
    choice = head.solve(pool(head, data), validation, spec.train.seed)
    return replace(choice, records=[{"phase": phase, **record} for record in choice.records])


def with_choice(spec: RunSpec, records: Sequence[dict[str, Any]], best: int) -> RunSpec:
    """The spec with the value that was chosen, so that a refit tries no other."""
    record = records[best - 1]
    params = {name: record.get(name, value) for name, value in spec.head.params.items()}
    return replace(spec, head=replace(spec.head, params=params))


def pool(head: Solvable, data: Samples) -> Pooled:
    """What a solver is given of a part."""
    with torch.inference_mode():
        parts = [head.pooled(batch.x, batch.lengths).double().cpu() for batch in data.batches(POOL_BATCH)]
    return Pooled(torch.cat(parts).numpy(), data.video_labels[data.owners], data.owners, data.video_labels)


@dataclass(frozen=True)
class Solution:
    """W [C, D], b [C], and whether the solver came to its end."""

    weight: np.ndarray
    bias: np.ndarray
    converged: bool


def best_choice(
    name: str, values: Sequence[float], fit: Callable[[float], Solution], training: Pooled, validation: Pooled | None
) -> Choice:
    """Try every value; the highest validation accuracy wins, of equals the first.

    One after another: liblinear has one generator a process, so fits in threads would draw from each other's numbers. TrainingError where
    the solver fails.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of solvers that did not converge, which the records tell
        try:
            solutions = [fit(value) for value in values]
        except ValueError as error:
            raise TrainingError(f"the solver cannot fit: {error}") from None
    records: list[dict[str, Any]] = []
    for number, (value, found) in enumerate(zip(values, solutions, strict=True), start=1):
        record = {"epoch": number, name: value, "converged": found.converged, **_measured("train", found, training)}
        records.append(record | (_measured("val", found, validation) if validation is not None else {}))
    best = int(np.argmax([record.get("val_accuracy", record["train_accuracy"]) for record in records]))
    return Choice(name, values[best], solutions[best].weight, solutions[best].bias, records, best + 1)


def _measured(part: str, found: Solution, data: Pooled) -> dict[str, float]:
    """Mean hinge loss max(0, 1 - y d), summed over the classes, and accuracy, both of videos."""
    values = video_scores((data.x @ found.weight.T + found.bias).astype(np.float32), data.owners, "decision_values")
    sign = np.where(np.arange(values.shape[1]) == data.video_labels[:, None], 1.0, -1.0)
    hinge = np.maximum(0, 1 - sign * values).sum(axis=1).mean()
    return {f"{part}_loss": float(hinge), f"{part}_accuracy": float((values.argmax(axis=1) == data.video_labels).mean())}
