"""Conformance of every registered head: shapes, padding, neighbours, gradients; pooling against numpy."""

import numpy as np
import pytest
import torch

from store.errors import UnknownNameError
from temporal.heads import HEADS
from temporal.spec import HeadSpec
from temporal.train import seeded

NAMES = HEADS.names()


def _head(name: str, width: int = 6, classes: int = 4, output: str = "last") -> torch.nn.Module:
    with seeded(0):
        return HEADS.get(name)(width, classes, HeadSpec(name=name, hidden=6, layers=2, output=output)).double().eval()


def _batch(lengths: list[int], steps: int, width: int = 6) -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.zeros(len(lengths), steps, width, dtype=torch.float64)
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(number)
        x[number, :length] = torch.randn(length, width, generator=generator, dtype=torch.float64)
    return x, torch.tensor(lengths)


def test_the_heads_of_the_first_release_are_there():
    assert {"mean", "mean_std", "max", "lstm", "gru", "res_lstm", "res_gru"} <= set(NAMES)
    with pytest.raises(UnknownNameError, match=r"did you mean.*res_lstm"):
        HEADS.get("reslstm")


@pytest.mark.parametrize(("name", "output"), [(name, "last") for name in NAMES] + [("gru", "mean"), ("res_lstm", "max")])
def test_padding_and_neighbours_never_change_scores(name, output):
    head = _head(name, output=output)
    together = head(*_batch([5, 1, 3], steps=5))
    assert together.shape == (3, 4)
    longer = head(*_batch([5, 1, 3], steps=9))
    torch.testing.assert_close(longer, together, atol=1e-12, rtol=0)
    x, _ = _batch([5, 1, 3], steps=9)
    for number, length in enumerate([5, 1, 3]):
        alone = head(x[number : number + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(alone[0], together[number], atol=1e-12, rtol=0)
    dirty = x.clone()
    dirty[1, 1:] = 1e3
    torch.testing.assert_close(head(dirty, torch.tensor([5, 1, 3])), together, atol=1e-12, rtol=0)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name):
    head = _head(name)
    x, lengths = _batch([5, 1, 3], steps=5)
    x[0] = 1  # constant over time: no deviation
    head(x, lengths).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key


@pytest.mark.parametrize(
    ("name", "pool"),
    [
        ("mean", lambda x: x.mean(0)),
        ("max", lambda x: x.max(0)),
        ("mean_std", lambda x: np.concatenate([x.mean(0), x.std(0)])),
    ],
)
def test_pooling_heads_are_linear_on_numpys_statistics(name, pool):
    head = _head(name)
    x, lengths = _batch([5, 2, 3], steps=5)
    weight, bias = head.classifier.weight.detach().numpy(), head.classifier.bias.detach().numpy()
    expected = [weight @ pool(x[number, :length].numpy()) + bias for number, length in enumerate(lengths)]
    np.testing.assert_allclose(head(x, lengths).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "mean_std", "max"])
def test_pooling_heads_are_blind_to_order_and_recurrent_ones_are_not(name):
    x, lengths = _batch([5], steps=5)
    head, recurrent = _head(name), _head("gru")
    torch.testing.assert_close(head(x.flip(1), lengths), head(x, lengths))
    assert not torch.allclose(recurrent(x.flip(1), lengths), recurrent(x, lengths))


@pytest.mark.parametrize("output", ["last", "mean", "max"])
def test_recurrent_outputs_are_the_last_mean_or_largest_class_scores(output):
    head = _head("res_lstm", output=output)
    x, lengths = _batch([5, 2, 3], steps=5)
    memory = head.stack(x.transpose(0, 1)).detach().numpy()
    weight, bias = head.classifier.weight.detach().numpy(), head.classifier.bias.detach().numpy()
    for number, length in enumerate(lengths):
        per_step = memory[:length, number] @ weight.T + bias
        expected = {"last": per_step[-1], "mean": per_step.mean(0), "max": per_step.max(0)}[output]
        np.testing.assert_allclose(head(x, lengths)[number].detach().numpy(), expected, atol=1e-12)
