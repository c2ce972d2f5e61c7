"""Fisher vectors of a set of descriptors under a Gaussian mixture with diagonal covariance (Perronnin, Sánchez & Mensink, ECCV 2010)."""

from dataclasses import dataclass

import numpy as np

SMALLEST_WEIGHT = 1e-12  # of a Gaussian that no row belongs to


@dataclass(frozen=True, eq=False)
class Mixture:
    """PCA and mixture of one descriptor.

    ``centre`` [D] and ``axes`` [d, D] take x to y = axes (x - centre); ``weights`` [K], ``means`` and ``variances`` [K, d] are of y. All
    are float64.
    """

    centre: np.ndarray
    axes: np.ndarray
    weights: np.ndarray
    means: np.ndarray
    variances: np.ndarray

    @property
    def width(self) -> int:
        """Numbers in a Fisher vector: 2 K d."""
        return 2 * self.means.size


class FisherSums:
    """Collects a video's sums over its descriptors, block by block.

    With the posteriors q_k(y) of the K Gaussians: S0_k = sum q_k, S1_k = sum q_k y, S2_k = sum q_k y^2. ``log_likelihood`` is the sum of
    log p(y).
    """

    def __init__(self, mixture: Mixture) -> None:
        self._mixture = mixture
        count, width = mixture.means.shape
        precisions = 1 / mixture.variances
        # log(w_k N_k(y)) = constant_k + y . (m_k / s_k) - y^2 . (1 / 2 s_k): two products of matrices
        self._linear = (mixture.means * precisions).T.astype(np.float32)
        self._square = (-precisions / 2).T.astype(np.float32)
        logs = np.log(2 * np.pi * mixture.variances) + mixture.means**2 * precisions
        self._constant = (np.log(np.maximum(mixture.weights, SMALLEST_WEIGHT)) - logs.sum(1) / 2).astype(np.float32)
        self._axes, self._offset = mixture.axes.T.astype(np.float32), (mixture.axes @ mixture.centre).astype(np.float32)
        self._s0, self._s1, self._s2 = np.zeros(count), np.zeros((count, width)), np.zeros((count, width))
        self.rows, self.log_likelihood = 0, 0.0

    def add(self, descriptors: np.ndarray) -> None:
        """Count descriptors, float32 [n, D], in."""
        y = descriptors @ self._axes - self._offset
        squares = y * y
        posteriors = y @ self._linear
        posteriors += squares @ self._square
        posteriors += self._constant
        highest = posteriors.max(1, keepdims=True)
        posteriors -= highest
        np.exp(posteriors, out=posteriors)
        total = posteriors.sum(1, keepdims=True)
        posteriors /= total
        self.log_likelihood += float(highest.sum(dtype=np.float64) + np.log(total).sum(dtype=np.float64))
        self._s0 += posteriors.sum(0, dtype=np.float64)
        self._s1 += posteriors.T @ y
        self._s2 += posteriors.T @ squares
        self.rows += len(descriptors)

    def maximum(self, floor: float, no_row: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Weights, means and variances (with ``floor`` added) that these posteriors make most likely: an EM step."""
        s0 = self._s0[:, None] + no_row
        means = self._s1 / s0
        return self._s0 / self.rows, means, np.maximum(self._s2 / s0 - means**2, 0) + floor

    def vector(self) -> np.ndarray:
        """The gradient of the mean log-likelihood by the K means, then by the K deviations, in units of its expected size: float64 [2 K d].

        g_m = (S1 - m S0) / (n sqrt(w) s) and g_s = (S2 - 2 m S1 + (m^2 - s^2) S0) / (n sqrt(2 w) s^2), with deviations s. Zero without
        any descriptor. (The gradient by the weights adds little and is left out, as in the papers.)
        """
        m, variance = self._mixture.means, self._mixture.variances
        if not self.rows:
            return np.zeros(self._mixture.width)
        s0, root = self._s0[:, None], np.sqrt(self._mixture.weights)[:, None]
        by_mean = (self._s1 - m * s0) / (self.rows * root * np.sqrt(variance))
        by_deviation = (self._s2 - 2 * m * self._s1 + (m**2 - variance) * s0) / (self.rows * root * np.sqrt(2) * variance)
        return np.concatenate([by_mean.ravel(), by_deviation.ravel()])


def normalise(vector: np.ndarray, power: float, l2: bool) -> np.ndarray:
    """sign(v) |v|^power, then length 1 (a zero vector stays zero): float64."""
    vector = np.sign(vector) * np.abs(vector) ** power
    length = np.linalg.norm(vector) if l2 else 1.0
    return vector / length if length > 0 else vector


def rootsift(descriptors: np.ndarray) -> np.ndarray:
    """Square roots of non-negative descriptors' shares of their sum (Arandjelović & Zisserman 2012): float32 [n, D]."""
    positive = np.maximum(descriptors, 0)
    return np.sqrt(positive / np.maximum(positive.sum(1, keepdims=True), np.finfo(np.float32).tiny))
