"""Weighted geometric mean of probabilities: a product whose confidence does not grow with the number of inputs."""

import numpy as np

from fusion.rules import RULES, Rule


def geometric(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of w_t log p_t, the weights scaled to the sum 1."""
    return np.einsum("tvc,t->vc", values, weights / weights.sum())


RULES.register("geometric")(Rule("product over inputs of softmax(s_t)^(w_t / sum w), normalised", ("log_softmax",), geometric, "optional"))
