"""Sum of raw scores, no softmax (PAPERS D: classifier outputs of the two streams averaged before the softmax)."""

import numpy as np

from fusion.rules import RULES, Rule


def total(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of s_t."""
    return values.sum(axis=0)


RULES.register("raw_sum")(Rule("sum over inputs of s_t", ("raw",), total))
