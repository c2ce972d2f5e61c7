"""Product of probabilities, in log space so that it never underflows (PAPERS A: the best late fusion)."""

import numpy as np

from fusion.rules import RULES, Rule


def product(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of log p_t."""
    return values.sum(axis=0)


RULES.register("product")(Rule("product over inputs of softmax(s_t), normalised", ("log_softmax",), product))
