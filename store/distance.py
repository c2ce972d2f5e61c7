"""How far apart two arrays of features are, in float64, gathered piece by piece so that memory stays bounded."""

import math
from dataclasses import dataclass

import numpy as np

PIECE_VALUES = 2**20  # values looked at at once; 8 MB an array in float64


@dataclass(frozen=True)
class Distance:
    """How far rows a are from rows b, over ``rows`` pairs of rows.

    ``max_abs`` and ``mean_abs``: of |a - b| over all values. ``relative``: ||a - b|| / ||b|| over all values; 0 when a equals b, infinite
    when only b is zero. ``cosine_mean`` and ``cosine_min``: of the cosine between each row of a and its row of b; 1 when both are
    zero, 0 when one is. Where a value is NaN, the distances are infinite and the row's cosine is 0.
    """

    rows: int
    max_abs: float
    mean_abs: float
    relative: float
    cosine_mean: float
    cosine_min: float


class DistanceSum:
    """Gathers a ``Distance`` over any number of pieces."""

    def __init__(self) -> None:
        self.rows = self.values = 0
        self.max_abs = self.sum_abs = self.square_difference = self.square_second = self.sum_cosine = 0.0
        self.min_cosine = 1.0

    def add(self, first: np.ndarray, second: np.ndarray) -> None:
        """Add rows [N, ...] of any floating type; both arrays have one shape."""
        row_values = first[0].size if len(first) else 1
        step = max(1, PIECE_VALUES // row_values)
        with np.errstate(invalid="ignore", over="ignore"):
            for start in range(0, len(first), step):
                rows = slice(start, start + step)
                self._add(first[rows].reshape(-1, row_values).astype(np.float64), second[rows].reshape(-1, row_values).astype(np.float64))

    def _add(self, first: np.ndarray, second: np.ndarray) -> None:
        apart = np.abs(first - second)
        square_first, square_second = (np.einsum("nd,nd->n", one, one) for one in (first, second))
        lengths = np.sqrt(square_first) * np.sqrt(square_second)
        cosine = np.where(
            lengths > 0, np.einsum("nd,nd->n", first, second) / np.where(lengths > 0, lengths, 1), square_first == square_second
        )
        cosine = np.clip(np.nan_to_num(cosine, nan=0.0), -1, 1)
        self.rows, self.values = self.rows + len(first), self.values + first.size
        self.max_abs = max(self.max_abs, _known(apart.max()))
        self.sum_abs += _known(apart.sum())
        self.square_difference += _known(np.vdot(apart, apart))
        self.square_second += _known(square_second.sum())
        self.sum_cosine += float(cosine.sum())
        self.min_cosine = min(self.min_cosine, float(cosine.min()))

    def merge(self, other: "DistanceSum") -> None:
        """Add what another sum has gathered."""
        self.rows, self.values = self.rows + other.rows, self.values + other.values
        self.max_abs, self.min_cosine = max(self.max_abs, other.max_abs), min(self.min_cosine, other.min_cosine)
        self.sum_abs += other.sum_abs
        self.square_difference += other.square_difference
        self.square_second += other.square_second
        self.sum_cosine += other.sum_cosine

    def distance(self) -> Distance:
        """The distance over everything added; all of nothing is equal."""
        if not self.rows:
            return Distance(0, 0.0, 0.0, 0.0, 1.0, 1.0)
        relative = 0.0
        if self.square_difference:
            infinite = not self.square_second or math.isinf(self.square_difference)
            relative = math.inf if infinite else math.sqrt(self.square_difference / self.square_second)
        return Distance(self.rows, self.max_abs, self.sum_abs / self.values, relative, self.sum_cosine / self.rows, self.min_cosine)


def distance(first: np.ndarray, second: np.ndarray) -> Distance:
    """The distance between two arrays [N, ...] of one shape."""
    gathered = DistanceSum()
    gathered.add(first, second)
    return gathered.distance()


def _known(value: np.floating) -> float:
    """NaN is as far as can be."""
    number = float(value)
    return math.inf if math.isnan(number) else number
