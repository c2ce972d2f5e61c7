"""Gaussian mixtures by expectation-maximisation, in blocks that stay in the processor's cache, with the sums of Fisher vectors.

scikit-learn's ``GaussianMixture`` computes the same (a test compares them), but writes all posteriors to memory several times in each step:
with 256,000 trajectories and 256 Gaussians it takes 3 times as long and more than 1 GB a process.
"""

import numpy as np

from fusion.idt.fisher import FisherSums, Mixture
from fusion.idt.spec import FisherSpec

BLOCK = 4096
_NO_ROW = 10 * np.finfo(np.float64).eps  # added to a Gaussian's rows, so that one without any stays a number


def fit_gaussians(rows: np.ndarray, spec: FisherSpec, floor: float) -> Mixture:
    """Weights, means and variances of ``spec.components`` Gaussians, without PCA, from rows float32 [n, d].

    Steps end when the mean log-likelihood gains less than ``spec.tolerance``, or after ``spec.iterations``. ``floor`` is added to
    each variance.
    """
    width = rows.shape[1]
    means = first_means(rows, spec).astype(np.float64)
    # such narrow Gaussians give each row to its nearest mean, as scikit-learn's own start does
    model = _model(np.full(len(means), 1 / len(means)), means, np.full((len(means), width), floor))
    before = -np.inf
    for _ in range(spec.iterations):
        sums = FisherSums(model)
        for start in range(0, len(rows), BLOCK):
            sums.add(rows[start : start + BLOCK])
        model = _model(*sums.maximum(floor, _NO_ROW))
        likelihood = sums.log_likelihood / len(rows)
        if abs(likelihood - before) < spec.tolerance:
            break
        before = likelihood
    return model


def first_means(rows: np.ndarray, spec: FisherSpec) -> np.ndarray:
    """Where the Gaussians begin, [K, d], by ``spec.init``."""
    from sklearn.cluster import KMeans, kmeans_plusplus

    if spec.init == "kmeans":
        return np.asarray(KMeans(spec.components, n_init=1, random_state=spec.seed).fit(rows).cluster_centers_)
    random = np.random.RandomState(spec.seed)  # which scikit-learn takes
    if spec.init == "k-means++":
        return np.asarray(kmeans_plusplus(rows, spec.components, random_state=random)[0])
    return rows[random.choice(len(rows), spec.components, replace=False)]


def _model(weights: np.ndarray, means: np.ndarray, variances: np.ndarray) -> Mixture:
    width = means.shape[1]
    return Mixture(np.zeros(width), np.eye(width), weights, means, variances)
