"""Bring scores to the footing of a rule: pure functions over the last axis (classes), any dtype of float in and out."""

from collections.abc import Callable

import numpy as np

from fusion.rules import Footing


def log_softmax(values: np.ndarray) -> np.ndarray:
    """log(exp(s_c) / sum_j exp(s_j)), never overflowing; takes raw scores, or log-probabilities, which it leaves as they are."""
    shifted = values - values.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def softmax(values: np.ndarray) -> np.ndarray:
    """exp(s_c) / sum_j exp(s_j), never overflowing."""
    powers = np.exp(values - values.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


def l2(values: np.ndarray) -> np.ndarray:
    """Each row divided by its Euclidean norm; a row of zeros stays zero."""
    norm = np.linalg.norm(values, axis=-1, keepdims=True)
    return np.divide(values, norm, out=np.zeros_like(values), where=norm > 0)


def rank(values: np.ndarray) -> np.ndarray:
    """Number of classes that a class beats, a tie counting half: C - 1 for the best of C, 0 for the worst."""
    ordered = np.sort(values, axis=-1)
    flat, rows = ordered.reshape(-1, values.shape[-1]), values.reshape(-1, values.shape[-1])
    below = [np.searchsorted(line, row, "left") + np.searchsorted(line, row, "right") - 1 for line, row in zip(flat, rows, strict=True)]
    return (np.asarray(below, values.dtype) / 2).reshape(values.shape)


def raw(values: np.ndarray) -> np.ndarray:
    """The numbers as they are."""
    return values


FOOTINGS: dict[Footing, Callable[[np.ndarray], np.ndarray]] = {
    "softmax": softmax,
    "log_softmax": log_softmax,
    "raw": raw,
    "l2": l2,
    "rank": rank,
}


def finish(combined: np.ndarray, footing: Footing) -> np.ndarray:
    """Turn a rule's result [V, C] into what a table can hold in float32.

    A mixture of probabilities is kept as log(p / p of the best class): its softmax is the mixture, and near the top float32 still tells
    apart classes that the logarithm of p itself would make equal (saturated networks that disagree give 0.5 + 1e-12 and 0.5).
    """
    if footing == "log_softmax":
        return log_softmax(combined)
    if footing == "softmax":
        share = combined / combined.max(axis=-1, keepdims=True)
        return np.log(np.maximum(share, np.finfo(share.dtype).tiny))
    return combined
