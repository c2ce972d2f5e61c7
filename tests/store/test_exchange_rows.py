"""From arrays as they were saved to rows: axes, types, refusals."""

import numpy as np
import pytest

from store.errors import FeatureError
from store.exchange.rows import to_rows
from store.exchange.spec import ImportSpec

RNG = np.random.default_rng(0)


def rows(array: np.ndarray, **settings: object) -> np.ndarray:
    return to_rows("x", array, ImportSpec(**settings))[0]  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", ["float16", "float32", ">f4", ">f2"])
def test_float16_and_float32_keep_their_values_and_width(dtype: str) -> None:
    array = RNG.standard_normal((3, 4)).astype(dtype)
    found, rounded = to_rows("x", array, ImportSpec())
    assert found.dtype == np.dtype(dtype).newbyteorder("=")
    assert np.array_equal(found, array)
    assert not rounded


def test_float64_becomes_float32_and_says_whether_that_rounds() -> None:
    assert to_rows("x", np.array([[0.5, 2.0]]), ImportSpec())[1] is False
    found, rounded = to_rows("x", np.array([[0.1, 2.0]]), ImportSpec())
    assert found.dtype == np.float32
    assert rounded
    assert rows(np.array([[0.1]]), dtype="float16").dtype == np.float16
    assert rows(np.array([[0.1]], np.float16), dtype="float32").dtype == np.float32


def test_overflow_names_the_row_and_the_value() -> None:
    with pytest.raises(FeatureError, match=r"x, row 1: 1e\+300 is too large for float32; 1 such values"):
        rows(np.array([[1.0], [1e300]]))
    with pytest.raises(FeatureError, match=r"x, row 0: 70000 is too large for float16; 2 such values"):
        rows(np.array([[70000.0, 1e5]], np.float32), dtype="float16")


def test_nan_and_inf_stay_for_the_store_to_refuse() -> None:
    assert np.isnan(rows(np.array([[np.nan]]))).all()
    assert np.isinf(rows(np.array([[np.inf]]))).all()


def test_shapes() -> None:
    assert rows(np.ones(5, "f4")).shape == (1, 5)
    assert rows(np.ones(5, "f4"), flat="rows").shape == (5,)
    assert rows(np.ones((3, 10, 5), "f4")).shape == (3, 10, 5)
    assert rows(np.ones((3, 2, 7, 7), "f4")).shape == (3, 2, 7, 7)
    assert rows(np.ones((3, 2, 1, 1), "f4"), squeeze=True).shape == (3, 2)
    assert rows(np.ones((3, 1), "f4"), squeeze=True).shape == (3, 1)
    assert rows(np.ones((1, 4), "f4"), squeeze=True).shape == (1, 4)


def test_rows_axis_moves_and_does_not_reshape() -> None:
    array = RNG.standard_normal((10, 3, 5)).astype("f4")
    found = rows(array, rows_axis=1)
    assert found.shape == (3, 10, 5)
    assert all(np.array_equal(found[n, crop], array[crop, n]) for n in range(3) for crop in range(10))
    assert np.array_equal(rows(array[0], rows_axis=1), array[0].T)
    with pytest.raises(FeatureError, match=r"shape \[3, 5\], which has no axis 2"):
        rows(array[0], rows_axis=2)


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.ones((2, 2), int), "whole numbers are labels or positions, not features"),
        (np.ones((2, 2), bool), "holds bool"),
        (np.ones((2, 2), complex), "holds complex128; features are"),
        (np.array([["a"]]), "holds <U1"),
        (np.zeros((2, 2), np.longdouble), "holds float128|holds longdouble|holds float96"),
        (np.float32(3) * np.ones(()), "is a single number"),
        (np.ones((0, 4)), r"is empty: shape \[0, 4\]"),
        (np.ones((4, 0)), r"is empty: shape \[4, 0\]"),
    ],
)
def test_what_is_no_feature_is_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(FeatureError, match=words):
        rows(array)
