"""The recurrences against plain numpy, torch.nn and their slow twins, forward and gradient, in float64."""

import numpy as np
import pytest
import torch
from torch import nn

from temporal.recurrence import RecurrentLayer, RecurrentStack, fast_gru, fast_lstm, gru_equations, lstm_equations, products, steps


@pytest.fixture(params=["compiled", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of the element-wise part."""
    if request.param == "torch":
        monkeypatch.setattr(steps, "available", lambda *_: False)
    elif not steps.available(torch.device("cpu"), torch.float64):
        pytest.skip("no C compiler here")
    return request.param


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_lstm(x: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, b_x: np.ndarray, b_h: np.ndarray) -> np.ndarray:
    """Hochreiter and Schmidhuber's LSTM with forget gate, sequence by sequence. x [T, B, D] -> m [T, B, H]."""
    steps, batch, _ = x.shape
    size = w_h.shape[1]
    out = np.zeros((steps, batch, size))
    for b in range(batch):
        c, m = np.zeros(size), np.zeros(size)
        for t in range(steps):
            a = w_x @ x[t, b] + b_x + w_h @ m + b_h
            i, f, g, o = a[:size], a[size : 2 * size], a[2 * size : 3 * size], a[3 * size :]
            c = _sigmoid(f) * c + _sigmoid(i) * np.tanh(g)
            m = _sigmoid(o) * np.tanh(c)
            out[t, b] = m
    return out


def numpy_gru(x: np.ndarray, w_x: np.ndarray, w_h: np.ndarray, b_x: np.ndarray, b_h: np.ndarray) -> np.ndarray:
    """Cho et al.'s GRU in the form with the reset gate after the matrix product. x [T, B, D] -> h [T, B, H]."""
    steps, batch, _ = x.shape
    size = w_h.shape[1]
    out = np.zeros((steps, batch, size))
    for b in range(batch):
        h = np.zeros(size)
        for t in range(steps):
            p, q = w_x @ x[t, b] + b_x, w_h @ h + b_h
            r, z = _sigmoid(p[:size] + q[:size]), _sigmoid(p[size : 2 * size] + q[size : 2 * size])
            n = np.tanh(p[2 * size :] + r * q[2 * size :])
            h = (1 - z) * n + z * h
            out[t, b] = h
    return out


def _problem(gates: int, steps: int = 7, batch: int = 3, width: int = 5, hidden: int = 4) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    shapes = [(steps, batch, width), (gates * hidden, width), (gates * hidden, hidden), (gates * hidden,), (gates * hidden,)]
    return [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]


CASES = [(gru_equations, fast_gru, numpy_gru, 3), (lstm_equations, fast_lstm, numpy_lstm, 4)]


@pytest.mark.parametrize(("equations", "fast", "plain", "gates"), CASES, ids=["gru", "lstm"])
def test_recurrences_equal_plain_numpy(form, equations, fast, plain, gates):
    tensors = _problem(gates)
    expected = plain(*(tensor.detach().numpy() for tensor in tensors))
    np.testing.assert_allclose(equations(*tensors).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(fast(*tensors).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("equations", "fast", "plain", "gates"), CASES, ids=["gru", "lstm"])
@pytest.mark.parametrize("length", [1, 2, 9])
def test_fast_path_has_the_gradient_of_the_equations(form, equations, fast, plain, gates, length):
    tensors = _problem(gates, steps=length)
    weigh = torch.randn(length, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    slow = torch.autograd.grad((equations(*tensors) * weigh).sum(), tensors)
    quick = torch.autograd.grad((fast(*tensors) * weigh).sum(), tensors)
    for expected, found in zip(slow, quick, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize("fast", [fast_gru, fast_lstm])
def test_gradients_equal_finite_differences(form, fast):
    assert torch.autograd.gradcheck(fast, tuple(_problem(3 if fast is fast_gru else 4, steps=3, batch=2, width=3, hidden=2)))


@pytest.mark.parametrize(("equations", "fast", "plain", "gates"), CASES, ids=["gru", "lstm"])
def test_bfloat16_products_stay_near_float32(form, equations, fast, plain, gates):
    tensors = [tensor.detach().float().requires_grad_() for tensor in _problem(gates)]
    weigh = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(5))
    exact = equations(*tensors)
    with torch.autocast("cpu", torch.bfloat16):
        mixed = fast(*tensors)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - exact).abs().max() < 0.05
    slow, quick = (torch.autograd.grad((out * weigh).sum(), tensors) for out in (exact, mixed))
    for expected, found in zip(slow, quick, strict=True):
        assert found.dtype == torch.float32
        assert (found - expected).norm() < 0.05 * expected.norm()
    halved = fast(*(tensor.bfloat16() for tensor in tensors))
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), exact, atol=0.1, rtol=0)


@pytest.mark.parametrize(("equations", "fast", "plain", "gates"), CASES, ids=["gru", "lstm"])
def test_large_products_by_onednn_give_the_same(monkeypatch, equations, fast, plain, gates):
    if products._linear() is None:
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "LARGE_WEIGHT", 1)
    monkeypatch.setattr(products, "LARGE_PRODUCT", 1)
    tensors = [tensor.detach().float().requires_grad_() for tensor in _problem(gates)]
    weigh = torch.randn(7, 3, 4, generator=torch.Generator().manual_seed(5))
    exact, found = equations(*tensors), fast(*tensors)
    torch.testing.assert_close(found, exact, atol=1e-5, rtol=0)
    for slow, quick in zip(*(torch.autograd.grad((out * weigh).sum(), tensors) for out in (exact, found)), strict=True):
        torch.testing.assert_close(quick, slow, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("fast", [fast_gru, fast_lstm])
def test_float32_stays_near_float64(form, fast):
    tensors = [tensor.detach() / 2 for tensor in _problem(3 if fast is fast_gru else 4, steps=25, batch=8, width=16, hidden=33)]
    torch.testing.assert_close(fast(*(tensor.float() for tensor in tensors)).double(), fast(*tensors), atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", ["lstm", "gru"])
def test_a_layer_equals_the_torch_module_that_holds_its_weights(kind):
    layer = RecurrentLayer(kind, 6, 5).double()
    x = torch.randn(8, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(layer(x), layer.cell(x)[0])
    ours = torch.autograd.grad(layer(x).square().sum(), tuple(layer.parameters()))
    theirs = torch.autograd.grad(layer.cell(x)[0].square().sum(), tuple(layer.parameters()))
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected)


def test_a_plain_stack_equals_stacked_nn_lstm():
    stack = RecurrentStack("lstm", 6, 5, layers=3).double()
    reference = nn.LSTM(6, 5, num_layers=3).double()
    names = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
    reference.load_state_dict(
        {f"{name}_l{n}": w for n, layer in enumerate(stack.layers) for name, w in zip(names, layer.weights(), strict=True)}
    )
    x = torch.randn(8, 4, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(stack(x), reference(x)[0])


@pytest.mark.parametrize("kind", ["lstm", "gru"])
@pytest.mark.parametrize("layers", [1, 2, 4])
def test_residual_stack_follows_the_papers_recurrence(kind, layers):
    """x^l_t = m^l_t + x^{l-1}_t, output m^L before the addition; numpy all the way."""
    stack = RecurrentStack(kind, 5, 5, layers=layers, residual=True).double()
    x = torch.randn(6, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    below = x.numpy()
    for layer in stack.layers:
        memory = (numpy_lstm if kind == "lstm" else numpy_gru)(below, *(w.detach().numpy() for w in layer.weights()))
        below = memory + below
    np.testing.assert_allclose(stack(x).detach().numpy(), memory, atol=1e-12)


def test_residual_stack_brings_another_width_to_h_by_a_learned_map():
    stack = RecurrentStack("lstm", 7, 5, layers=2, residual=True).double()
    x = torch.randn(6, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    weight, bias = stack.widen.weight.detach().numpy(), stack.widen.bias.detach().numpy()
    below = x.numpy() @ weight.T + bias
    for layer in stack.layers:
        memory = numpy_lstm(below, *(w.detach().numpy() for w in layer.weights()))
        below = memory + below
    np.testing.assert_allclose(stack(x).detach().numpy(), memory, atol=1e-12)
    assert isinstance(RecurrentStack("lstm", 5, 5, layers=2, residual=True).widen, nn.Identity)


def test_large_products_of_several_seeds_are_each_seeds_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(products, "LARGE_PRODUCT", 1)
    generator = np.random.default_rng(0)
    x, weight = (generator.standard_normal(shape).astype(np.float32) for shape in ((3, 5, 2, 7), (3, 4, 7)))
    found = products.input_products(torch.from_numpy(x), torch.from_numpy(weight))
    np.testing.assert_allclose(found.numpy(), np.einsum("stbd,skd->stbk", x, weight), rtol=1e-5, atol=1e-5)
