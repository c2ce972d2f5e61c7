"""Spatiotemporal residual networks, ST-ResNet (Feichtenhofer et al. 2016), on two torchvision ResNet-50s: appearance and motion.

The paper's additions to the two streams, for the second unit of each of conv2_x to conv5_x (``layer1`` to ``layer4``):

- Motion residual, its equation 2: x^a_{l+1} = f(x^a_l) + F(x^a_l + f(x^m_l)), f = ReLU, F the unit's three convolutions. x are the sums
  before their ReLU, as the f on the shortcut says and as the authors' program computes it: the branch sees what of x^a is negative. (With
  x after the ReLU the equation would read x^a + F(x^a + x^m).) One way only; the next unit takes f(x^a_{l+1}), as in any ResNet.
- Temporal convolutions, its equation 5: the unit's 1x1 reduction and expansion, in both streams, become 1x1x3 in time. Built from a 2D
  network, each tap is w / 3. At the ends of a clip the first and the last chunk are repeated, not zero: so a still video passes unchanged
  at every chunk, which is what the paper divides by T' for. (The authors' program pads with zeros.)
- ST-ResNet*: the largest of 5 neighbouring chunks at stride 2, after the average pooling (pool5) and before the classifier, per place.

Everything is convolutional: pool5 averages 7x7 windows at stride 1, and the classifiers' scores are averaged over all places, chunks and
both streams, without softmax. So frames of any size from 32 pixels and clips of any length are taken; a map smaller than 7x7 is averaged
whole.
"""

from collections.abc import Iterator, Mapping
from functools import partial

import torch
import torchvision
from torch import nn
from torch.nn import functional
from torchvision.models.resnet import Bottleneck

from extract.backbones import BACKBONES, Backbone, BackboneInfo, Published
from extract.backbones.classifier import take_classes
from extract.backbones.cross_modality import RGB_CHANNELS, State, cross_modality
from extract.published import from_torchvision
from store.errors import SpecError

TAPS = 3  # T', chunks that a temporal convolution sees
FLOWS = 10  # L, pairs of x and y in the motion stream
POOLED = 5  # chunks of one window of ST-ResNet*; their stride is 2
PLACE = 7  # side of pool5's window
FEATURES = 2048
STREAMS = ("appearance", "motion")
BLOCKS = {"block1": 256, "block2": 512, "block3": 1024, "block4": 2048}
FLOW_MEAN, FLOW_STD = 128 / 255, 0.226  # no motion, byte 128, is 0; the deviation is the mean of the three of RGB, as tsn-pytorch's
TEMPORAL = tuple(f"layer{number}.1.conv{place}.weight" for number in (1, 2, 3, 4) for place in (1, 3))


class TemporalConvolution(nn.Module):
    """1x1 in space, 3 in time, without bias: y[t] = w_0 x[t-1] + w_1 x[t] + w_2 x[t+1], the first and last chunk repeated at the ends.

    ``weight`` [D, C, 3, 1, 1]; drawn, or made from a 1x1 convolution, as three times w / 3.
    """

    def __init__(self, convolution: nn.Conv2d) -> None:
        super().__init__()
        self.weight = nn.Parameter(inflated(convolution.weight.detach()))

    def forward(self, x: torch.Tensor, chunks: int) -> torch.Tensor:
        """[B * T, C, h, w] of clips of T = ``chunks`` -> [B * T, D, h, w]: the three taps side by side as channels of one convolution."""
        clips = x.unflatten(0, (-1, chunks))
        before = torch.cat([clips[:, :1], clips[:, :-1]], 1)
        after = torch.cat([clips[:, 1:], clips[:, -1:]], 1)
        weight = self.weight.flatten(2).transpose(1, 2).flatten(1)[..., None, None]  # [D, 3 * C, 1, 1]
        return functional.conv2d(torch.cat([before, clips, after], 2).flatten(0, 1), weight)


def inflated(weight: torch.Tensor) -> torch.Tensor:
    """Filters of a 1x1 convolution [D, C, 1, 1] -> [D, C, 3, 1, 1], each tap w / 3 (equation 5)."""
    return (weight[:, :, None] / TAPS).repeat(1, 1, TAPS, 1, 1)


