"""Inflated ResNet-50 (Carreira and Zisserman 2017; Wang et al. 2018) as mmaction2 trains and publishes it, with torchvision's names.

Every other block's first convolution also looks one frame back and ahead (kernel 3 x 1 x 1). The published weights
were trained on clips of 32 frames, every second frame of a video, with a first kernel of 5 x 7 x 7 that halves time, as the pooling after
it does. A first kernel of 3 frames is mmaction2's default, where neither halves time; the kernel's length is taken from the file.
"""

from collections.abc import Iterator, Mapping

import torch
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo, Published
from extract.backbones.classifier import take_classes
from extract.backbones.tsn_resnet import rename

INFLATED = ((1, 1, 1), (1, 0, 1, 0), (1, 0, 1, 0, 1, 0), (0, 1, 0))  # blocks whose first convolution spans three frames
FIRST_KERNELS = {5: 2, 3: 1}  # frames of the first kernel -> its stride in time, and that of the pooling after it
MMACTION2 = "https://download.openmmlab.com/mmaction/recognition/i3d/"
LICENCE = "Apache-2.0 (mmaction2)"
PUBLISHED = {
    "kinetics400": Published(
        MMACTION2 + "i3d_r50_video_32x2x1_100e_kinetics400_rgb/i3d_r50_video_32x2x1_100e_kinetics400_rgb_20200826-e31c6f52.pth",
        licence=LICENCE,
        about="mmaction2, Kinetics-400, 32 frames, every second one; 28,043,472 parameters; top-1 73.22, top-5 91.11",
    ),
    "kinetics400_dense": Published(
        MMACTION2 + "i3d_r50_dense_32x2x1_100e_kinetics400_rgb/i3d_r50_dense_32x2x1_100e_kinetics400_rgb_20200616-2bbb4361.pth",
        licence=LICENCE,
        about="mmaction2, Kinetics-400, dense sampling; top-1 73.77, top-5 91.35",
    ),
}


class Bottleneck(nn.Module):
    """Residual block of three convolutions, of which the first spans ``span`` frames and the second may halve the resolution."""

    def __init__(self, before: int, width: int, span: int, stride: int) -> None:
        super().__init__()
        after = 4 * width
        self.conv1 = nn.Conv3d(before, width, (span, 1, 1), padding=(span // 2, 0, 0), bias=False)
        self.bn1 = nn.BatchNorm3d(width)
        self.conv2 = nn.Conv3d(width, width, (1, 3, 3), (1, stride, stride), (0, 1, 1), bias=False)
        self.bn2 = nn.BatchNorm3d(width)
        self.conv3 = nn.Conv3d(width, after, 1, bias=False)
        self.bn3 = nn.BatchNorm3d(after)
        self.downsample = None
        if stride != 1 or before != after:
            shortcut = nn.Conv3d(before, after, 1, (1, stride, stride), bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm3d(after))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, before, t, h, w] -> [B, 4 * width, t, h / stride, w / stride]."""
        y = functional.relu(self.bn1(self.conv1(x)), inplace=True)
        y = functional.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.bn3(self.conv3(y))
        return functional.relu(y + (x if self.downsample is None else self.downsample(x)), inplace=True)


@BACKBONES.register("i3d_resnet50")
class I3DResNet50(Backbone):
    """Inflated ResNet-50 over [B, 3, T, H, W], T >= 5. ``block4`` is what the classifier sees, also called ``features``."""

    level_keys = {"logits": ("fc.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone
    conv1: nn.Conv3d
    bn1: nn.Module
    layer1: nn.Module
    fc: nn.Module

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        blocks = {f"block{block}": 256 << (block - 1) for block in (1, 2, 3, 4)}
        self.info = BackboneInfo(
            "i3d_resnet50",
            {**blocks, "logits": classes},
            "block4",
            {"features": "block4"},
            tuple(blocks),
            clip_length=32,
            shortest_clip=5,
            antialias=False,
            fps=15.0,  # every second frame of Kinetics' 30 a second
            mean=(123.675, 116.28, 103.53),
            std=(58.395, 57.12, 57.375),
            value_range=(0.0, 255.0),
            published=PUBLISHED,
        )
        self.conv1, self.bn1 = first_convolution(5), nn.BatchNorm3d(64)
        before = 64
        for number, spans in enumerate(INFLATED, start=1):
            width = 32 << number
            layers: list[nn.Module] = []
            for index, inflated in enumerate(spans):
                layers.append(Bottleneck(before, width, 3 if inflated else 1, 2 if number > 1 and index == 0 else 1))
                before = 4 * width
            self.add_module(f"layer{number}", nn.Sequential(*layers))
        self.fc = nn.Linear(before, classes)

    def initialise(self, seed: int) -> None:
        """He initialisation by fan-in, as for ResNets; torch's own would let the signal fade."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, generator=generator)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each group of blocks, [B, D, t, h, w], then the class scores [B, classes]."""
        x = functional.relu(self.bn1(self.conv1(frames)), inplace=True)
        x = functional.max_pool3d(x, (1, 3, 3), (self.conv1.stride[0], 2, 2), (0, 1, 1))
        for number in range(1, len(INFLATED) + 1):
            x = getattr(self, f"layer{number}")(x)
            yield f"block{number}", x
            if number == 1:
                x = functional.max_pool3d(x, (2, 1, 1))
        yield "logits", self.fc(x.mean((2, 3, 4)))

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """mmaction2's names, with or without the recogniser's prefixes; classes and the length of the first kernel are the file's."""
        renamed = {rename(key): value for key, value in state.items()}
        first = renamed.get("conv1.weight")
        if first is not None and first.dim() == 5 and first.shape[2] in FIRST_KERNELS:
            self.conv1 = first_convolution(first.shape[2], self.conv1.weight.device)
        take_classes(self, renamed, "fc")
        return renamed


def first_convolution(span: int, device: torch.device | None = None) -> nn.Conv3d:
    """The first convolution, over ``span`` frames."""
    return nn.Conv3d(3, 64, (span, 7, 7), (FIRST_KERNELS[span], 2, 2), (span // 2, 3, 3), bias=False, device=device)
