"""GRU: all input products at once; a step is a product with the memory and one sweep over the gates; the gradient likewise, by hand.

Tensors here have a leading dimension of S seeds. The gates, and the memory's part of n, are kept for the way back.
"""

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temporal.recurrence.products import input_gradient, input_products, products_dtype, recurrent_product, weight_gradient
from temporal.recurrence.seeds import one_seed, seeds_first
from temporal.recurrence.steps import Buffers, at, keep_low, step_of, tensor


def fast_gru(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """``gru_equations`` with all input products at once and a gradient written by hand. x [T, B, D] -> [T, B, H]."""
    tensors = one_seed(x, w_x, w_h, b_x, b_h)
    return _FastGRU.apply(*tensors, products_dtype(x))[0].squeeze(0).to(x.dtype)


class _FastGRU(torch.autograd.Function):
    """x [S, T, B, D], W_x [S, 3 H, D], W_h [S, 3 H, H], b_x and b_h [S, 3 H] -> h [S, T, B, H], and what the way back needs."""

    @staticmethod
    def forward(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor, low: torch.dtype) -> tuple[Tensor, ...]:
        low_x, low_w_x, low_w_h = lowered = [each.to(low) for each in (x, w_x, w_h)]
        gates = input_products(low_x, low_w_x)
        memory = x.new_empty(*x.shape[:3], w_h.shape[2])
        read = memory if low == x.dtype else torch.empty_like(memory, dtype=low)
        kept, recurrent = torch.empty_like(memory, dtype=low), gates.new_empty(len(x), *gates.shape[2:])
        buffers: Buffers = {"gates": gates, "recurrent": recurrent, "kept": kept, "memory": memory}
        buffers |= {"bias_x": b_x.contiguous(), "bias_h": b_h.contiguous(), "low": None if read is memory else read}
        step = step_of("gru_forward", _torch_forward, buffers, columns=3)
        multiply = recurrent_product(low_w_h.transpose(1, 2), into=recurrent)
        step(0)
        for t, before in zip(range(1, x.shape[1]), read.unbind(1), strict=False):
            multiply(before)
            step(t)
        return memory, gates, kept, *(() if low == x.dtype else lowered)

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
        memory, gates, kept, x, w_x, w_h = ctx.saved_tensors
        real, hidden = memory.dtype, memory.shape[3]
        # n, r, z of the memory's products, then n of the input's, which r does not scale: each product reads three neighbouring blocks
        to_gates = gates.new_empty(*gates.shape[:3], 4 * hidden)
        of_memory, of_input = to_gates[..., : 3 * hidden], to_gates[..., hidden:]
        carried = gates.new_empty(len(memory), *memory.shape[2:])
        buffers: Buffers = {"gates": gates, "kept": kept, "memory": memory, "to_memory": gradients[0].contiguous(), "to_gates": to_gates}
        buffers |= {"carried": carried, "to_cell": torch.empty_like(memory[:, 0], memory_format=torch.contiguous_format)}
        step = step_of("gru_backward", _torch_backward, buffers, columns=3)
        multiply = recurrent_product(w_h.roll(hidden, dims=1), into=carried)  # its blocks in the order n, r, z
        last = memory.shape[1] - 1
        step(last)
        for t in range(last - 1, -1, -1):
            multiply(of_memory[:, t + 1])
            step(t)
        to_x = input_gradient(of_input, w_x).to(real) if ctx.needs_input_grad[0] else None
        to_w_x = weight_gradient(of_input, x).to(real)
        to_w_h = weight_gradient(of_memory[:, 1:], memory[:, :-1].to(gates.dtype)).to(real).roll(-hidden, dims=1)
        to_n, to_r, to_z, to_n_x = to_gates.sum((1, 2), dtype=real).chunk(4, dim=1)
        return to_x, to_w_x, to_w_h, torch.cat([to_r, to_z, to_n_x], dim=1), torch.cat([to_r, to_z, to_n], dim=1), None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return seeds_first(_FastGRU, info, in_dims, inputs)


def _torch_forward(buffers: Buffers, t: int) -> None:
    gates, memory = at(buffers, "gates", t), at(buffers, "memory", t)
    x_r, x_z, x_n = (gates.to(memory.dtype) + tensor(buffers, "bias_x").unsqueeze(1)).chunk(3, dim=2)
    by_memory = tensor(buffers, "bias_h").unsqueeze(1)
    by_memory = by_memory + tensor(buffers, "recurrent") if t else by_memory.expand(gates.shape)
    h_r, h_z, h_n = by_memory.chunk(3, dim=2)
    r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
    n = torch.tanh(x_n + r * h_n)
    memory.copy_(torch.lerp(n, at(buffers, "memory", t - 1), z))
    gates.copy_(torch.cat([r, z, n], dim=2))
    at(buffers, "kept", t).copy_(h_n)
    keep_low(buffers, t)


def _torch_backward(buffers: Buffers, t: int) -> None:
    before = at(buffers, "memory", t - 1)
    r, z, n = at(buffers, "gates", t).to(before.dtype).chunk(3, dim=2)
    to_h = at(buffers, "to_memory", t)
    if t < tensor(buffers, "to_memory").shape[1] - 1:
        to_h = to_h + tensor(buffers, "to_cell") + tensor(buffers, "carried")
    to_n = to_h * (1 - z) * (1 - n * n)
    to_r = to_n * at(buffers, "kept", t) * r * (1 - r)
    at(buffers, "to_gates", t).copy_(torch.cat([to_n * r, to_r, to_h * (before - n) * z * (1 - z), to_n], dim=2))
    tensor(buffers, "to_cell").copy_(to_h * z)