class Stream(nn.Module):
    """torchvision's ResNet-50 without its classifier, its parameter names kept; the second unit of each stage looks ahead and back."""

    conv1: nn.Module
    bn1: nn.Module
    maxpool: nn.Module

    def __init__(self, channels: int) -> None:
        super().__init__()
        for child, module in torchvision.models.resnet50(weights=None).named_children():
            if child not in ("fc", "avgpool", "relu"):
                self.add_module(child, module)
        if channels != RGB_CHANNELS:
            self.conv1 = nn.Conv2d(channels, 64, 7, 2, 3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")
        for number in (1, 2, 3, 4):
            unit = self.units(number)[1]
            for name in ("conv1", "conv3"):
                setattr(unit, name, TemporalConvolution(getattr(unit, name)))

    def units(self, number: int) -> list[Bottleneck]:
        """The residual units of stage ``number``, 1 to 4."""
        return list(getattr(self, f"layer{number}"))

    def stem(self, x: torch.Tensor) -> torch.Tensor:
        """conv1 and pool1: [B * T, C, H, W] -> [B * T, 64, H / 4, W / 4]."""
        pooled: torch.Tensor = self.maxpool(self.bn1(self.conv1(x)).relu())
        return pooled


def residual(unit: Bottleneck, x: torch.Tensor, chunks: int) -> torch.Tensor:
    """F(x): the three convolutions of a unit, each with its normalisation and, but for the last, its ReLU."""
    x = unit.bn1(_convolve(unit.conv1, x, chunks)).relu()
    x = unit.bn2(_convolve(unit.conv2, x, chunks)).relu()
    normalised: torch.Tensor = unit.bn3(_convolve(unit.conv3, x, chunks))
    return normalised


def _convolve(convolution: nn.Module, x: torch.Tensor, chunks: int) -> torch.Tensor:
    output: torch.Tensor = convolution(x, chunks) if isinstance(convolution, TemporalConvolution) else convolution(x)
    return output


def summed(unit: Bottleneck, x: torch.Tensor, chunks: int) -> torch.Tensor:
    """Output of a plain unit before its last ReLU: x + F(x), x projected where the unit does so."""
    shortcut = x if unit.downsample is None else unit.downsample(x)
    return shortcut + residual(unit, x, chunks)


class StResNet50(Backbone):
    """ST-ResNet or, with ``pooled``, ST-ResNet*; [B, 3 + 20, T, H, W]: RGB of a chunk, then the x and y of its ten flows.

    Levels: ``appearance_block1`` ... ``motion_block4`` are the stages of the two streams, ``appearance`` and ``motion`` what the two
    classifiers see, ``logits`` the mean of their scores. Without ``motion_residuals`` the streams do not touch.
    """

    level_keys = {"logits": ("appearance_fc.", "motion_fc.")}  # noqa: RUF012 - declared as a ClassVar in Backbone
    appearance_fc: nn.Module
    motion_fc: nn.Module

    def __init__(self, pooled: bool, motion_residuals: bool = True, classes: int = 1000) -> None:
        super().__init__()
        self.pooled, self.motion_residuals = pooled, motion_residuals
        maps = (*(f"{stream}_{block}" for block in BLOCKS for stream in STREAMS), *STREAMS)
        dims = {f"{stream}_{block}": width for block, width in BLOCKS.items() for stream in STREAMS}
        rgb_mean, rgb_std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
        self.info = BackboneInfo(
            "st_resnet50_star" if pooled else "st_resnet50",
            {**dims, **dict.fromkeys(STREAMS, FEATURES), "logits": classes},
            "appearance",
            maps=maps,
            clip_length=11 if pooled else 5,
            shortest_clip=POOLED if pooled else 1,
            channels=RGB_CHANNELS + 2 * FLOWS,
            mean=(*rgb_mean, *[FLOW_MEAN] * (2 * FLOWS)),
            std=(*rgb_std, *[FLOW_STD] * (2 * FLOWS)),
            modality="rgb+flow",
            quantise="dense_flow",
            flow_method="tvl1",
            published=_starts(),
        )
        self.appearance, self.motion = Stream(RGB_CHANNELS), Stream(2 * FLOWS)
        self.appearance_fc, self.motion_fc = nn.Linear(FEATURES, classes), nn.Linear(FEATURES, classes)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each stage of both streams, [B, D, T, h, w], what the classifiers see, [B, 2048, T', h', w'], the scores [B, classes]."""
        chunks = frames.shape[2]
        if chunks < self.info.shortest_clip:
            raise SpecError(f"{self.info.name} takes clips of at least {self.info.shortest_clip} frames, not {chunks}; set --clips.length")
        images = frames.transpose(1, 2).flatten(0, 1)
        appearance, motion = self.appearance.stem(images[:, :RGB_CHANNELS]), self.motion.stem(images[:, RGB_CHANNELS:])
        for number, block in enumerate(BLOCKS, start=1):
            appearance, motion = self._stage(number, appearance, motion, chunks)
            yield f"appearance_{block}", in_time(appearance, chunks)
            yield f"motion_{block}", in_time(motion, chunks)
        seen = [self._pool(stream, chunks) for stream in (appearance, motion)]
        yield from zip(STREAMS, seen, strict=True)
        first, second = (each.mean((2, 3, 4)) for each in seen)  # the classifiers are linear: their mean over places is that of the mean
        yield "logits", (self.appearance_fc(first) + self.motion_fc(second)) / 2

    def _stage(self, number: int, appearance: torch.Tensor, motion: torch.Tensor, chunks: int) -> tuple[torch.Tensor, torch.Tensor]:
        ours, theirs = self.appearance.units(number), self.motion.units(number)
        x_a, x_m = summed(ours[0], appearance, chunks), summed(theirs[0], motion, chunks)
        branch = x_a + x_m.relu() if self.motion_residuals else x_a.relu()
        appearance = (x_a.relu() + residual(ours[1], branch, chunks)).relu()
        motion = summed(theirs[1], x_m.relu(), chunks).relu()
        for unit_a, unit_m in zip(ours[2:], theirs[2:], strict=True):
            appearance, motion = summed(unit_a, appearance, chunks).relu(), summed(unit_m, motion, chunks).relu()
        return appearance, motion

    def _pool(self, x: torch.Tensor, chunks: int) -> torch.Tensor:
        height, width = x.shape[-2:]
        places = in_time(functional.avg_pool2d(x, (min(PLACE, height), min(PLACE, width)), 1), chunks)
        return functional.max_pool3d(places, (POOLED, 1, 1), (2, 1, 1)) if self.pooled else places

    def convert(self, state: Mapping[str, torch.Tensor]) -> State:
        """Take this module's own keys, or build both streams from 2D networks.

        A plain ResNet-50 of torchvision's layout becomes both streams, the motion stream's first layer by ``cross_modality``. Two of
        them, with ``appearance.`` and ``motion.`` before their keys, become one stream each. 1x1 filters are spread over time.
        """
        if "conv1.weight" in state:
            motion = cross_modality(state, "conv1.weight", 2 * FLOWS)
            state = {f"{stream}.{key}": value for stream, part in zip(STREAMS, (state, motion), strict=True) for key, value in part.items()}
        converted = {}
        for key, value in state.items():
            stream, _, name = key.partition(".")
            name = f"{stream}_{name}" if name.startswith("fc.") else key
            flat = key.removeprefix(f"{stream}.") in TEMPORAL and value.dim() == 4
            converted[name] = inflated(value.float()) if flat else value
        take_classes(self, converted, "appearance_fc", "motion_fc")
        return converted


def in_time(x: torch.Tensor, chunks: int) -> torch.Tensor:
    """[B * T, C, h, w] of clips of T = ``chunks`` -> [B, C, T, h, w], in memory as it is named."""
    return x.unflatten(0, (-1, chunks)).transpose(1, 2).contiguous()


def _starts() -> dict[str, Published]:
    """Not trained ST-ResNets, which the authors published for MatConvNet only, but what both streams start from."""
    about = "ResNet-50 for both streams to start from, which has seen no video; "
    return {
        name.lower().replace("imagenet1k", "imagenet"): Published(file.url, licence=file.licence, about=about + file.about)
        for name, file in from_torchvision("resnet50").items()
    }


for _name, _pooled in (("st_resnet50", False), ("st_resnet50_star", True)):
    BACKBONES.register(_name)(partial(StResNet50, _pooled))
