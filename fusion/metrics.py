"""Accuracy and its uncertainty from scores and labels, in numpy alone.

Everywhere ``values`` is float [V, C] (higher is better), ``labels`` is int64 [V] (index of the true class); accuracies are fractions.

**Ties.** A network that gives every class the same score knows nothing and must not be right by the luck of class order.
So with ``ties="wrong"`` (the default) a video counts for top-k only if fewer than k *other* classes score at least as high as the true one.
The result does not depend on the order of the classes. ``ties="index"`` gives a tie to the class listed first, as ``argmax`` does;
published figures are often computed that way.
"""

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from fusion.bootstrap import Interval, Units, bootstrap_class_means, bootstrap_means, each_video, interval
from store.errors import ScoreError

Ties = Literal["wrong", "index"]


@dataclass(frozen=True)
class Evaluation:
    """Every figure of one score table. ``per_class`` is NaN and left out of ``mean_class`` where a class has no video."""

    num_videos: int
    num_classes: int
    top1: float
    top5: float
    mean_class: float
    top1_interval: Interval
    mean_class_interval: Interval
    per_class: np.ndarray  # float64 [C]
    counts: np.ndarray  # int64 [C], videos of each class
    confusion: np.ndarray  # int64 [C, C], rows are true classes
    ties: Ties


@dataclass(frozen=True)
class McNemar:
    """Exact McNemar test of two classifiers on the same videos; ``p`` is two-sided."""

    only_first: int
    only_second: int
    p: float


def check(values: np.ndarray, labels: np.ndarray) -> None:
    """Raise ``ScoreError`` for scores and labels that do not fit together, or scores that are not finite."""
    if values.ndim != 2 or labels.shape != values.shape[:1] or not values.size:
        raise ScoreError(
            f"scores of shape {values.shape} and labels of shape {labels.shape} do not fit; give [V, C] and [V], V and C above 0"
        )
    bad = ~np.isfinite(values).all(axis=1)
    if bad.any():
        raise ScoreError(f"{int(bad.sum())} rows of scores are not finite (first: row {int(bad.argmax())}); find what made them")
    outside = (labels < 0) | (labels >= values.shape[1])
    if outside.any():
        raise ScoreError(f"label {int(labels[outside.argmax()])} in row {int(outside.argmax())} is outside 0..{values.shape[1] - 1}")


def ranks(values: np.ndarray, labels: np.ndarray, ties: Ties = "wrong") -> np.ndarray:
    """Number of classes placed before the true one, int64 [V]; 0 means that the video is classified correctly."""
    check(values, labels)
    truth = np.take_along_axis(values, labels[:, None], axis=1)
    tied = values == truth
    np.put_along_axis(tied, labels[:, None], False, axis=1)
    if ties == "index":
        tied &= np.arange(values.shape[1]) < labels[:, None]
    return ((values > truth) | tied).sum(axis=1)


def order(values: np.ndarray, labels: np.ndarray, ties: Ties = "wrong") -> np.ndarray:
    """Classes of each video from best to worst, int64 [V, C]; the true class stands where ``ranks`` says, equal others by index."""
    check(values, labels)
    place = np.broadcast_to(np.arange(values.shape[1]), values.shape).copy()
    if ties == "wrong":
        np.put_along_axis(place, labels[:, None], values.shape[1], axis=1)
    return np.lexsort((place, -values), axis=1)


def predictions(values: np.ndarray, labels: np.ndarray, ties: Ties = "wrong") -> np.ndarray:
    """Predicted class, int64 [V]: the best; with ``ties="wrong"``, of equal bests the first but the truth. Agrees with ``ranks``."""
    check(values, labels)
    best = values.argmax(axis=1)
    if ties == "index" or values.shape[1] == 1:
        return best
    others = values.astype(np.float64)
    np.put_along_axis(others, labels[:, None], -np.inf, axis=1)
    other = others.argmax(axis=1)
    rows = np.arange(len(values))
    return np.where(values[rows, labels] > values[rows, other], labels, other)


