"""Clip-wise networks as torchvision has them, trained on Kinetics-400: R3D, MC3, R(2+1)D, MViT and Video Swin; S3D is in ``s3d``.

Du Tran et al. 2018 (arXiv 1711.11248), Fan et al. 2021 (2104.11227), Li et al. 2022 (2112.01526), Liu et al. 2022 (2106.13230). Parameter
names and preprocessing are torchvision's; unlike its networks for images, these were trained on frames resized without antialiasing.
"""

from collections.abc import Iterator
from functools import partial

import torch
import torchvision
from torch import nn

from extract.backbones import BACKBONES, Backbone, BackboneInfo
from extract.published import from_torchvision

KINETICS_MEAN, KINETICS_STD = (0.43216, 0.394666, 0.37645), (0.22803, 0.22145, 0.216989)
SWIN_WIDTHS = {"swin3d_t": 96, "swin3d_s": 96, "swin3d_b": 128}  # of block1; each later block doubles it
MVIT_WIDTHS = {"mvit_v1_b": (192, 384, 768, 768), "mvit_v2_s": (96, 192, 384, 768)}


class _Torchvision(Backbone):
    """Takes over the layers of torchvision's network, so that its parameters carry torchvision's names."""

    def adopt(self, network: nn.Module) -> None:
        """Make ``network``'s layers this module's own."""
        for child, module in network.named_children():
            self.add_module(child, module)


class VideoResNet(_Torchvision):
    """18 layers over [B, 3, T, H, W]; ``block4`` is what the classifier sees, also called ``features``. ``logits`` are class scores."""

    stem: nn.Module
    layer1: nn.Module
    layer2: nn.Module
    layer3: nn.Module
    layer4: nn.Module
    avgpool: nn.Module
    fc: nn.Module

    level_keys = {"logits": ("fc.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, name: str, classes: int = 400) -> None:
        super().__init__()
        blocks = {f"block{number}": 32 << number for number in (1, 2, 3, 4)}
        self.info = BackboneInfo(
            name,
            {**blocks, "logits": classes},
            "block4",
            {"features": "block4"},
            tuple(blocks),
            clip_length=16,
            shortest_clip=1,
            resize=(171, 128),
            size=112,
            antialias=False,
            fps=15.0,
            mean=KINETICS_MEAN,
            std=KINETICS_STD,
            published=from_torchvision(name),
        )
        self.adopt(torchvision.models.get_model(name, weights=None, num_classes=classes))

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each group of blocks, [B, D, t, h, w], then the class scores [B, classes]."""
        x = self.stem(frames)
        for number, layer in enumerate((self.layer1, self.layer2, self.layer3, self.layer4), start=1):
            x = layer(x)
            yield f"block{number}", x
        yield "logits", self.fc(self.avgpool(x).flatten(1))


class MViT(_Torchvision):
    """Multiscale vision transformer; its tables of positions take 16 frames of 224 x 224 and nothing else.

    ``block1`` to ``block4`` are the outputs at each resolution, without the class token; ``features`` is the class token after the last
    normalisation, which the classifier sees.
    """

    conv_proj: nn.Module
    pos_encoding: nn.Module
    blocks: nn.ModuleList
    norm: nn.Module
    head: nn.Module

    level_keys = {"logits": ("head.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, name: str, classes: int = 400) -> None:
        super().__init__()
        blocks = {f"block{number}": width for number, width in enumerate(MVIT_WIDTHS[name], start=1)}
        self.info = BackboneInfo(
            name,
            {**blocks, "features": 768, "logits": classes},
            "features",
            maps=tuple(blocks),
            clip_length=16,
            fixed_size=True,
            antialias=False,
            fps=7.5,
            mean=(0.45, 0.45, 0.45),
            std=(0.225, 0.225, 0.225),
            published=from_torchvision(name),
        )
        self.adopt(torchvision.models.get_model(name, weights=None, num_classes=classes))

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output at each resolution, [B, D, t, h, w], then the class token [B, 768] and the class scores."""
        x = self.conv_proj(frames)
        shape: tuple[int, ...] = tuple(x.shape[2:])
        x, block = self.pos_encoding(x.flatten(2).transpose(1, 2)), 0
        for number, layer in enumerate(self.blocks):
            x, shape = layer(x, shape)
            if number + 1 == len(self.blocks) or self.blocks[number + 1].pool_skip is not None:
                block += 1
                yield f"block{block}", x[:, 1:].transpose(1, 2).unflatten(2, shape).contiguous()
        token = self.norm(x)[:, 0]
        yield "features", token
        yield "logits", self.head(token)


class SwinTransformer3d(_Torchvision):
    """Video Swin transformer over [B, 3, T, H, W] of any length and size.

    ``features`` is the last block's output after normalisation, whose mean the classifier sees.
    """

    patch_embed: nn.Module
    features: nn.Sequential
    norm: nn.Module
    head: nn.Module

    level_keys = {"logits": ("head.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, name: str, classes: int = 400) -> None:
        super().__init__()
        blocks = {f"block{number}": SWIN_WIDTHS[name] << (number - 1) for number in (1, 2, 3, 4)}
        self.info = BackboneInfo(
            name,
            {**blocks, "features": blocks["block4"], "logits": classes},
            "features",
            maps=(*blocks, "features"),
            clip_length=32,
            shortest_clip=1,
            antialias=False,
            fps=15.0,
            published=from_torchvision(name),
        )
        self.adopt(torchvision.models.get_model(name, weights=None, num_classes=classes))

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each block's output and the normalised one, [B, D, t, h, w], then the class scores [B, classes]."""
        x = self.patch_embed(frames)
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number % 2 == 0:  # between the blocks are the layers that merge patches
                yield f"block{number // 2 + 1}", x.movedim(-1, 1).contiguous()
        x = self.norm(x).movedim(-1, 1).contiguous()
        yield "features", x
        yield "logits", self.head(x.mean((2, 3, 4)))


for _name in ("r3d_18", "mc3_18", "r2plus1d_18"):
    BACKBONES.register(_name)(partial(VideoResNet, _name))
for _name in MVIT_WIDTHS:
    BACKBONES.register(_name)(partial(MViT, _name))
for _name in SWIN_WIDTHS:
    BACKBONES.register(_name)(partial(SwinTransformer3d, _name))
