"""The temporal transformer and the temporal convolution against plain numpy."""

import math

import numpy as np
import pytest
import torch

from store.errors import SpecError
from temporal.heads import build_head
from temporal.heads.transformer import sinusoids
from temporal.numerics import seeded
from temporal.spec import HeadSpec


def _head(name: str, output: str = "mean", layers: int = 2, **params) -> torch.nn.Module:
    with seeded(0):
        head = build_head(HeadSpec(name=name, hidden=8, layers=layers, output=output, params=params), 6, 3).double().eval()
        for parameter in head.parameters():
            parameter.data.normal_(std=0.5)
    return head


def _sequence(steps: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=(steps, 6))


def _scores(head: torch.nn.Module, x: np.ndarray) -> np.ndarray:
    return head(torch.from_numpy(x)[None], torch.tensor([len(x)]))[0].detach().numpy()


def _linear(x: np.ndarray, weight: torch.Tensor, bias: torch.Tensor) -> np.ndarray:
    return x @ weight.detach().numpy().T + bias.detach().numpy()


def _normalise(x: np.ndarray, norm: torch.nn.LayerNorm) -> np.ndarray:
    centred = x - x.mean(axis=-1, keepdims=True)
    return centred / np.sqrt(x.var(axis=-1, keepdims=True) + norm.eps) * norm.weight.detach().numpy() + norm.bias.detach().numpy()


def _attention(x: np.ndarray, attention: torch.nn.MultiheadAttention) -> np.ndarray:
    queries, keys, values = np.split(_linear(x, attention.in_proj_weight, attention.in_proj_bias), 3, axis=1)
    size = x.shape[1] // attention.num_heads
    parts = []
    for start in range(0, x.shape[1], size):
        q, k, v = (matrix[:, start : start + size] for matrix in (queries, keys, values))
        weights = np.exp(q @ k.T / math.sqrt(size))
        parts.append(weights / weights.sum(axis=1, keepdims=True) @ v)
    return _linear(np.concatenate(parts, axis=1), attention.out_proj.weight, attention.out_proj.bias)


def _gelu(x: np.ndarray) -> np.ndarray:
    return x * 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


@pytest.mark.parametrize("pooling", ["cls", "mean"])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal"])
def test_transformer_is_its_equations(pooling, positions):
    head = _head("transformer", attention_heads=2, pooling=pooling, positions=positions)
    x = _linear(_sequence(5), head.widen.weight, head.widen.bias)
    x = x + (head.positions[:5].detach().numpy() if positions == "learned" else sinusoids(5, 8).numpy())
    if pooling == "cls":
        x = np.concatenate([head.cls.detach().numpy()[None], x])
    for layer in head.layers:
        x = x + _attention(_normalise(x, layer.norm1), layer.self_attn)
        inner = _gelu(_linear(_normalise(x, layer.norm2), layer.linear1.weight, layer.linear1.bias))
        x = x + _linear(inner, layer.linear2.weight, layer.linear2.bias)
    x = _normalise(x, head.norm)
    expected = _linear(x[0] if pooling == "cls" else x.mean(axis=0), head.classifier.weight, head.classifier.bias)
    np.testing.assert_allclose(_scores(head, _sequence(5)), expected, atol=1e-9)


def test_positions_are_sines_and_cosines():
    for t in range(7):
        for i in range(3):
            angle = t / 10000 ** (2 * i / 6)
            assert sinusoids(7, 6)[t, 2 * i] == pytest.approx(math.sin(angle), abs=1e-12)
            assert sinusoids(7, 6)[t, 2 * i + 1] == pytest.approx(math.cos(angle), abs=1e-12)
    assert sinusoids(7, 5).shape == (7, 5)


def test_the_order_of_steps_matters_to_both():
    for name in ("transformer", "temporal_conv"):
        head = _head(name)
        assert not np.allclose(_scores(head, _sequence(5)), _scores(head, _sequence(5)[::-1].copy()))


@pytest.mark.parametrize("output", ["last", "mean", "max"])
@pytest.mark.parametrize(("kernel", "dilation"), [(3, 2), (1, 1), (5, 3)])
def test_temporal_convolution_is_its_equation(kernel, dilation, output):
    head = _head("temporal_conv", output, kernel=kernel, dilation=dilation)
    x = _linear(_sequence(7), head.widen.weight, head.widen.bias)
    for number, (norm, layer) in enumerate(zip(head.norms, head.layers, strict=True)):
        seen, weight, gap = _normalise(x, norm), layer.weight.detach().numpy(), dilation**number
        total = np.tile(layer.bias.detach().numpy(), (7, 1))
        for t in range(7):
            for place in range(kernel):
                at = t + (place - kernel // 2) * gap
                if 0 <= at < 7:
                    total[t] += weight[:, :, place] @ seen[at]
        x = x + np.maximum(total, 0)
    scores = _linear(x, head.classifier.weight, head.classifier.bias)
    expected = {"last": scores[-1], "mean": scores.mean(0), "max": scores.max(0)}[output]
    np.testing.assert_allclose(_scores(head, _sequence(7)), expected, atol=1e-9)


def test_settings_that_cannot_work_are_said():
    with pytest.raises(SpecError, match="hidden is 8, which 3 attention heads cannot share"):
        _head("transformer", attention_heads=3)
    with pytest.raises(SpecError, match="kernel is 4; it must be odd"):
        _head("temporal_conv", kernel=4)
    with pytest.raises(SpecError, match=r"a sequence has 5 steps, but head\.params longest is 4"):
        _scores(_head("transformer", longest=4), _sequence(5))
