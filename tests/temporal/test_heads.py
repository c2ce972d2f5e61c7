"""Conformance of every registered head: shapes, padding, neighbours, gradients; pooling against numpy."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from store.errors import TrainingError, UnknownNameError
from temporal.before import check_layers
from temporal.heads import HEADS, build_head
from temporal.numerics import seeded
from temporal.params import declared_heads, head_info
from temporal.spec import HeadSpec

NAMES = HEADS.names()
VECTORS = [name for name in NAMES if head_info(name).reads == "vectors"]
MAPS = {"recurrent_residual": (HeadSpec(name="recurrent_residual", params={"backbone": "resnet18", "skips": 2}), (256, 2, 2))}


def _spec(name: str, output: str = "last") -> HeadSpec:
    return replace(MAPS[name][0], output=output) if name in MAPS else HeadSpec(name=name, hidden=8, layers=2, output=output)


def _shape(name: str) -> tuple[int, ...]:
    """Of a step's features."""
    return MAPS[name][1] if name in MAPS else (8,)


def _head(name: str, classes: int = 4, output: str = "last") -> torch.nn.Module:
    with seeded(0):
        return build_head(_spec(name, output), _shape(name)[0], classes).double().eval()


def _batch(lengths: list[int], steps: int, name: str = "gru") -> tuple[torch.Tensor, torch.Tensor]:
    x = torch.zeros(len(lengths), steps, *_shape(name), dtype=torch.float64)
    for number, length in enumerate(lengths):
        generator = torch.Generator().manual_seed(number)
        x[number, :length] = torch.randn(length, *_shape(name), generator=generator, dtype=torch.float64)
    return x, torch.tensor(lengths)


def test_the_heads_of_the_first_release_are_there():
    assert {"mean", "mean_std", "max", "lstm", "gru", "sru", "res_lstm", "res_gru", "res_sru"} <= set(NAMES)
    with pytest.raises(UnknownNameError, match=r"did you mean.*res_lstm"):
        HEADS.get("reslstm")


def test_what_files_declare_is_what_they_register():
    assert list(declared_heads()) == NAMES
    for name in NAMES:
        assert head_info(name).text.endswith("."), name


@pytest.mark.parametrize("output", ["last", "mean", "max"])
@pytest.mark.parametrize("name", NAMES)
def test_padding_and_neighbours_never_change_scores(name, output):
    head = _head(name, output=output)
    lengths = [5, 1, 3]
    together = head(*_batch(lengths, 5, name))
    assert together.shape == (3, 4)
    longer, _ = _batch(lengths, 9, name)
    torch.testing.assert_close(head(longer, torch.tensor(lengths)), together, atol=1e-12, rtol=1e-12)
    for number, length in enumerate(lengths):
        alone = head(longer[number : number + 1, :length], torch.tensor([length]))
        torch.testing.assert_close(alone[0], together[number], atol=1e-12, rtol=1e-12)
    dirty = longer.clone()
    dirty[1, 1:] = 1e3
    torch.testing.assert_close(head(dirty, torch.tensor(lengths)), together, atol=1e-12, rtol=1e-12)


@pytest.mark.parametrize("name", NAMES)
def test_padding_and_neighbours_never_change_a_gradient(name):
    """In training mode without dropout: batch statistics, say, would show here."""
    head = _head(name).train()
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
        elif isinstance(module, torch.nn.MultiheadAttention):
            module.dropout = 0.0
    sums: list[list[torch.Tensor]] = []
    x, lengths = _batch([4, 1, 3], 6, name)
    for parts in ([slice(0, 3)], [slice(0, 1), slice(1, 2), slice(2, 3)]):
        head.zero_grad()
        for part in parts:
            longest = int(lengths[part].max())
            head(x[part, :longest], lengths[part]).square().sum().backward()
        sums.append([parameter.grad.clone() for parameter in head.parameters()])
    torch.testing.assert_close(sums[0], sums[1], atol=1e-9, rtol=1e-9)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_gets_a_finite_gradient(name):
    head = _head(name)
    x, lengths = _batch([5, 1, 3], 5, name)
    x[0] = 1  # constant over time: no deviation
    head(x, lengths).square().sum().backward()
    for key, parameter in head.named_parameters():
        assert parameter.grad is not None, key
        assert torch.isfinite(parameter.grad).all(), key
        assert parameter.grad.any(), key


