"""The learning rate of every step, as a pure function of the settings and the step's number."""

import math

from temporal.spec import TrainSpec


def learning_rate(spec: TrainSpec, step: int, steps_an_epoch: int) -> float:
    """The rate of optimizer step ``step`` (from 0), with ``steps_an_epoch`` of them a pass.

    In epoch e = floor(t) + 1 of ``spec.epochs``, at t = step / steps_an_epoch epochs:
    constant: eta; step: eta decay^n, n the milestones before e; cosine: eta (1 + cos(pi t / epochs)) / 2.
    Warm-up multiplies by (step + 1) / (W steps_an_epoch) while that is below 1, with W = ``spec.warmup_epochs``.
    """
    rate, passed = spec.learning_rate, step / steps_an_epoch
    if spec.schedule == "step":
        rate *= spec.decay ** sum(milestone <= step // steps_an_epoch for milestone in spec.milestones)
    elif spec.schedule == "cosine":
        rate *= (1 + math.cos(math.pi * min(1.0, passed / spec.epochs))) / 2
    warm = spec.warmup_epochs * steps_an_epoch
    return rate * min(1.0, (step + 1) / warm) if warm else rate
