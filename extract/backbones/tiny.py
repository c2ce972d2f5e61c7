"""Small networks with seeded weights for tests, demonstrations and a first look at a data set. They have learned nothing.

Their weights come from the raw bits of a PCG64 generator, a stream that NumPy guarantees, so that a seed means the same network on
every version of every library.
"""

import itertools
import math
from collections.abc import Iterator

import numpy as np
import torch
from torch import nn

from extract.backbones import BACKBONES, Backbone, BackboneInfo

WIDTHS = (16, 32, 64)
GRID = 2  # cells a side of the level ``grid``, which unlike a mean over space tells where something is


class _Tiny(Backbone):
    """Three convolutions with ReLU, each halving the resolution."""

    def initialise(self, seed: int) -> None:
        """Draw every weight uniformly with the variance 2 / fan-in of He et al. 2015; biases are zero."""
        generator = np.random.PCG64(seed)
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.zeros_(parameter)
                continue
            bound = math.sqrt(6 / math.prod(parameter.shape[1:]))
            bits = np.asarray(generator.random_raw(parameter.numel()), dtype=np.uint64) >> np.uint64(40)
            uniform = bits.astype(np.float64) / 2**23 - 1
            with torch.no_grad():
                parameter.copy_(torch.from_numpy((bound * uniform).astype(np.float32)).view_as(parameter))


@BACKBONES.register("tiny")
class Tiny(_Tiny):
    """Frame-wise; [B, 3, H, W] of any size from 8 pixels. ``grid`` is block3 averaged over each quarter of the image."""

    def __init__(self) -> None:
        super().__init__()
        dims = {f"block{number}": width for number, width in enumerate(WIDTHS, start=1)}
        aliases = {"low": "block1", "mid": "block2", "high": "block3"}
        grid = {"grid": WIDTHS[-1] * GRID * GRID}
        self.info = BackboneInfo("tiny", {**dims, **grid}, "block3", aliases, tuple(dims), resize=(64,), size=56)
        widths = (3, *WIDTHS)
        self.convolutions = nn.ModuleList(nn.Conv2d(before, after, 3, stride=2, padding=1) for before, after in itertools.pairwise(widths))

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each convolution, [B, D, h, w], then block3's means over a grid of cells, [B, 64 * 4]."""
        x = frames
        for number, convolution in enumerate(self.convolutions, start=1):
            x = convolution(x).relu()
            yield f"block{number}", x
        yield "grid", nn.functional.adaptive_avg_pool2d(x.float(), GRID).flatten(1)


@BACKBONES.register("tiny3d")
class Tiny3d(_Tiny):
    """Clip-wise; [B, 3, 8, H, W]. Its second and third convolutions also look one frame back and ahead."""

    def __init__(self) -> None:
        super().__init__()
        dims = {f"block{number}": width for number, width in enumerate(WIDTHS, start=1)}
        self.info = BackboneInfo("tiny3d", dims, maps=tuple(dims), clip_length=8, resize=(64,), size=56)
        widths = (3, *WIDTHS)
        self.convolutions = nn.ModuleList(
            nn.Conv3d(before, after, (span, 3, 3), stride=(1, 2, 2), padding=(span // 2, 1, 1))
            for (before, after), span in zip(itertools.pairwise(widths), (1, 3, 3), strict=True)
        )

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each convolution, [B, D, t, h, w]."""
        x = frames
        for number, convolution in enumerate(self.convolutions, start=1):
            x = convolution(x).relu()
            yield f"block{number}", x