@pytest.mark.parametrize("name", NAMES)
def test_every_head_trains_in_bfloat16(name):
    head = _head(name).float().train()
    x, lengths = _batch([5, 1, 3], 5, name)
    with torch.autocast("cpu", torch.bfloat16):
        scores = head(x.float(), lengths)
    scores.float().square().sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters())


@pytest.mark.parametrize("kind", ["linear", "nonlinear"])
def test_skips_with_weights_train_in_bfloat16(kind):
    spec = HeadSpec(name="recurrent_residual", params={"backbone": "resnet18", "skip": kind, "skips": 2})
    head = build_head(spec, 256, 4)
    x, lengths = _batch([3, 2], 3, "recurrent_residual")
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.isfinite(head(x.float(), lengths)).all()


@pytest.mark.parametrize("name", NAMES)
def test_a_state_dict_carries_a_head_and_a_seed_decides_it(name):
    head, again = _head(name), _head(name)
    with seeded(1):
        other = build_head(_spec(name), _shape(name)[0], 4).double().eval()
    x, lengths = _batch([3, 2], 3, name)
    assert torch.equal(head(x, lengths), again(x, lengths))
    assert not torch.equal(head(x, lengths), other(x, lengths))
    assert all(isinstance(value, torch.Tensor) for value in head.state_dict().values())
    other.load_state_dict(head.state_dict())
    assert torch.equal(head(x, lengths), other(x, lengths))


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
    x, lengths = _batch([5, 2, 3], 5)
    weight, bias = head.classifier.weight.detach().numpy(), head.classifier.bias.detach().numpy()
    expected = [weight @ pool(x[number, :length].numpy()) + bias for number, length in enumerate(lengths)]
    np.testing.assert_allclose(head(x, lengths).detach().numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("name", ["mean", "mean_std", "max"])
def test_pooling_heads_are_blind_to_order_and_recurrent_ones_are_not(name):
    x, lengths = _batch([5], 5)
    head, recurrent = _head(name), _head("gru")
    torch.testing.assert_close(head(x.flip(1), lengths), head(x, lengths))
    assert not torch.allclose(recurrent(x.flip(1), lengths), recurrent(x, lengths))


@pytest.mark.parametrize("output", ["last", "mean", "max"])
def test_recurrent_outputs_are_the_last_mean_or_largest_class_scores(output):
    head = _head("res_lstm", output=output)
    x, lengths = _batch([5, 2, 3], 5)
    memory = head.stack(x.transpose(0, 1)).detach().numpy()
    weight, bias = head.classifier.weight.detach().numpy(), head.classifier.bias.detach().numpy()
    for number, length in enumerate(lengths):
        per_step = memory[:length, number] @ weight.T + bias
        expected = {"last": per_step[-1], "mean": per_step.mean(0), "max": per_step.max(0)}[output]
        np.testing.assert_allclose(head(x, lengths)[number].detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("name", "plain"), [("res_lstm", "lstm"), ("res_gru", "gru"), ("res_sru", "sru")])
def test_residual_stacks_have_a_residual_addition(name, plain):
    """Class scores come from the memory before the last layer's addition, so one layer would be the plain head under another name."""
    assert HeadSpec(name=name).layers == 2
    assert HeadSpec(name=plain).layers == 1
    with seeded(0):
        head = build_head(HeadSpec(name=name, hidden=8), 8, 3).double().eval()
    x, lengths = torch.rand(1, 5, 8, dtype=torch.float64), torch.tensor([5])
    with_addition = head(x, lengths)
    head.stack.residual = False
    assert not torch.allclose(head(x, lengths), with_addition)
    with pytest.raises(TrainingError, match=rf"head\.layers is 1 but head {name} needs at least 2: .* take the head {plain} for one layer"):
        check_layers(HeadSpec(name=name, layers=1))
