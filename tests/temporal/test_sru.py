"""The SRU against plain numpy, the published reference and its slow twin, forward and gradient, in float64."""

from pathlib import Path

import numpy as np
import pytest
import torch

from temporal.recurrence import LayerOptions, RecurrentStack, SRULayer, fast_sru, sru, sru_equations


def _sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


def numpy_sru(x: np.ndarray, weight: np.ndarray, bias: np.ndarray, peephole: np.ndarray | None, squash: bool, scale: float) -> np.ndarray:
    """The SRU, sequence by sequence. x [T, B, D] -> h [T, B, H]; ``weight`` as in ``sru_equations``."""
    steps, batch, _ = x.shape
    size = len(bias) // 2
    v = np.zeros(2 * size) if peephole is None else peephole
    out = np.zeros((steps, batch, size))
    for b in range(batch):
        c = np.zeros(size)
        for t in range(steps):
            u = weight @ x[t, b]
            f = _sigmoid(u[size : 2 * size] + v[:size] * c + bias[:size])
            r = _sigmoid(u[2 * size : 3 * size] + v[size:] * c + bias[size:])
            c = f * c + (1 - f) * u[:size]
            highway = u[3 * size :] if len(u) > 3 * size else scale * x[t, b]
            out[t, b] = r * (np.tanh(c) if squash else c) + (1 - r) * highway
    return out


def problem(projected: bool, peephole: bool, steps: int = 7, batch: int = 3, hidden: int = 4) -> list[torch.Tensor | None]:
    """x, weight, bias, peephole in float64."""
    width = hidden + projected
    shapes = [(steps, batch, width), ((3 + projected) * hidden, width), (2 * hidden,), (2 * hidden,)]
    generator = torch.Generator().manual_seed(3)
    tensors = [torch.randn(shape, generator=generator, dtype=torch.float64, requires_grad=True) for shape in shapes]
    return [*tensors[:3], tensors[3] if peephole else None]


VARIANTS = [(projected, peephole, squash) for projected in (False, True) for peephole in (False, True) for squash in (True, False)]


