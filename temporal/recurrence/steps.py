"""One step of a recurrence at a time, over buffers of the whole pass: compiled, or in torch operations where there is no compiled form."""

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from temporal.recurrence.native import Kernel, available

Buffers = dict[str, Tensor | None]
Step = Callable[[int], None]


def step_of(function: str, twin: Callable[[Buffers, int], None], buffers: Buffers, columns: int) -> Step:
    """What does step t on ``buffers`` (named as in native.c): ``function`` of native.c, or ``twin``. ``columns``: gates in a row."""
    gates = tensor(buffers, "gates")
    if not available(gates.device, gates.dtype):
        return partial(twin, buffers)
    return Kernel(function, (*gates.shape[:3], gates.shape[3] // columns), buffers)


def tensor(buffers: Buffers, name: str) -> Tensor:
    """A buffer that is there."""
    found = buffers[name]
    assert found is not None
    return found


def at(buffers: Buffers, name: str, step: int) -> Tensor:
    """Buffer ``name`` [S, T, B, K] at ``step``, [S, B, K]; zeros before the first."""
    found = tensor(buffers, name)
    return found[:, step] if step >= 0 else torch.zeros_like(found[:, 0])


def keep_low(buffers: Buffers, step: int) -> None:
    """Copy the memory of ``step`` into the products' type where that is another."""
    low = buffers.get("low")
    if low is not None:
        low[:, step] = at(buffers, "memory", step)
