"""I3D's padding against TensorFlow's definition of SAME: out = ceil(in / stride); what is missing is half in front, an odd one behind."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import pytest
import torch

from extract.backbones.i3d import Unit, max_pool, same_padding


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


def windows(size: int, kernel: int, stride: int) -> list[tuple[int, int]]:
    """First and last + 1 place of each window over one axis; places outside are padding."""
    outputs = math.ceil(size / stride)
    missing = max((outputs - 1) * stride + kernel - size, 0)
    return [(place * stride - missing // 2, place * stride - missing // 2 + kernel) for place in range(outputs)]


def padded(x: np.ndarray, spans: Sequence[tuple[int, int]], value: float) -> np.ndarray:
    """One window of x [B, D, t, h, w], ``value`` where it lies outside."""
    window = np.full((*x.shape[:2], *(last - first for first, last in spans)), value, np.float64)
    inside = [(max(first, 0), min(last, size)) for (first, last), size in zip(spans, x.shape[2:], strict=True)]
    target = tuple(slice(begin - first, end - first) for (begin, end), (first, _) in zip(inside, spans, strict=True))
    window[(slice(None), slice(None), *target)] = x[(slice(None), slice(None), *(slice(*span) for span in inside))]
    return window


def slide(
    x: np.ndarray, kernel: Sequence[int], stride: Sequence[int], value: float, reduce: Callable[[np.ndarray], np.ndarray]
) -> np.ndarray:
    """``reduce`` ([B, D, kernel] -> [B, E]) of every window: [B, E, ceil(t / stride), ...]."""
    axes = [windows(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    results = [[[reduce(padded(x, (t, h, w), value)) for w in axes[2]] for h in axes[1]] for t in axes[0]]
    return np.moveaxis(np.array(results), (0, 1, 2), (2, 3, 4))


SIZES = [(4, 6, 8), (5, 7, 9), (1, 4, 5), (7, 6, 3)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("kernel", "stride"), [(3, 1), (3, 2), (7, 2), (2, 2), (1, 1), (1, 2)])
def test_convolution_pads_as_tensorflow(size: tuple[int, ...], kernel: int, stride: int) -> None:
    unit = Unit(2, 3, kernel, stride).eval()
    x = np.random.default_rng(kernel).standard_normal((2, 2, *size)).astype(np.float32)
    weight = unit.conv3d.weight.detach().numpy().astype(np.float64)
    expected = slide(x, (kernel,) * 3, (stride,) * 3, 0.0, lambda window: np.einsum("bdijk,edijk->be", window, weight))
    with torch.inference_mode():
        ours = unit(torch.from_numpy(x)).numpy()
    assert_close(ours, np.maximum(expected / math.sqrt(1 + 1e-3), 0))  # batch normalisation of mean 0 and variance 1


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(
    ("kernel", "stride"), [((1, 3, 3), (1, 2, 2)), ((3, 3, 3), (2, 2, 2)), ((2, 2, 2), (2, 2, 2)), ((3, 3, 3), (1, 1, 1))]
)
def test_max_pooling_pads_as_tensorflow_with_what_never_wins(
    size: tuple[int, ...], kernel: tuple[int, ...], stride: tuple[int, ...]
) -> None:
    x = np.random.default_rng(0).uniform(-2, -1, (2, 3, *size)).astype(np.float32)
    expected = slide(x, kernel, stride, -np.inf, lambda window: window.max((2, 3, 4)))
    assert np.array_equal(max_pool(torch.from_numpy(x), kernel, stride).numpy(), expected.astype(np.float32))


def test_padding_depends_on_the_size() -> None:
    assert [same_padding(size, 7, 2) for size in (224, 225, 64, 1)] == [(2, 3), (3, 3), (2, 3), (3, 3)]
    assert [same_padding(size, 3, 2) for size in (112, 115)] == [(0, 1), (1, 1)]
    assert same_padding(5, 1, 2) == (0, 0)
