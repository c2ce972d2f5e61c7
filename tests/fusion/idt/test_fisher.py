"""Fisher vectors against the formula in plain loops, and against the numerical derivative of the log-likelihood."""

import math

import numpy as np
import pytest

from fusion.idt.codebook import fit_mixture
from fusion.idt.fisher import FisherSums, Mixture, normalise, rootsift
from fusion.idt.mixture import fit_gaussians
from fusion.idt.spec import FisherSpec
from store.errors import TrainingError


def mixture(seed: int = 0, count: int = 3, depth: int = 5, width: int = 4) -> Mixture:
    generator = np.random.default_rng(seed)
    axes = np.linalg.qr(generator.normal(size=(depth, width)))[0].T
    weights = generator.uniform(0.5, 1.5, count)
    return Mixture(
        generator.normal(size=depth),
        axes,
        weights / weights.sum(),
        generator.normal(size=(count, width)),
        generator.uniform(0.3, 2, (count, width)),
    )


def log_likelihood(y: np.ndarray, weights: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> float:
    """Mean over the rows of log sum_k w_k N(y; m_k, s_k), term by term."""
    total = 0.0
    for row in y:
        density = 0.0
        for k in range(len(weights)):
            product = weights[k]
            for j in range(len(row)):
                product *= math.exp(-((row[j] - means[k, j]) ** 2) / (2 * deviations[k, j] ** 2)) / (
                    math.sqrt(2 * math.pi) * deviations[k, j]
                )
            density += product
        total += math.log(density)
    return total / len(y)


def fisher_by_loops(y: np.ndarray, weights: np.ndarray, means: np.ndarray, deviations: np.ndarray) -> np.ndarray:
    """Perronnin et al. (2010), equations of the gradient by means and by deviations, one number at a time."""
    count, width = means.shape
    by_mean, by_deviation = np.zeros((count, width)), np.zeros((count, width))
    for row in y:
        joint = [weights[k] * np.prod(np.exp(-(((row - means[k]) / deviations[k]) ** 2) / 2) / deviations[k]) for k in range(count)]
        for k in range(count):
            posterior = joint[k] / sum(joint)
            for j in range(width):
                distance = (row[j] - means[k, j]) / deviations[k, j]
                by_mean[k, j] += posterior * distance / (len(y) * math.sqrt(weights[k]))
                by_deviation[k, j] += posterior * (distance**2 - 1) / (len(y) * math.sqrt(2 * weights[k]))
    return np.concatenate([by_mean.ravel(), by_deviation.ravel()])


def fast(descriptors: np.ndarray, model: Mixture, blocks: int = 1) -> np.ndarray:
    sums = FisherSums(model)
    for block in np.array_split(descriptors.astype(np.float32), blocks):
        sums.add(block)
    return sums.vector()


@pytest.fixture
def descriptors() -> np.ndarray:
    return np.random.default_rng(1).normal(size=(40, 5)).astype(np.float32)


def test_the_vector_is_the_formula_in_loops(descriptors: np.ndarray) -> None:
    model = mixture()
    y = (descriptors - model.centre) @ model.axes.T
    expected = fisher_by_loops(y, model.weights, model.means, np.sqrt(model.variances))
    np.testing.assert_allclose(fast(descriptors, model), expected, atol=2e-5)


def test_the_vector_is_the_derivative_of_the_log_likelihood(descriptors: np.ndarray) -> None:
    model = mixture(2)
    y = (descriptors - model.centre) @ model.axes.T
    deviations = np.sqrt(model.variances)
    step = 1e-5
    numerical = np.zeros((2, *model.means.shape))
    for place in np.ndindex(*model.means.shape):
        bump = np.zeros_like(model.means)
        bump[place] = step
        for which, (by_mean, by_deviation) in enumerate([(bump, 0 * bump), (0 * bump, bump)]):
            above = log_likelihood(y, model.weights, model.means + by_mean, deviations + by_deviation)
            below = log_likelihood(y, model.weights, model.means - by_mean, deviations - by_deviation)
            numerical[which][place] = (above - below) / (2 * step)
    root = np.sqrt(model.weights)[:, None]  # the inverse square root of the Fisher information: s / sqrt(w) and s / sqrt(2 w)
    expected = np.concatenate([(numerical[0] * deviations / root).ravel(), (numerical[1] * deviations / (np.sqrt(2) * root)).ravel()])
    np.testing.assert_allclose(fast(descriptors, model), expected, atol=2e-5)


def test_blocks_change_nothing(descriptors: np.ndarray) -> None:
    np.testing.assert_allclose(fast(descriptors, mixture(), 7), fast(descriptors, mixture()), atol=1e-6)


def test_nothing_is_a_vector_of_zeros() -> None:
    vector = FisherSums(mixture()).vector()
    assert vector.shape == (24,)
    assert not normalise(vector, 0.5, True).any()


def test_normalisation_is_signed_power_then_length_one() -> None:
    np.testing.assert_allclose(normalise(np.array([4.0, -9.0, 0.0]), 0.5, False), [2, -3, 0])
    np.testing.assert_allclose(normalise(np.array([4.0, -9.0, 0.0]), 0.5, True), np.array([2, -3, 0]) / math.sqrt(13))


def test_rootsift_has_length_one_and_keeps_zero() -> None:
    values = rootsift(np.array([[1.0, 3.0], [0.0, 0.0]], np.float32))
    np.testing.assert_allclose(values, [[0.5, math.sqrt(0.75)], [0, 0]], rtol=1e-6)


def test_a_sample_of_the_mixture_itself_has_nearly_no_gradient() -> None:
    generator = np.random.default_rng(3)
    sample = np.concatenate([generator.normal(-2, 0.5, (4000, 6)), generator.normal(2, 1.0, (4000, 6))]).astype(np.float32)
    fitted = fit_mixture(sample, "hog", FisherSpec(components=2, sample=8000, pca=0.5, tolerance=1e-6))
    assert fitted.means.shape == (2, 3)
    assert np.abs(fast(sample, fitted)).max() < 0.01  # at the maximum the gradient is zero
    assert np.abs(fast(sample + 0.5, fitted)).max() > 0.3


def test_too_small_a_sample_is_an_error() -> None:
    with pytest.raises(TrainingError, match="gave 30 trajectories for 16 Gaussians of hof"):
        fit_mixture(np.zeros((30, 108), np.float32), "hof", FisherSpec(components=16, sample=100))


@pytest.mark.parametrize("init", ["k-means++", "random_from_data", "kmeans"])
def test_mixtures_are_those_of_scikit_learn(init: str) -> None:
    from sklearn.mixture import GaussianMixture

    generator = np.random.default_rng(5)
    rows = (generator.normal(size=(8, 6)) * 4)[generator.integers(0, 8, 9000)] + generator.normal(size=(9000, 6)) * 0.7
    spec = FisherSpec(components=8, sample=9000, init=init, iterations=40, tolerance=1e-4, seed=3)  # type: ignore[arg-type]
    floor = 1e-4 * float(rows.var(0).mean())
    theirs = GaussianMixture(8, covariance_type="diag", tol=1e-4, reg_covar=floor, max_iter=40, init_params=init, random_state=3).fit(rows)
    ours = fit_gaussians(rows.astype(np.float32), spec, floor)
    likelihood = log_likelihood(rows[:300], ours.weights, ours.means, np.sqrt(ours.variances))
    assert likelihood == pytest.approx(theirs.score(rows[:300]), abs=0.02 if init == "random_from_data" else 2e-3)
    if init == "k-means++":  # the same start
        np.testing.assert_allclose(ours.means, theirs.means_, atol=5e-3)
        np.testing.assert_allclose(ours.variances, theirs.covariances_, rtol=1e-2)
        np.testing.assert_allclose(ours.weights, theirs.weights_, rtol=1e-2)


def test_a_gaussian_without_rows_stays_a_number() -> None:
    rows = np.repeat(np.array([[0.0, 0.0], [1.0, 1.0]], np.float32), 20, axis=0)
    found = fit_gaussians(rows, FisherSpec(components=5, sample=40), 1e-6)
    assert all(np.isfinite(part).all() for part in (found.weights, found.means, found.variances))
    assert found.weights.sum() == pytest.approx(1)
