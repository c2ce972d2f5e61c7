"""Weights, temperatures and stacking that labels of other videos teach: convex fits of cross-entropy. Pure numpy and scipy's L-BFGS.

``inputs`` are float64 [T, V, C], ``labels`` int64 [V]. What is learned gives log p = log_softmax(sum_t w_t s_t), or with weights and
biases of classes log_softmax(sum_t w_tc s_tc + b_c).
"""

from collections.abc import Callable, Sequence

import numpy as np

from fusion.footing import log_softmax
from store.errors import ScoreError


def cross_entropy(log_probs: np.ndarray, labels: np.ndarray) -> float:
    """Mean over videos of -log p of the true class."""
    return float(-log_probs[np.arange(len(labels)), labels].mean())


def fit_weights(inputs: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """w [T] >= 0 that minimise the cross-entropy; for one input, 1 / temperature (Guo et al. 2017)."""
    rows = np.arange(len(labels))
    at_truth = inputs[:, rows, labels].mean(axis=1)

    scale = 1 / np.maximum(inputs.std(axis=(1, 2)), 1e-12)  # scores of 0.1 and of 100 must start alike

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        log_probs = log_softmax(np.einsum("tvc,t->vc", inputs, x * scale))
        expected = np.einsum("tvc,vc->t", inputs, np.exp(log_probs)) / len(labels)
        return cross_entropy(log_probs, labels), (expected - at_truth) * scale

    return _minimise(loss, np.ones(len(inputs)), lower=0.0) * scale


def fit_stacking(inputs: np.ndarray, labels: np.ndarray, penalty: float) -> tuple[np.ndarray, np.ndarray]:
    """w [T, C] and b [C]: the shared weights of ``fit_weights``, changed for each class as far as the penalty allows.

    Minimises cross-entropy + penalty * (sum (w_tc / w_t - 1)^2 + sum b_c^2) over all w and b.
    """
    shared = np.maximum(fit_weights(inputs, labels), 1e-6)
    scaled = inputs * shared[:, None, None]
    num_inputs, num_videos, num_classes = inputs.shape
    truth = np.zeros((num_videos, num_classes))
    truth[np.arange(num_videos), labels] = 1

    def loss(x: np.ndarray) -> tuple[float, np.ndarray]:
        factors, bias = x[:-num_classes].reshape(num_inputs, num_classes), x[-num_classes:]
        log_probs = log_softmax(np.einsum("tvc,tc->vc", scaled, factors) + bias)
        error = (np.exp(log_probs) - truth) / num_videos
        slope = np.einsum("tvc,vc->tc", scaled, error) + 2 * penalty * (factors - 1)
        value = cross_entropy(log_probs, labels) + penalty * (((factors - 1) ** 2).sum() + (bias**2).sum())
        return value, np.concatenate([slope.ravel(), error.sum(axis=0) + 2 * penalty * bias])

    found = _minimise(loss, np.concatenate([np.ones(num_inputs * num_classes), np.zeros(num_classes)]))
    return found[:-num_classes].reshape(num_inputs, num_classes) * shared[:, None], found[-num_classes:]


def _minimise(loss: Callable[[np.ndarray], tuple[float, np.ndarray]], start: np.ndarray, lower: float | None = None) -> np.ndarray:
    from scipy.optimize import minimize

    bounds = None if lower is None else [(lower, None)] * len(start)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", bounds=bounds, options={"maxiter": 500, "ftol": 1e-12, "gtol": 1e-8})
    if not np.isfinite(found.x).all():
        raise ScoreError("no weights could be learned: the scores are too large for their cross-entropy to be a number")
    return np.asarray(found.x)


def group_folds(groups: Sequence[str], count: int, seed: int) -> np.ndarray:
    """The fold of each video, int64 [V] in 0..count-1: whole groups, dealt out in an order drawn from ``seed`` to the smallest fold."""
    names = sorted(set(groups))
    if len(names) < count:
        raise ScoreError(f"{len(names)} groups cannot be dealt into {count} folds; ask for at most {len(names)} with --folds")
    sizes = dict.fromkeys(names, 0)
    for group in groups:
        sizes[group] += 1
    filled, fold_of = np.zeros(count, np.int64), {}
    for place in np.random.default_rng(seed).permutation(len(names)).tolist():
        fold = int(filled.argmin())
        fold_of[names[place]] = fold
        filled[fold] += sizes[names[place]]
    return np.array([fold_of[group] for group in groups], np.int64)
