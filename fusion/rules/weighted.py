"""Weighted sum: w1 * flow + w2 * RGB (PAPERS A), 0.7 / 0.2 / 0.1 over three levels (PAPERS C); on raw scores, TSN's 1.5 flow + RGB."""

import numpy as np

from fusion.rules import RULES, Rule


def weighted(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of w_t p_t, or of w_t s_t on raw scores."""
    return np.einsum("tvc,t->vc", values, weights)


RULES.register("weighted")(
    Rule("sum over inputs of w_t softmax(s_t), or of w_t s_t on raw scores", ("softmax", "raw"), weighted, "required")
)
