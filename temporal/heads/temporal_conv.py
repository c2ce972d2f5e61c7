"""Residual convolutions over time."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import SpecError
from temporal.heads import HEADS
from temporal.heads.pool import max_over_time, mean_over_time, valid_steps
from temporal.params import Param
from temporal.spec import HeadSpec

PARAMS = (
    Param("kernel", 3, "steps that a convolution sees, an odd number", low=1, high=63),
    Param("dilation", 2, "by which the gaps between these steps grow from layer to layer; 1: no gaps", low=1, high=8),
)


class TemporalConvolution(nn.Module):
    """L layers x + relu(W * N(x)) of width H, W a convolution over time, N a normalisation of each step; class scores of the steps pooled.

    Layer l sees ``kernel`` steps, dilation^l apart. Steps of padding are set to 0 before every convolution, just what it sees beyond
    the ends of a sequence that is not padded. ``head.output``: "mean", "max" or the last step's class scores.
    """

    def __init__(self, input_width: int, num_classes: int, spec: HeadSpec) -> None:
        super().__init__()
        width, kernel, dilation = spec.hidden, int(spec.params["kernel"]), int(spec.params["dilation"])
        if kernel % 2 == 0:
            raise SpecError(f"head.params kernel is {kernel}; it must be odd, so that a step is in its middle")
        gaps = [dilation**layer for layer in range(spec.layers)]
        self.output = spec.output
        self.widen = nn.Linear(input_width, width)
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in gaps)
        self.layers = nn.ModuleList(nn.Conv1d(width, width, kernel, padding=gap * (kernel // 2), dilation=gap) for gap in gaps)
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        padding = ~valid_steps(x, lengths)
        x = self.widen(x)
        for norm, layer in zip(self.norms, self.layers, strict=True):
            seen = norm(x).masked_fill(padding, 0)
            x = x + functional.relu(layer(seen.transpose(1, 2)).transpose(1, 2))
        scores = self.classifier(self.dropout(x))
        if self.output == "last":
            return scores[torch.arange(len(scores), device=x.device), lengths - 1]
        return (mean_over_time if self.output == "mean" else max_over_time)(scores, lengths)


@HEADS.register("temporal_conv")
def temporal_conv(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Residual convolutions over time: head.layers layers of width head.hidden.

    Paper: Bai et al. 2018 (not causal here: a whole video is seen)
    """
    return TemporalConvolution(input_width, num_classes, spec)
