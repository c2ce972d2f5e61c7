"""Arithmetic of a network: type of its weights, memory layout, and the global switches that would quietly change its results."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from extract.backbones import Backbone
from extract.fold import NORMALISATIONS

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


def prepare(backbone: Backbone, precision: str = "fp32", channels_last: bool = False, device: str | torch.device = "cpu") -> Backbone:
    """Make ``backbone`` ready to extract with, in place: evaluation mode, no gradients, device, type and layout of its weights.

    Batch normalisation keeps float32 weights whatever the precision: it costs no time and halves bf16's error (cosine of MobileNetV2's
    features to fp32: 0.99963, else 0.99917). So do the network's own arrays (``Backbone.extras``): a mean of 0..255 in bf16 is up to half
    a level off. Feed it frames of ``DTYPES[precision]`` in the same layout; its features are float32.
    """
    backbone.eval().requires_grad_(False)
    for module in backbone.modules():
        exact = backbone.extras if module is backbone else ()
        own = [*module.named_parameters(recurse=False), *module.named_buffers(recurse=False)]
        for name, value in own if not isinstance(module, NORMALISATIONS) else ():
            keeps = name in exact or not value.is_floating_point()
            value.data = _laid_out(value.data if keeps else value.data.to(DTYPES[precision]), channels_last)
    return backbone.to(device)


def compiled(backbone: Backbone) -> Backbone:
    """Have ``backbone`` compiled at its first pass, for passes of that one size; what is compiled is chosen by rule, not by stopwatch."""
    from torch._inductor import config as inductor

    if hasattr(inductor, "deterministic"):
        inductor.deterministic = True
    backbone.compile(dynamic=False)
    return backbone


def _laid_out(value: torch.Tensor, channels_last: bool) -> torch.Tensor:
    return value.contiguous(memory_format=MEMORY_FORMATS[value.dim()]) if channels_last and value.dim() in MEMORY_FORMATS else value


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
