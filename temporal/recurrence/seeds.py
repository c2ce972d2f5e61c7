"""How ``torch.func.vmap`` over seeds meets the recurrences: its dimension becomes their own dimension of seeds."""

from typing import Any

import torch
from torch import Tensor


def seeds_first(function: Any, info: Any, in_dims: tuple[Any, ...], inputs: tuple[Any, ...]) -> tuple[tuple[Tensor, ...], tuple[int, ...]]:
    """The vmap rule of a recurrence whose tensors all have S seeds in front, S = 1 inside ``vmap``.

    The dimension of ``vmap`` is moved to the front and takes the place of the one seed.
    """
    together = []
    for value, dim in zip(inputs, in_dims, strict=True):
        if not isinstance(value, Tensor):
            together.append(value)
        elif dim is None:
            together.append(value.expand(info.batch_size, *value.shape[1:]))
        else:
            moved = value.movedim(dim, 0)
            assert moved.shape[1] == 1, "seeds inside seeds"
            together.append(moved.squeeze(1))
    outputs = function.apply(*together)
    return tuple(output.unsqueeze(1) for output in outputs), (0,) * len(outputs)


def one_seed(*tensors: Tensor | None) -> list[Tensor | None]:
    """Each, ``widened``, with a dimension of one seed in front."""
    return [None if tensor is None else widened(tensor).unsqueeze(0) for tensor in tensors]


def widened(tensor: Tensor) -> Tensor:
    """bfloat16 and float16 as float32, in which sums and gates are computed; others as they are."""
    return tensor.float() if tensor.dtype in (torch.bfloat16, torch.float16) else tensor