def topk_accuracy(values: np.ndarray, labels: np.ndarray, k: int = 1, ties: Ties = "wrong") -> float:
    """Fraction of videos whose true class is among the k best; k may exceed the number of classes."""
    if k < 1:
        raise ScoreError(f"top-{k} accuracy does not exist; k must be at least 1")
    return float((ranks(values, labels, ties) < min(k, values.shape[1])).mean())


def confusion_matrix(predicted: np.ndarray, labels: np.ndarray, num_classes: int) -> np.ndarray:
    """Videos counted by [true class, predicted class], int64 [C, C]."""
    return np.bincount(labels * num_classes + predicted, minlength=num_classes**2).reshape(num_classes, num_classes)


def class_accuracy(confusion: np.ndarray) -> np.ndarray:
    """Fraction of each true class that is right, float64 [C]; NaN for a class without videos."""
    counts = confusion.sum(axis=1)
    return np.divide(np.diag(confusion), counts, out=np.full(len(counts), np.nan), where=counts > 0)


def mean_class_accuracy(confusion: np.ndarray) -> float:
    """Mean of ``class_accuracy`` over the classes that have videos."""
    return float(np.nanmean(class_accuracy(confusion)))


def evaluate(
    values: np.ndarray,
    labels: np.ndarray,
    *,
    samples: int = 1000,
    level: float = 0.95,
    seed: int = 0,
    ties: Ties = "wrong",
    units: Units | None = None,
) -> Evaluation:
    """All figures of one table; intervals from ``samples`` bootstrap resamples (the same ones for the same seed and ``units``)."""
    num_classes = values.shape[1] if values.ndim == 2 else 0
    hits = ranks(values, labels, ties)
    confusion = confusion_matrix(predictions(values, labels, ties), labels, num_classes)
    right = hits == 0
    units = units or each_video(len(labels))
    return Evaluation(
        num_videos=len(labels),
        num_classes=num_classes,
        top1=float(right.mean()),
        top5=float((hits < min(5, num_classes)).mean()),
        mean_class=mean_class_accuracy(confusion),
        top1_interval=interval(bootstrap_means(right, samples, seed, units), level),
        mean_class_interval=interval(bootstrap_class_means(right, labels, num_classes, samples, seed, units), level),
        per_class=class_accuracy(confusion),
        counts=confusion.sum(axis=1),
        confusion=confusion,
        ties=ties,
    )


def mcnemar(first: np.ndarray, second: np.ndarray) -> McNemar:
    """Is one table better? ``first`` and ``second`` are bool [V], right or not on the same videos.

    Under equal accuracy the videos that only one of them gets right fall to either with probability 1/2, so
    p = min(1, 2 P[Binomial(b + c, 1/2) <= min(b, c)]).
    """
    if first.shape != second.shape:
        raise ScoreError(f"McNemar's test compares the same videos; got {first.shape} and {second.shape}")
    only_first, only_second = int((first & ~second).sum()), int((~first & second).sum())
    n = only_first + only_second
    logs = [math.lgamma(n + 1) - math.lgamma(k + 1) - math.lgamma(n - k + 1) for k in range(min(only_first, only_second) + 1)]
    tail = np.exp(np.logaddexp.reduce(logs) - n * math.log(2))
    return McNemar(only_first, only_second, float(min(1.0, 2 * tail)))


def agreement(first: np.ndarray, second: np.ndarray) -> dict[str, float]:
    """Fractions of videos that both, only one, or neither get right; ``either`` is what a perfect choice between the two would reach."""
    both = float((first & second).mean())
    shares = {"both": both, "only_first": float((first & ~second).mean()), "only_second": float((~first & second).mean())}
    return shares | {"neither": float((~first & ~second).mean()), "either": float((first | second).mean())}


def calibration_error(probabilities: np.ndarray, labels: np.ndarray, bins: int = 15, ties: Ties = "wrong") -> float:
    """Expected calibration error: |accuracy - confidence| of the best class in equal bins of confidence, weighted by the videos in each."""
    right = ranks(probabilities, labels, ties) == 0
    confidence = probabilities.max(axis=1).astype(np.float64)
    place = np.minimum((confidence * bins).astype(int), bins - 1)
    gaps = np.bincount(place, right - confidence, minlength=bins)
    return float(np.abs(gaps).sum() / len(labels))
