"""Our own dropout: its share, its scale, and where its masks come from."""

import pytest
import torch

from temporal.numerics import seeded
from temporal.recurrence import Dropout


@pytest.mark.parametrize("p", [0.1, 0.5, 0.9])
def test_it_drops_a_share_and_keeps_the_mean(p: float) -> None:
    layer = Dropout(p)
    with seeded(0):
        found = layer(torch.ones(101, 997, dtype=torch.float64))
    values = found.unique()
    assert len(values) == 2
    assert values[0] == 0
    assert float(values[1]) == pytest.approx(1 / (1 - p), rel=1e-3)
    assert float((found == 0).double().mean()) == pytest.approx(p, abs=0.006)
    assert float(found.mean()) == pytest.approx(1, abs=0.03)


def test_its_gradient_goes_where_its_numbers_went() -> None:
    x = torch.ones(5, 7, requires_grad=True)
    found = Dropout(0.5)(x)
    found.sum().backward()
    assert torch.equal(x.grad, found.detach())


def test_the_seed_decides_and_evaluation_drops_nothing() -> None:
    layer, x = Dropout(0.5), torch.ones(40, 3)
    drawn = []
    for seed in (0, 0, 1):
        with seeded(seed):
            drawn.append(layer(x))
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert layer.eval()(x) is x
    assert Dropout(0.0)(x) is x
