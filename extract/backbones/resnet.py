"""ResNets (He et al. 2016) as torchvision has them; a level for the stem and one for each group of residual blocks.

PAPERS: Iqbal et al. 2017 use ResNet-50 after blocks 2, 3 and 4 (512, 1024, 2048 wide); Zheng et al. 2017 call the same places of
ResNet-34 low, mid and high (128, 256, 512 wide). The stem's maps (convolution and max-pooling, 64 channels) enter block 1.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torchvision
from torch import nn

from extract.backbones import BACKBONES, Backbone, BackboneInfo
from extract.published import from_torchvision

ALIASES = {"low": "block2", "mid": "block3", "high": "block4"}
STEM_WIDTH = 64
FIRST_WIDTHS = {18: 64, 34: 64, 50: 256, 101: 256}  # of block1; each later block doubles it


class ResNet(Backbone):
    """ResNet of a given depth with torchvision's parameter names. ``logits`` are the scores of ``classes`` classes before the softmax."""

    conv1: nn.Module
    bn1: nn.Module
    relu: nn.Module
    maxpool: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    avgpool: nn.Module
    fc: nn.Module

    level_keys = {"logits": ("fc.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, depth: int, classes: int = 1000) -> None:
        super().__init__()
        name = f"resnet{depth}"
        dims = {"stem": STEM_WIDTH} | {f"block{block}": FIRST_WIDTHS[depth] << (block - 1) for block in (1, 2, 3, 4)}
        published = from_torchvision(name)
        self.info = BackboneInfo(name, {**dims, "logits": classes}, "block4", ALIASES, tuple(dims), published=published)
        for child, module in torchvision.models.get_model(name, weights=None, num_classes=classes).named_children():
            self.add_module(child, module)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of the stem and of each group of blocks, [B, D, h, w], then the class scores [B, classes]."""
        x = self.maxpool(self.relu(self.bn1(self.conv1(frames))))
        yield "stem", x
        for number, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            x = layer(x)
            yield f"block{number}", x
        yield "logits", self.fc(self.avgpool(x).flatten(1))


for _depth in FIRST_WIDTHS:
    BACKBONES.register(f"resnet{_depth}")(partial(ResNet, _depth))
