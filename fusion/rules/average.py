"""Sum of probabilities, which is their mean (PAPERS A "late sum"; C after softmax)."""

import numpy as np

from fusion.rules import RULES, Rule


def mean(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of p_t, divided by T."""
    return values.sum(axis=0) / len(values)


RULE = Rule("mean over inputs of softmax(s_t)", ("softmax",), mean)
RULES.register("average")(RULE)
RULES.register("sum")(RULE)
