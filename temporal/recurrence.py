"""Recurrences over time: the equations, and the fast path beside them.

Everything here is time-major: x [T, B, D] -> the memory of every step [T, B, H]. Weights have the layout of ``torch.nn.GRU`` and
``torch.nn.LSTM`` (gates r, z, n and i, f, g, o), so that those modules hold them and run on devices that have fused kernels.

Why an own fast path: back-propagation through an ordinary loop adds one weight gradient of the size of the weights per step. Here the
loop carries only what depends on the step before; the rest is one matrix product over all steps.
"""

from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # W_x [G H, D], W_h [G H, H], b_x [G H], b_h [G H]; G gates


def gru_equations(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """The slow twin of ``fast_gru``.

    r = s(W_xr x_t + b_xr + W_hr h_{t-1} + b_hr);  z likewise;  n = tanh(W_xn x_t + b_xn + r * (W_hn h_{t-1} + b_hn));
    h_t = (1 - z) * n + z * h_{t-1};  h_0 = 0.
    """
    h = x.new_zeros(x.shape[1], w_h.shape[1])
    memories = []
    for x_t in x:
        x_r, x_z, x_n = (x_t @ w_x.t() + b_x).chunk(3, dim=1)
        h_r, h_z, h_n = (h @ w_h.t() + b_h).chunk(3, dim=1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        h = (1 - z) * n + z * h
        memories.append(h)
    return torch.stack(memories)


def lstm_equations(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """The slow twin of ``fast_lstm``.

    (i, f, o) = s(W x_t + b_x + U m_{t-1} + b_h);  g = tanh(the same);  c_t = f * c_{t-1} + i * g;  m_t = o * tanh(c_t);  c_0 = m_0 = 0.
    """
    m = x.new_zeros(x.shape[1], w_h.shape[1])
    c = m
    memories = []
    for x_t in x:
        i, f, g, o = (x_t @ w_x.t() + b_x + m @ w_h.t() + b_h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(o) * torch.tanh(c)
        memories.append(m)
    return torch.stack(memories)


def fast_gru(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """``gru_equations`` with all input products at once and a gradient written by hand. x [T, B, D] -> [T, B, H]."""
    return _FastGRU.apply(x, w_x, w_h, b_x, b_h)


def fast_lstm(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """``lstm_equations`` with all input products at once and a gradient written by hand. x [T, B, D] -> [T, B, H]."""
    return _FastLSTM.apply(x, w_x, w_h, b_x, b_h)


def _input_products(x: Tensor, w_x: Tensor, bias: Tensor) -> Tensor:
    return torch.addmm(bias, x.flatten(0, 1), w_x.t()).view(*x.shape[:2], -1)


def _weight_gradients(ctx: Any, x: Tensor, w_x: Tensor, to_input: Tensor) -> tuple[Tensor | None, Tensor, Tensor]:
    """Gradients of x, W_x and b_x from that of the input products [T B, G H]."""
    flat = x.flatten(0, 1)
    to_x = (to_input @ w_x).view_as(x) if ctx.needs_input_grad[0] else None
    return to_x, to_input.t() @ flat, to_input.sum(0)


class _FastGRU(torch.autograd.Function):
    """Forward keeps r, z, n, W_h h + b_h and h of every step.

    Backward: every gate's gradient is dh_t times a factor known beforehand, so the loop is one product with the factors and one with W_h.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
        hidden = w_h.shape[1]
        gates = _input_products(x, w_x, b_x)
        from_h = torch.empty_like(gates)
        memory = x.new_empty(x.shape[0] + 1, x.shape[1], hidden)
        memory[0] = 0
        w_h_t = w_h.t()
        for gate, by_h, h, h_new in zip(gates, from_h, memory, memory[1:], strict=False):
            torch.addmm(b_h, h, w_h_t, out=by_h)
            rz, n = gate[:, : 2 * hidden], gate[:, 2 * hidden :]
            rz.add_(by_h[:, : 2 * hidden]).sigmoid_()
            n.addcmul_(rz[:, :hidden], by_h[:, 2 * hidden :]).tanh_()
            torch.lerp(n, h, rz[:, hidden:], out=h_new)
        ctx.save_for_backward(x, w_x, w_h, gates, from_h[..., 2 * hidden :], memory)
        return memory[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_memory = gradients[0]
        x, w_x, w_h, gates, h_n, memory = ctx.saved_tensors
        r, z, n = gates.unflatten(2, (3, -1)).unbind(2)
        to_n = (1 - z) * (1 - n * n)
        factors = torch.stack([to_n * h_n * r * (1 - r), (memory[:-1] - n) * z * (1 - z), to_n * r], dim=2)
        to_gates = torch.empty_like(factors)
        total = torch.empty_like(to_n)
        carried = torch.zeros_like(memory[0])
        for t in range(len(x) - 1, -1, -1):
            torch.add(to_memory[t], carried, out=total[t])
            torch.mul(total[t].unsqueeze(1), factors[t], out=to_gates[t])
            carried = torch.addmm(total[t] * z[t], to_gates[t].flatten(1), w_h)
        flat = to_gates.flatten(0, 1).flatten(1)
        to_w_h, to_b_h = flat.t() @ memory[:-1].flatten(0, 1), flat.sum(0)
        torch.mul(total, to_n, out=to_gates[:, :, 2])  # n's input product is not scaled by r
        to_x, to_w_x, to_b_x = _weight_gradients(ctx, x, w_x, flat)
        return to_x, to_w_x, to_w_h, to_b_x, to_b_h


class _FastLSTM(torch.autograd.Function):
    """Forward keeps i, f, g, o, c and m of every step; backward carries dm and dc, as ``_FastGRU`` carries dh."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
        hidden = w_h.shape[1]
        gates = _input_products(x, w_x, b_x + b_h)
        memory = x.new_empty(x.shape[0] + 1, x.shape[1], hidden)
        cell = torch.empty_like(memory)
        memory[0] = cell[0] = 0
        squashed = torch.empty_like(cell[1:])  # tanh(c)
        w_h_t = w_h.t()
        for t, gate in enumerate(gates):
            gate.addmm_(memory[t], w_h_t)
            gate[:, : 2 * hidden].sigmoid_()
            gate[:, 2 * hidden : 3 * hidden].tanh_()
            gate[:, 3 * hidden :].sigmoid_()
            i, f, g, o = gate.chunk(4, dim=1)
            torch.mul(f, cell[t], out=cell[t + 1]).addcmul_(i, g)
            torch.tanh(cell[t + 1], out=squashed[t])
            torch.mul(o, squashed[t], out=memory[t + 1])
        ctx.save_for_backward(x, w_x, w_h, gates, cell, squashed, memory)
        return memory[1:]

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        to_memory = gradients[0]
        x, w_x, w_h, gates, cell, squashed, memory = ctx.saved_tensors
        i, f, g, o = gates.unflatten(2, (4, -1)).unbind(2)
        by_cell = torch.stack([g * i * (1 - i), cell[:-1] * f * (1 - f), i * (1 - g * g)], dim=2)
        by_memory = squashed * o * (1 - o)
        memory_to_cell = o * (1 - squashed * squashed)
        to_gates = x.new_empty(*gates.shape[:2], 4, gates.shape[2] // 4)
        to_m = torch.zeros_like(memory[0])
        to_c = torch.zeros_like(memory[0])
        for t in range(len(x) - 1, -1, -1):
            to_m = to_m + to_memory[t]
            to_c = to_c.addcmul_(to_m, memory_to_cell[t])
            torch.mul(to_c.unsqueeze(1), by_cell[t], out=to_gates[t, :, :3])
            torch.mul(to_m, by_memory[t], out=to_gates[t, :, 3])
            to_c = to_c * f[t]
            to_m = to_gates[t].flatten(1) @ w_h
        flat = to_gates.flatten(0, 1).flatten(1)
        to_x, to_w_x, to_bias = _weight_gradients(ctx, x, w_x, flat)
        return to_x, to_w_x, flat.t() @ memory[:-1].flatten(0, 1), to_bias, to_bias


class RecurrentLayer(nn.Module):
    """One LSTM or GRU layer, x [T, B, D] -> m [T, B, H]; ``cell`` is the torch module that holds the weights and, on a GPU, runs."""

    def __init__(self, kind: Literal["lstm", "gru"], input_width: int, hidden: int) -> None:
        super().__init__()
        self.kind = kind
        self.cell: nn.RNNBase = nn.LSTM(input_width, hidden) if kind == "lstm" else nn.GRU(input_width, hidden)

    def weights(self) -> Weights:
        """W_x, W_h, b_x, b_h."""
        w_x, w_h, b_x, b_h = (getattr(self.cell, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        return w_x, w_h, b_x, b_h

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu":
            return self.cell(x)[0]
        return (fast_lstm if self.kind == "lstm" else fast_gru)(x, *self.weights())


class RecurrentStack(nn.Module):
    """L layers; with ``residual`` the stack of PAPERS A: m^l = RNN_l(x^{l-1}), x^l = m^l + x^{l-1}.

    ``forward`` gives m^L, the last layer's memory *before* the residual addition, [T, B, H]. The addition needs the width H: where
    the input is not H wide (no PCA to H), a learned linear map x^0 = W x + b brings it there first.
    """

    def __init__(self, kind: Literal["lstm", "gru"], input_width: int, hidden: int, layers: int, residual: bool = False) -> None:
        super().__init__()
        self.residual = residual
        self.widen = nn.Linear(input_width, hidden) if residual and input_width != hidden else nn.Identity()
        first = hidden if residual else input_width
        self.layers = nn.ModuleList(RecurrentLayer(kind, hidden if index else first, hidden) for index in range(layers))

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        memory = x
        for layer in self.layers:
            memory = layer(x)
            x = memory + x if self.residual else memory
        return memory
