"""Rules that combine aligned score tables, one file a rule.

A rule is a formula over T inputs. ``fuse`` brings every input to the rule's *footing* first, so a rule never has to ask what it was given:

=============  ======================================================================  ===========================================
footing        each input becomes                                                      the result is
=============  ======================================================================  ===========================================
softmax        probabilities, softmax over classes                                     a mixture of probabilities, kept as its log
log_softmax    log-probabilities, log softmax over classes                             log-probabilities, normalised again
raw            the numbers as they are                                                 of the inputs' kind
l2             each video's scores divided by their Euclidean norm                     decision values
rank           each video's classes by place, the best C - 1, the worst 0, ties shared  decision values
=============  ======================================================================  ===========================================
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np

from store.registry import Registry

Footing = Literal["softmax", "log_softmax", "raw", "l2", "rank"]


@dataclass(frozen=True)
class Rule:
    """``combine`` takes values [T, V, C] on the footing and weights [T], and returns [V, C]; higher is better.

    ``footings`` are the ones it may run on, its default first. ``weights``: "none" are taken, they are "optional" (1 each), or "required".
    """

    formula: str
    footings: tuple[Footing, ...]
    combine: Callable[[np.ndarray, np.ndarray], np.ndarray]
    weights: Literal["none", "optional", "required"] = "none"


RULES: Registry[Rule] = Registry("fusion rule", "fusion.rules")
