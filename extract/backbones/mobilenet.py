"""MobileNetV2 (Sandler et al. 2018) as torchvision has it: 1280 features at a tenth of ResNet-34's cost."""

from collections.abc import Iterator

import torch
import torchvision
from torch import nn

from extract.backbones import BACKBONES, Backbone, BackboneInfo
from extract.published import from_torchvision

BLOCK_ENDS = {1: 16, 3: 24, 6: 32, 10: 64, 13: 96, 16: 160, 17: 320}  # last layer of each row of the paper's table 2 -> its width


@BACKBONES.register("mobilenet_v2")
class MobileNetV2(Backbone):
    """MobileNetV2 with torchvision's parameter names. ``logits`` are the scores of ``classes`` classes before the softmax."""

    level_keys = {"logits": ("classifier.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, classes: int = 1000) -> None:
        super().__init__()
        network = torchvision.models.mobilenet_v2(weights=None, num_classes=classes)
        dims = {f"block{number}": width for number, width in enumerate(BLOCK_ENDS.values(), start=1)}
        published = from_torchvision("mobilenet_v2")
        maps = (*dims, "features")
        self.info = BackboneInfo("mobilenet_v2", {**dims, "features": 1280, "logits": classes}, "features", maps=maps, published=published)
        self.features: nn.Sequential = network.features
        self.classifier: nn.Module = network.classifier

    def initialise(self, seed: int) -> None:
        """He initialisation by fan-in. torchvision's, by fan-out, shrinks a depthwise layer's output by the root of its channel count, so
        that the features of an untrained network would be 1e-9: zero, once stored as float16.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", generator=generator)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each group of bottlenecks, [B, D, h, w], then the features [B, 1280, h, w] and the class scores."""
        x, block = frames, 0
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in BLOCK_ENDS:
                block += 1
                yield f"block{block}", x
        yield "features", x
        yield "logits", self.classifier(x.mean((2, 3)))
