"""Z-norm and PCA against numpy."""

import numpy as np
import pytest

from store.errors import TrainingError
from temporal.projection import Projection, fit_projection, moments
from temporal.spec import SequenceSpec


def _rows(count: int, width: int) -> np.ndarray:
    generator = np.random.default_rng(0)
    return (generator.normal(size=(count, width)) * np.linspace(3, 0.5, width) + 2).astype(np.float32)


@pytest.mark.parametrize("shape", [(200, 12), (9, 12)])
def test_pca_is_the_singular_value_decomposition_of_the_centred_rows(shape):
    rows = _rows(*shape)
    projected = fit_projection(rows, SequenceSpec(projection="pca", width=5)).apply(rows)
    centred = rows.astype(np.float64) - rows.mean(axis=0, dtype=np.float64)
    left, values, _ = np.linalg.svd(centred, full_matrices=False)
    expected = left[:, :5] * values[:5]
    np.testing.assert_allclose(np.abs(projected), np.abs(expected), atol=2e-3)  # a component's sign is free


def test_znorm_gives_mean_0_and_deviation_1_and_only_centres_constants():
    rows = _rows(50, 4)
    rows[:, 2] = 7
    projected = fit_projection(rows, SequenceSpec(znorm=True)).apply(rows)
    np.testing.assert_allclose(projected.mean(axis=0), 0, atol=1e-5)
    np.testing.assert_allclose(projected.std(axis=0), [1, 1, 0, 1], atol=1e-5)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_moments_are_numpys_over_many_chunks_far_from_zero(dtype):
    rows = (_rows(2600, 5) * np.float32(0.1) + np.array([0, 1, 50, -200, 7], dtype=np.float32)).astype(dtype)
    rows[:, 4] = 7
    mean, deviation = moments(rows)
    np.testing.assert_allclose(mean, rows.mean(axis=0, dtype=np.float64), rtol=1e-6)
    np.testing.assert_allclose(deviation, rows.std(axis=0, dtype=np.float64), rtol=1e-6)
    assert deviation[4] == 0


@pytest.mark.parametrize("znorm", [False, True])
def test_float16_rows_are_projected_as_their_float32_values(znorm):
    rows = _rows(300, 12).astype(np.float16)
    spec = SequenceSpec(projection="pca", width=5, znorm=znorm)
    half, single = fit_projection(rows, spec), fit_projection(rows.astype(np.float32), spec)
    np.testing.assert_array_equal(half.apply(rows), single.apply(rows.astype(np.float32)))


def test_too_wide_a_pca_says_the_largest():
    with pytest.raises(TrainingError, match=r"width 16 .* 9 clips of width 12, so sequence\.width can be at most 9"):
        fit_projection(_rows(9, 12), SequenceSpec(projection="pca", width=16))


def test_no_projection_gives_the_rows_themselves():
    rows = _rows(9, 12)
    assert fit_projection(rows, SequenceSpec()).apply(rows) is rows


def test_a_projection_survives_its_file():
    rows = _rows(40, 6)
    projection = fit_projection(rows, SequenceSpec(projection="pca", width=3, znorm=True))
    again = Projection.from_bytes(projection.to_bytes())
    np.testing.assert_array_equal(again.apply(rows), projection.apply(rows))
    empty = Projection.from_bytes(Projection().to_bytes())
    assert empty.apply(rows) is rows
