"""Dropout whose masks can come from a generator for each of several seeds that train together."""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # of a share


@dataclass(frozen=True)
class Draws:
    """Where the masks of S seeds come from: a generator each, and the steps and sequences of each seed's own batch, without padding."""

    generators: list[torch.Generator]
    sizes: list[tuple[int, int]]


class Dropout(nn.Dropout):
    """x [B, H] or [T, B, H] -> the same, in training with a share ``p`` of the numbers set to 0 and the others divided by 1 - p.

    The mask is drawn from torch's generator. Inside ``vmap`` over seeds it is drawn, seed by seed and in the size of that seed's own batch,
    from ``draws``, so that each seed drops what it would drop alone.
    """

    def __init__(self, p: float) -> None:
        super().__init__(p)
        self.draws: Draws | None = None

    def forward(self, x: Tensor) -> Tensor:
        return x * _Mask.apply(x, self.p, self.draws) if self.training and self.p else x


class _Mask(torch.autograd.Function):
    """0 or 1 / (1 - p) for every number of x; no gradient."""

    @staticmethod
    def forward(x: Tensor, p: float, draws: Draws | None) -> Tensor:
        return _mask(x, x.shape, p, None)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.mark_non_differentiable(output)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[None, None, None]:
        return None, None, None

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], x: Tensor, p: float, draws: Draws | None) -> tuple[Tensor, int]:
        assert draws is not None, "seeds that train together need a generator each"
        x = x.movedim(in_dims[0], 0)
        sizes = [(*size, x.shape[-1])[-(x.dim() - 1) :] for size in draws.sizes]
        if all(size == x.shape[1:] for size in sizes):  # no padding: what is made of the numbers drawn is made of all at once
            count = math.prod(sizes[0])
            drawn = torch.stack([_draw(count, x.device, generator) for generator in draws.generators])
            return _kept(drawn, x.shape, p, x.dtype), 0
        masks = torch.zeros_like(x, memory_format=torch.contiguous_format)
        for mask, generator, size in zip(masks, draws.generators, sizes, strict=True):
            part = mask[tuple(slice(length) for length in size)]
            part.copy_(_mask(x, size, p, generator))
        return masks, 0


def _mask(like: Tensor, shape: tuple[int, ...], p: float, generator: torch.Generator | None) -> Tensor:
    return _kept(_draw(math.prod(shape), like.device, generator).unsqueeze(0), shape, p, like.dtype)


def _draw(count: int, device: torch.device, generator: torch.Generator | None) -> Tensor:
    """``count`` numbers or a few more, int64 [(count + 3) / 4] of four each, of 16 bits: drawing is what takes the time."""
    return torch.empty((count + 3) // 4, dtype=torch.int64, device=device).random_(-(2**63), None, generator=generator)


def _kept(drawn: Tensor, shape: tuple[int, ...], p: float, dtype: torch.dtype) -> Tensor:
    """The mask of ``shape`` from the numbers of S seeds, int64 [S, N]. So p counts to the nearest of 65,536 steps."""
    dropped = min(round(p * LEVELS), LEVELS - 1)
    numbers = drawn.view(torch.int16)[:, : math.prod(shape) // len(drawn)]
    return (numbers >= dropped - LEVELS // 2).view(shape).to(dtype).mul_(LEVELS / (LEVELS - dropped))
