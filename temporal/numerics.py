"""What torch's switches and generators are while a head is trained or scored."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


@contextmanager
def full_float32() -> Iterator[None]:
    """Within the block float32 means float32: cuDNN's recurrences and convolutions keep 24 bits of a number, where torch lets them keep 11.

    The switches are the process's and are put back. Blocks must be nested, so the loop that drives trainings opens one, never a training
    that others may be interleaved with.
    """
    cudnn: Any = torch.backends.cudnn  # torch's stubs do not know its attributes
    parts = (cudnn.conv, cudnn.rnn)
    before = [part.fp32_precision for part in parts]
    try:
        for part in parts:
            part.fp32_precision = "ieee"
        yield
    finally:
        for part, precision in zip(parts, before, strict=True):
            part.fp32_precision = precision


@contextmanager
def seeded(seed: int, device: str = "cpu") -> Iterator[None]:
    """The generators of the CPU and of ``device`` start from ``seed`` inside and are as before outside; no other GPU's is touched."""
    on_gpu = device.startswith("cuda")
    with torch.random.fork_rng(devices=[device] if on_gpu else []):
        torch.default_generator.manual_seed(seed)
        if on_gpu:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield
