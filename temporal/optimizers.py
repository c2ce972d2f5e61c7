"""How gradients change weights: the update rules of torch, by their functions rather than by ``torch.optim.Optimizer``.

The class imports torch's compiler as soon as one is made, which nothing here uses and which takes as long as importing torch itself. And
the functions can update the weights of several heads in one call, each by its own count of steps.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.optim.adam import adam
from torch.optim.rmsprop import rmsprop
from torch.optim.sgd import sgd

from temporal.spec import TrainSpec

STATES = {
    "adam": ("step", "exp_avg", "exp_avg_sq"),
    "adamw": ("step", "exp_avg", "exp_avg_sq"),
    "rmsprop": ("step", "square_avg"),
    "sgd": ("momentum_buffer",),
}


@dataclass
class Optimizer:
    """The update rule of ``spec`` on ``weights``; ``rate`` is that of the next step.

    ``states``: for the positions of weights that had a gradient, what the rule remembers, named as in torch's optimizers.
    """

    weights: Sequence[nn.Parameter]
    spec: TrainSpec
    rate: float
    states: dict[int, dict[str, Tensor]] = field(default_factory=dict)

    def forget_gradients(self) -> None:
        """No weight has a gradient any more."""
        for weight in self.weights:
            weight.grad = None

    def step(self) -> None:
        """Change the weights that have a gradient."""
        step_all([self])

    def load(self, states: dict[int, dict[str, Tensor]]) -> None:
        """Go on from ``states`` of such an optimizer, on whatever device they are."""
        self.states = {}
        for number, state in states.items():
            self.states[number] = self._fresh(self.weights[number])
            for name, value in state.items():
                self.states[number][name].copy_(value)

    def rows(self) -> list[tuple[Tensor, ...]]:
        """Weight, gradient and states of every weight with a gradient."""
        found: list[tuple[Tensor, ...]] = []
        for number, weight in enumerate(self.weights):
            if weight.grad is not None:
                if number not in self.states:
                    self.states[number] = self._fresh(weight)
                found.append((weight, weight.grad, *self.states[number].values()))
        return found

    def _fresh(self, weight: Tensor) -> dict[str, Tensor]:
        """A count of steps is where the rule reads it: on the device for one kernel for all, on the host otherwise."""
        place = "cpu" if self.spec.optimizer == "rmsprop" else weight.device
        return {
            name: torch.zeros((), device=place) if name == "step" else torch.zeros_like(weight, requires_grad=False)
            for name in STATES[self.spec.optimizer]
        }


def make_optimizer(head: nn.Module, spec: TrainSpec) -> Optimizer:
    """The rule of ``spec`` on all weights of ``head``."""
    return Optimizer(list(head.parameters()), spec, spec.learning_rate)


def step_all(optimizers: Iterable[Optimizer]) -> None:
    """A step of each; those of one rule, rate and decay in one call."""
    rows: dict[tuple[str, float, float], list[tuple[Tensor, ...]]] = {}
    for each in optimizers:
        rows.setdefault((each.spec.optimizer, each.rate, each.spec.weight_decay), []).extend(each.rows())
    with torch.no_grad():
        for (rule, rate, decay), found in rows.items():
            if found:
                _update(rule, rate, decay, [list(column) for column in zip(*found, strict=True)])


def _update(rule: str, rate: float, decay: float, columns: list[list[Tensor]]) -> None:
    """``columns``: weights, gradients, then each of ``STATES``. Settings that ``TrainSpec`` does not have are the defaults of torch."""
    if rule == "rmsprop":
        _rmsprop(columns, rate, decay)
    elif rule == "sgd":
        _sgd(columns, rate, decay)
    else:
        _adam(columns, rate, decay, decoupled=rule == "adamw")


def _rmsprop(columns: list[list[Tensor]], rate: float, decay: float) -> None:
    weights, gradients, steps, squares = columns
    none: list[Tensor] = []
    rmsprop(
        weights,
        gradients,
        squares,
        none,
        none,
        steps,
        foreach=True,
        lr=rate,
        alpha=0.99,
        eps=1e-8,
        weight_decay=decay,
        momentum=0.0,
        centered=False,
    )


def _sgd(columns: list[list[Tensor]], rate: float, decay: float) -> None:
    weights, gradients, momenta = columns
    sgd(
        weights,
        gradients,
        [*momenta],  # of another type to the checker, for torch's may lack some
        fused=True,
        weight_decay=decay,
        momentum=0.9,
        lr=rate,
        dampening=0.0,
        nesterov=False,
        maximize=False,
    )


def _adam(columns: list[list[Tensor]], rate: float, decay: float, decoupled: bool) -> None:
    weights, gradients, steps, means, squares = columns
    adam(
        weights,
        gradients,
        means,
        squares,
        [],
        steps,
        fused=True,
        decoupled_weight_decay=decoupled,
        amsgrad=False,
        beta1=0.9,
        beta2=0.999,
        lr=rate,
        weight_decay=decay,
        eps=1e-8,
        maximize=False,
    )
