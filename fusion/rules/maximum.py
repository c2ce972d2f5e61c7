"""Maximum: a class is as likely as the input that believes in it most."""

import numpy as np

from fusion.rules import RULES, Rule


def maximum(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Maximum over inputs of p_t, or of s_t on raw scores."""
    return values.max(axis=0)


RULES.register("maximum")(Rule("maximum over inputs of softmax(s_t), or of s_t on raw scores", ("softmax", "raw"), maximum))