@pytest.fixture(params=["compiled", "torch"])
def form(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both forms of the element-wise part."""
    if request.param == "torch":
        monkeypatch.setattr(sru, "available", lambda *_: False)
    elif not sru.available(torch.device("cpu"), torch.float64):
        pytest.skip("no C compiler here")
    return request.param


@pytest.mark.parametrize(("projected", "peephole", "squash"), VARIANTS)
def test_it_equals_plain_numpy(form: str, projected: bool, peephole: bool, squash: bool) -> None:
    tensors = problem(projected, peephole)
    expected = numpy_sru(*(None if tensor is None else tensor.detach().numpy() for tensor in tensors), squash, 1.3)
    np.testing.assert_allclose(sru_equations(*tensors, squash, 1.3).detach().numpy(), expected, atol=1e-12)
    np.testing.assert_allclose(fast_sru(*tensors, squash, 1.3).detach().numpy(), expected, atol=1e-12)


@pytest.mark.parametrize(("projected", "peephole", "squash"), VARIANTS)
@pytest.mark.parametrize("steps", [1, 6])
def test_fast_path_has_the_gradient_of_the_equations(form: str, projected: bool, peephole: bool, squash: bool, steps: int) -> None:
    tensors = problem(projected, peephole, steps)
    weigh = torch.randn(steps, 3, 4, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    of = [tensor for tensor in tensors if tensor is not None]
    slow = torch.autograd.grad((sru_equations(*tensors, squash, 0.7) * weigh).sum(), of)
    quick = torch.autograd.grad((fast_sru(*tensors, squash, 0.7) * weigh).sum(), of)
    for expected, found in zip(slow, quick, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-12, rtol=1e-10)


@pytest.mark.parametrize(("projected", "peephole"), [(False, False), (True, True)])
def test_gradients_equal_finite_differences(form: str, projected: bool, peephole: bool) -> None:
    assert torch.autograd.gradcheck(fast_sru, tuple(problem(projected, peephole, steps=3, batch=2, hidden=2)))


def test_it_reproduces_the_published_reference(shared_data: Path, form: str) -> None:
    """Two layers, both directions, gates that see c_{t-1}, g the identity: version 2 of the authors' own, which stores U's blocks last."""
    reference = torch.load(shared_data / "sru" / "sru_regression_2.3.5.pt", weights_only=True)
    hidden, x = reference["sru_kwargs"]["hidden_size"], reference["inputs"]
    state = reference["model_state"]
    for layer in range(reference["sru_kwargs"]["num_layers"]):
        weight = state[f"rnn_lst.{layer}.weight"]  # [D, 2 directions, H, blocks]
        blocks = weight.view(len(weight), 2, hidden, -1).permute(1, 3, 2, 0).flatten(1, 2)
        peepholes = state[f"rnn_lst.{layer}.weight_c"].view(2, 2, hidden).transpose(0, 1).flatten(1)
        biases = state[f"rnn_lst.{layer}.bias"].view(2, 2, hidden).transpose(0, 1).flatten(1)
        directions = []
        for number, (w, v, b) in enumerate(zip(blocks, peepholes, biases, strict=True)):
            seen = x.flip(0) if number else x
            if len(w) == 3 * hidden:  # the highway of a direction is its half of x; one that is chosen by a matrix is the same
                half = torch.eye(2 * hidden)[number * hidden : (number + 1) * hidden]
                w = torch.cat([w, half])
            out = fast_sru(seen, w.contiguous(), b.contiguous(), v.contiguous(), squash=False)
            directions.append(out.flip(0) if number else out)
        x = torch.cat(directions, dim=2)
    torch.testing.assert_close(x, reference["outputs"][0], atol=1e-6, rtol=0)


def test_float32_stays_near_float64(form: str) -> None:
    x, weight, bias, peephole = problem(projected=False, peephole=True, steps=25, batch=8, hidden=33)
    tensors = [x, weight / 33**0.5, bias, peephole / 33**0.5]
    single = fast_sru(*(tensor.float() for tensor in tensors))
    assert single.dtype == torch.float32
    torch.testing.assert_close(single.double(), fast_sru(*tensors), atol=3e-6, rtol=0)


def test_extreme_and_missing_numbers_are_what_torch_makes_of_them(form: str) -> None:
    x = torch.tensor([1e4, -1e4, 300.0, -300.0, 1e-9, 0.0, float("nan"), 88.7], dtype=torch.float32).repeat(2, 1).unsqueeze(2)
    weight, bias = torch.ones(3, 1), torch.zeros(2)
    found, expected = fast_sru(x, weight, bias), sru_equations(x, weight, bias)
    torch.testing.assert_close(found, expected, atol=1e-6, rtol=1e-6, equal_nan=True)


def test_bfloat16_products_keep_float32_cells(form: str) -> None:
    layer = SRULayer(16, 24)
    x = torch.randn(9, 4, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        mixed = layer(x)
    assert mixed.dtype == torch.float32
    assert 0 < (mixed - layer(x)).abs().max() < 0.05
    halved = layer.bfloat16()(x.bfloat16())
    assert halved.dtype == torch.bfloat16
    torch.testing.assert_close(halved.float(), mixed, atol=0.05, rtol=0)


@pytest.mark.parametrize("layers", [1, 3])
def test_residual_stack_adds_what_goes_in(layers: int) -> None:
    stack = RecurrentStack("sru", 7, 5, layers=layers, residual=True).double()
    x = torch.randn(6, 3, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    below = x.numpy() @ stack.widen.weight.detach().numpy().T + stack.widen.bias.detach().numpy()
    for layer in stack.layers:
        memory = numpy_sru(below, layer.weight.detach().numpy(), layer.bias.detach().numpy(), None, True, 1.0)
        below = memory + below
    np.testing.assert_allclose(stack(x).detach().numpy(), memory, atol=1e-12)


def test_highway_bias_and_scale_start_as_in_the_paper() -> None:
    options = LayerOptions(highway_bias=-3.0, rescale=True, peephole=True)
    layer, wider = SRULayer(6, 6, options), SRULayer(5, 600, options)
    scale = np.sqrt(1 + 2 * np.exp(-3.0))
    assert layer.scale == pytest.approx(scale)
    assert layer.bias.tolist() == [0.0] * 6 + [-3.0] * 6
    assert wider.scale == 1.0  # the projection has it instead
    assert float(wider.weight[1800:].detach().std() / wider.weight[:1800].detach().std()) == pytest.approx(scale, rel=0.1)


@pytest.mark.parametrize("kind", ["lstm", "gru", "sru"])
def test_orthogonal_initialisation_makes_every_gates_matrix_orthogonal(kind: str) -> None:
    stack = RecurrentStack(kind, 5, 5, layers=2, options=LayerOptions(init="orthogonal"))
    matrices = [weight for name, weight in stack.named_parameters() if weight.dim() == 2]
    assert matrices
    for weight in matrices:
        for block in weight.detach().split(5):
            torch.testing.assert_close(block @ block.t(), torch.eye(5), atol=1e-5, rtol=0)
