"""LSTM: all input products at once; a step is a product with the memory and one sweep over the gates; the gradient likewise, by hand.

Tensors here have a leading dimension of S seeds. The gates and cells of every step are kept for the way back.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temporal.recurrence.products import input_gradient, input_products, products_dtype, recurrent_product, weight_gradient
from temporal.recurrence.seeds import one_seed, seeds_first
from temporal.recurrence.steps import Buffers, at, keep_low, step_of, tensor


def fast_lstm(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """``lstm_equations`` with all input products at once and a gradient written by hand. x [T, B, D] -> [T, B, H]."""
    tensors = one_seed(x, w_x, w_h, b_x, b_h)
    return _FastLSTM.apply(*tensors, products_dtype(x))[0].squeeze(0).to(x.dtype)


class _FastLSTM(torch.autograd.Function):
    """x [S, T, B, D], W_x [S, 4 H, D], W_h [S, 4 H, H], b_x and b_h [S, 4 H] -> m [S, T, B, H], and what the way back needs."""

    @staticmethod
    def forward(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, low: torch.dtype) -> tuple[Tensor, ...]:
        low_x, low_w_x, low_w_h = lowered = [each.to(low) for each in (x, w_x, w_h)]
        gates = input_products(low_x, low_w_x)
        memory = x.new_empty(*x.shape[:3], w_h.shape[2])
        cell, read = torch.empty_like(memory), memory if low == x.dtype else torch.empty_like(memory, dtype=low)
        recurrent = gates.new_empty(len(x), *gates.shape[2:])
        buffers: Buffers = {"gates": gates, "recurrent": recurrent, "bias_x": b_x + b_h, "cell": cell, "memory": memory}
        step = step_of("lstm_forward", _torch_forward, buffers | {"low": None if read is memory else read}, columns=4)
        multiply = recurrent_product(low_w_h.transpose(1, 2), into=recurrent)
        step(0)
        for t, before in zip(range(1, x.shape[1]), read.unbind(1), strict=False):
            multiply(before)
            step(t)
        return memory, gates, cell, *(() if low == x.dtype else lowered)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # zeros for what is kept would be as large as the gates
        ctx.save_for_backward(*output[:3], *(output[3:] or inputs[:3]))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradients[0] is None:  # nobody asked for that of the memory
            return (None,) * 6
        memory, gates, cell, x, w_x, w_h = ctx.saved_tensors
        real = memory.dtype
        to_gates, carried = torch.empty_like(gates), gates.new_empty(len(memory), *memory.shape[2:])
        buffers: Buffers = {"gates": gates, "cell": cell, "to_memory": gradients[0].contiguous(), "to_gates": to_gates}
        buffers |= {"carried": carried, "to_cell": torch.empty_like(memory[:, 0], memory_format=torch.contiguous_format)}
        step = step_of("lstm_backward", _torch_backward, buffers, columns=4)
        multiply, of_steps = recurrent_product(w_h, into=carried), to_gates.unbind(1)
        last = len(of_steps) - 1
        step(last)
        for t in range(last - 1, -1, -1):
            multiply(of_steps[t + 1])
            step(t)
        to_x = input_gradient(to_gates, w_x).to(real) if ctx.needs_input_grad[0] else None
        to_w_x = weight_gradient(to_gates, x).to(real)
        to_w_h = weight_gradient(to_gates[:, 1:], memory[:, :-1].to(gates.dtype)).to(real)
        to_bias = to_gates.sum((1, 2), dtype=real)
        return to_x, to_w_x, to_w_h, to_bias, to_bias.clone(), None  # not the same twice: gradients are added to in place

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return seeds_first(_FastLSTM, info, in_dims, inputs)


def _torch_forward(buffers: Buffers, t: int) -> None:
    gates = at(buffers, "gates", t)
    before = gates.to(at(buffers, "cell", t).dtype) + tensor(buffers, "bias_x").unsqueeze(1)
    if t:
        before += tensor(buffers, "recurrent")
    i, f, g, o = before.chunk(4, dim=2)
    i, f, g, o = torch.sigmoid(i), torch.sigmoid(f), torch.tanh(g), torch.sigmoid(o)
    cell = f * at(buffers, "cell", t - 1) + i * g
    at(buffers, "cell", t).copy_(cell)
    at(buffers, "memory", t).copy_(o * torch.tanh(cell))
    gates.copy_(torch.cat([i, f, g, o], dim=2))
    keep_low(buffers, t)


def _torch_backward(buffers: Buffers, t: int) -> None:
    cell = at(buffers, "cell", t)
    i, f, g, o = at(buffers, "gates", t).to(cell.dtype).chunk(4, dim=2)
    seen, to_m = torch.tanh(cell), at(buffers, "to_memory", t)
    last = t == tensor(buffers, "to_memory").shape[1] - 1
    if not last:
        to_m = to_m + tensor(buffers, "carried")
    to_c = to_m * o * (1 - seen * seen)
    if not last:
        to_c = to_c + tensor(buffers, "to_cell")
    by_gate = [to_c * g * i * (1 - i), to_c * at(buffers, "cell", t - 1) * f * (1 - f), to_c * i * (1 - g * g), to_m * seen * o * (1 - o)]
    at(buffers, "to_gates", t).copy_(torch.cat(by_gate, dim=2))
    tensor(buffers, "to_cell").copy_(to_c * f)
