"""From an array as somebody saved it to rows [N, ...] that a store takes: axes and types, with nothing silently changed."""

import numpy as np

from store.errors import FeatureError
from store.exchange.spec import ImportSpec

_WIDE = 8  # bytes of the widest type that is read


def to_rows(name: str, array: np.ndarray, spec: ImportSpec) -> tuple[np.ndarray, bool]:
    """Rows [N, ...] of float16 or float32, and whether any value was rounded on the way.

    Raises ``FeatureError`` naming ``name`` for what is empty, not floating point, or too large for the type.
    """
    _check(name, array)
    rows = _arrange(name, array, spec)
    kind = np.dtype(spec.dtype if spec.dtype != "source" else "float32" if array.dtype.itemsize == _WIDE else f"f{array.dtype.itemsize}")
    if rows.dtype == kind:
        return rows, False
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        cast = rows.astype(kind)
        exact = bool(np.array_equal(cast.astype(rows.dtype), rows, equal_nan=True))
    if not exact:
        _check_overflow(name, rows, cast)
    return cast, not exact


def _check(name: str, array: np.ndarray) -> None:
    if array.dtype.kind in "iub":
        raise FeatureError(f"{name} holds {array.dtype}: whole numbers are labels or positions, not features (save features as float32)")
    if array.dtype.kind != "f" or array.dtype.itemsize > _WIDE:
        raise FeatureError(f"{name} holds {array.dtype}; features are float16, float32 or float64")
    if not array.ndim:
        raise FeatureError(f"{name} is a single number, no features")
    if not array.size:
        raise FeatureError(f"{name} is empty: shape {list(array.shape)}")


def _arrange(name: str, array: np.ndarray, spec: ImportSpec) -> np.ndarray:
    if array.ndim == 1:
        return array[None] if spec.flat == "row" else array
    if spec.rows_axis >= array.ndim:
        raise FeatureError(f"{name} has the shape {list(array.shape)}, which has no axis {spec.rows_axis} (--rows-axis, counted from 0)")
    rows = np.moveaxis(array, spec.rows_axis, 0)
    if spec.squeeze:
        rows = rows.reshape(len(rows), *(side for side in rows.shape[1:] if side != 1))
    return rows[:, None] if rows.ndim == 1 else rows


def _check_overflow(name: str, rows: np.ndarray, cast: np.ndarray) -> None:
    lost = np.isinf(cast) & np.isfinite(rows)
    if lost.any():
        place = tuple(np.argwhere(lost)[0])
        raise FeatureError(f"{name}, row {place[0]}: {rows[place]:g} is too large for {cast.dtype}; {int(lost.sum())} such values")
