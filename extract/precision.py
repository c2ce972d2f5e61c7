"""Arithmetic of a network: type of its weights, memory layout, and the global switches that would quietly change its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from extract.backbones import Backbone

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(backbone: Backbone, precision: str = "fp32", channels_last: bool = False, device: str | torch.device = "cpu") -> Backbone:
    """Make ``backbone`` ready to extract with, in place: evaluation mode, no gradients, device, type and layout of its weights.

    Feed it frames of ``DTYPES[precision]`` in the same layout; its features are float32 (see ``Backbone.forward``).
    """
    backbone.eval().requires_grad_(False).to(device=device, dtype=DTYPES[precision])
    if channels_last:
        for parameter in backbone.parameters():
            if parameter.dim() in MEMORY_FORMATS:
                parameter.data = parameter.data.contiguous(memory_format=MEMORY_FORMATS[parameter.dim()])
    return backbone


MEMORY_FORMATS = {4: torch.channels_last, 5: torch.channels_last_3d}
"""Channels-last layout by number of axes: images [B, C, H, W] and clips [B, C, T, H, W]."""


@contextmanager
def exact_arithmetic() -> Iterator[None]:
    """Within the block fp32 means IEEE fp32 (no TF32, no bf16 inside) and cuDNN picks its algorithms by rule, not by stopwatch.

    These are process-wide switches of torch, so they are put back afterwards, whatever they were.
    """
    cudnn: Any = torch.backends.cudnn  # torch's stubs do not know its attributes
    mkldnn: Any = torch.backends.mkldnn
    precisions = (torch.backends.cuda.matmul, cudnn.conv, mkldnn.matmul, mkldnn.conv)
    before = [item.fp32_precision for item in precisions]
    switches = cudnn.benchmark, cudnn.deterministic
    try:
        for item in precisions:
            item.fp32_precision = "ieee"
        cudnn.benchmark, cudnn.deterministic = False, True
        yield
    finally:
        cudnn.benchmark, cudnn.deterministic = switches
        for item, precision in zip(precisions, before, strict=True):
            item.fp32_precision = precision
