"""The simple recurrent unit: all matrix products of a layer in one, then an element-wise recurrence in one sweep each way.

Tensors here have a leading dimension of S seeds. The forward pass keeps the products and the cells c; the gates are computed again on the
way back, which costs less than reading them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from temporal.recurrence.native import Kernel, available
from temporal.recurrence.products import input_gradient, input_products, products_dtype, weight_gradient
from temporal.recurrence.seeds import one_seed, seeds_first


def fast_sru(x: Tensor, weight: Tensor, bias: Tensor, peephole: Tensor | None = None, squash: bool = True, scale: float = 1.0) -> Tensor:
    """``sru_equations`` in one sweep each way. x [T, B, D] -> [T, B, H]."""
    tensors = one_seed(x, weight, bias, peephole)
    return _FastSRU.apply(*tensors, squash, scale, products_dtype(x))[0].squeeze(0).to(x.dtype)


@dataclass(frozen=True)
class _Pass:
    """A layer at work: products [S, T, B, K H] of the blocks x~, f, r (and the projected highway), cells [S, T, B, H]."""

    products: Tensor
    bias: Tensor
    peephole: Tensor | None
    highway: Tensor | None  # x where it is H wide
    cell: Tensor
    squash: bool
    scale: float

    def kernel(self, function: str, **others: Tensor | None) -> Kernel:
        """A function of native.c with this pass's tensors and ``others``."""
        tensors = {"gates": self.products, "bias_x": self.bias, "peephole": self.peephole, "x": self.highway, "cell": self.cell}
        columns = self.products.shape[3] // self.cell.shape[3]
        sizes = (*self.products.shape[:3], self.cell.shape[3])
        return Kernel(function, sizes, tensors | others, columns=columns, squash=int(self.squash), scale=self.scale)

    def before(self, step: int) -> Tensor:
        """c of the step before, [S, B, H]."""
        return self.cell[:, step - 1] if step else torch.zeros_like(self.cell[:, 0])

    def gates(self, step: int) -> tuple[Tensor, Tensor]:
        """f and r of a step, each [S, B, H]."""
        before = self.products[:, step].unflatten(2, (-1, self.cell.shape[3]))[:, :, 1:3].flatten(2) + self.bias.unsqueeze(1)
        if self.peephole is not None:
            before = before + self.peephole.unsqueeze(1) * self.before(step).repeat(1, 1, 2)
        f, r = torch.sigmoid(before).chunk(2, dim=2)
        return f, r

    def fresh(self, step: int) -> Tensor:
        """x~ of a step, [S, B, H]."""
        return self.products[:, step, :, : self.cell.shape[3]].to(self.cell.dtype)

    def way(self, step: int) -> Tensor:
        """The highway term of a step, [S, B, H]."""
        if self.highway is not None:
            return self.scale * self.highway[:, step]
        return self.products[:, step, :, 3 * self.cell.shape[3] :].to(self.cell.dtype)

    def seen(self, step: int) -> Tensor:
        """g(c) of a step, [S, B, H]."""
        return torch.tanh(self.cell[:, step]) if self.squash else self.cell[:, step]


class _FastSRU(torch.autograd.Function):
    """x [S, T, B, D], W [S, K H, D], b [S, 2 H], v [S, 2 H] or None -> h [S, T, B, H], and what the way back needs."""

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor, peephole: Tensor | None, squash: bool, scale: float, low: torch.dtype
    ) -> tuple[Tensor, ...]:
        x, low_weight, hidden = x.contiguous(), weight.to(low), bias.shape[1] // 2
        products = input_products(x.to(low), low_weight)
        cell = x.new_empty(*x.shape[:3], hidden)
        output = torch.empty_like(cell)
        at_work = _at_work(x, bias, peephole, products, cell, squash, scale)
        if available(x.device, low):
            at_work.kernel("sru_forward", memory=output)()
        else:
            _torch_forward(at_work, output)
        return output, products, cell, *(() if low == x.dtype else (low_weight,))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
        x, weight, bias, peephole, ctx.squash, ctx.scale, _ = inputs
        ctx.mark_non_differentiable(*output[1:])
        ctx.set_materialize_grads(False)  # zeros for what is kept would be as large as the gates
        ctx.save_for_backward(x, bias, peephole, *output[1:3], output[3] if output[3:] else weight)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        if gradients[0] is None:  # nobody asked for that of the output
            return (None,) * 7
        x, bias, peephole, products, cell, low_weight = ctx.saved_tensors
        x = x.contiguous()
        at_work = _at_work(x, bias, peephole, products, cell, ctx.squash, ctx.scale)
        to_products = torch.empty_like(products)
        to_x = None if at_work.highway is None else torch.empty_like(x)
        of_rows = [x.new_zeros(len(x), x.shape[2], bias.shape[1]) for _ in range(1 if peephole is None else 2)]
        if available(x.device, products.dtype):
            rows = dict(zip(("to_bias", "to_peephole"), of_rows, strict=False))
            to_cell = torch.zeros_like(cell[:, 0])
            to_memory = gradients[0].contiguous()
            at_work.kernel("sru_backward", to_memory=to_memory, to_gates=to_products, to_x=to_x, to_cell=to_cell, **rows)()
        else:
            _torch_backward(at_work, gradients[0], to_products, to_x, of_rows)
        if ctx.needs_input_grad[0]:
            through = input_gradient(to_products, low_weight)
            to_x = through.to(x.dtype) if to_x is None else to_x.add_(through)
        to_weight = weight_gradient(to_products, x.to(products.dtype)).to(x.dtype)
        to_bias, *to_peephole = (rows.sum(1) for rows in of_rows)
        return to_x, to_weight, to_bias, *(to_peephole or [None]), None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
        return seeds_first(_FastSRU, info, in_dims, inputs)


def _at_work(x: Tensor, bias: Tensor, peephole: Tensor | None, products: Tensor, cell: Tensor, squash: bool, scale: float) -> _Pass:
    highway = x if products.shape[3] == 3 * cell.shape[3] else None
    return _Pass(products, bias.contiguous(), None if peephole is None else peephole.contiguous(), highway, cell, squash, scale)


def _torch_forward(at_work: _Pass, output: Tensor) -> None:
    cell = at_work.cell
    for step in range(output.shape[1]):
        f, r = at_work.gates(step)
        torch.lerp(at_work.fresh(step), at_work.before(step), f, out=cell[:, step])
        torch.lerp(at_work.way(step), at_work.seen(step), r, out=output[:, step])


def _torch_backward(at_work: _Pass, to_output: Tensor, to_products: Tensor, to_x: Tensor | None, of_rows: list[Tensor]) -> None:
    cell, v = at_work.cell, at_work.peephole
    to_cell = torch.zeros_like(cell[:, 0])
    for step in range(to_output.shape[1] - 1, -1, -1):
        (f, r), before, seen, way = at_work.gates(step), at_work.before(step), at_work.seen(step), at_work.way(step)
        out = to_output[:, step]
        to_cell = to_cell + out * r * ((1 - seen * seen) if at_work.squash else 1)
        to_f = to_cell * (before - at_work.fresh(step)) * f * (1 - f)
        to_gates = torch.cat([to_f, out * (seen - way) * r * (1 - r)], dim=2)
        blocks = [to_cell * (1 - f), to_gates]
        to_cell = to_cell * f
        of_rows[0] += to_gates
        if v is not None:
            to_cell = to_cell + (v.unsqueeze(1) * to_gates).unflatten(2, (2, -1)).sum(2)
            of_rows[1] += to_gates * before.repeat(1, 1, 2)
        if to_x is None:
            blocks.append(out * (1 - r))
        else:
            to_x[:, step] = at_work.scale * out * (1 - r)
        to_products[:, step] = torch.cat(blocks, dim=2)
