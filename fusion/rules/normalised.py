"""Mean of L2-normalised scores, no softmax (PAPERS D: network scores with the decision values of the IDT classifier)."""

import numpy as np

from fusion.rules import RULES, Rule


def normalised(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Sum over inputs of w_t s_t / ||s_t||, the weights scaled to the sum 1."""
    return np.einsum("tvc,t->vc", values, weights / weights.sum())


RULES.register("normalised")(
    Rule("mean over inputs of w_t s_t / ||s_t||, the norm over a video's classes", ("l2",), normalised, "optional")
)
