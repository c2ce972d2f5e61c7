"""The update rules are those of ``torch.optim``, several heads at once and after a pause."""

import subprocess
import sys

import pytest
import torch
from torch import Tensor, nn

from temporal.optimizers import Optimizer, make_optimizer, step_all
from temporal.spec import TrainSpec

RULES = ("rmsprop", "adam", "adamw", "sgd")
SHAPES = ((5, 3), (7,), (2, 2))


class _Head(nn.Module):
    """Three weights, the last of which never has a gradient."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.weights = nn.ParameterList(torch.randn(shape, generator=generator) for shape in SHAPES)

    def slope(self, seed: int) -> None:
        """Gradients as a batch would leave them."""
        generator = torch.Generator().manual_seed(seed)
        for weight in list(self.weights)[:2]:
            weight.grad = torch.randn(weight.shape, generator=generator)


def of_torch(head: nn.Module, spec: TrainSpec) -> torch.optim.Optimizer:
    settings = {"lr": spec.learning_rate, "weight_decay": spec.weight_decay}
    if spec.optimizer == "sgd":
        return torch.optim.SGD(head.parameters(), momentum=0.9, **settings)
    return {"rmsprop": torch.optim.RMSprop, "adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[spec.optimizer](
        head.parameters(), foreach=False, **settings
    )


def assert_same(found: nn.Module, expected: nn.Module) -> None:
    for own, other in zip(found.parameters(), expected.parameters(), strict=True):
        torch.testing.assert_close(own, other, rtol=1e-5, atol=1e-6)


def settings(rule: str) -> TrainSpec:
    return TrainSpec(optimizer=rule, learning_rate=0.05, weight_decay=0.01)


@pytest.mark.parametrize("rule", RULES)
def test_steps_at_changing_rates_are_torchs(rule: str) -> None:
    found, expected = _Head(0), _Head(0)
    own, theirs = make_optimizer(found, settings(rule)), of_torch(expected, settings(rule))
    for number, rate in enumerate((0.05, 0.02, 0.02, 0.1)):
        found.slope(number)
        expected.slope(number)
        own.rate = theirs.param_groups[0]["lr"] = rate
        own.step()
        theirs.step()
    assert_same(found, expected)
    assert 2 not in own.states, "a weight without a gradient stays as it is"
    own.forget_gradients()
    assert all(weight.grad is None for weight in found.parameters())


@pytest.mark.parametrize("rule", RULES)
def test_heads_that_step_together_keep_their_own_counts_and_rates(rule: str) -> None:
    """The first head is two steps ahead of the second, and the third has another rate."""
    heads, alone = [_Head(seed) for seed in (1, 2, 3)], [_Head(seed) for seed in (1, 2, 3)]
    together, apart = ([make_optimizer(head, settings(rule)) for head in each] for each in (heads, alone))
    for optimizers, own in ((together, heads), (apart, alone)):
        optimizers[2].rate = 0.01
        for number in range(2):
            own[0].slope(number)
            optimizers[0].step()
    for number in range(3):
        for head in (*heads, *alone):
            head.slope(10 + number)
        step_all(together)
        for each in apart:
            each.step()
    for one, other in zip(heads, alone, strict=True):
        assert all(torch.equal(own, their) for own, their in zip(one.parameters(), other.parameters(), strict=True))


@pytest.mark.parametrize("rule", RULES)
def test_one_goes_on_from_what_torchs_had_saved(rule: str) -> None:
    """Trainings that were interrupted before this class was there hold states of torch's own."""
    found, expected = _Head(4), _Head(4)
    theirs = of_torch(expected, settings(rule))
    expected.slope(0)
    theirs.step()
    found.load_state_dict(expected.state_dict())
    saved = {
        number: {name: value.clone() for name, value in state.items() if isinstance(value, Tensor)}
        for number, state in theirs.state_dict()["state"].items()
    }
    own = Optimizer(list(found.parameters()), settings(rule), 0.05)
    own.load(saved)
    for head in (found, expected):
        head.slope(1)
    own.step()
    theirs.step()
    assert_same(found, expected)


TRAINED = """
import sys
import numpy as np
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.train import fit
rows = np.random.default_rng(0).standard_normal((8, 3), dtype=np.float32)
names = tuple("abcdefgh")
data = Sequences(names, rows, np.arange(8), np.ones(8, dtype=np.int64), np.arange(8) % 2, names)
for rule in ("rmsprop", "adam", "adamw", "sgd"):
    fit(data, None, RunSpec(SequenceSpec(), HeadSpec(name="mean"), TrainSpec(optimizer=rule, epochs=1, validation=0.0)), 2)
print([name for name in ("torch._dynamo", "sympy") if name in sys.modules])
"""


def test_training_leaves_torchs_compiler_out() -> None:
    run = subprocess.run([sys.executable, "-c", TRAINED], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"
