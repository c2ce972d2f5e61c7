"""Mean rank (Borda count): uses only the order of the classes, so any kinds of score may meet."""

import numpy as np

from fusion.rules import RULES, Rule


def rank(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Mean over inputs of the number of classes that a class beats (half for a tie), weighted."""
    return np.einsum("tvc,t->vc", values, weights / weights.sum())


RULES.register("rank")(Rule("mean over inputs of w_t times the number of classes beaten, half for a tie", ("rank",), rank, "optional"))
