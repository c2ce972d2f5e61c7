"""BN-Inception (Ioffe and Szegedy 2015) as temporal segment networks use it (Wang et al. 2016), with tsn-pytorch's parameter names.

The network is Caffe's: biases in every convolution, pooling whose output size is rounded up, averages that count the zeros of the padding,
BGR frames in 0..255 minus 104, 117, 123. (tsn-pytorch's own training subtracts 128 from red; the published files come from Caffe models,
which subtract 123.) Flow is five (x, y) pairs as bytes of dense_flow minus 128.
"""

from collections.abc import Iterator, Mapping
from functools import partial
from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo, Published
from extract.backbones.classifier import take_classes
from extract.backbones.cross_modality import State, refuse_rgb
from store.errors import SpecError


class Inception(NamedTuple):
    """Widths of one inception module; 0: the branch has no such convolution. ``stride`` 2 halves the map and passes the input on pooled."""

    single: int  # 1x1
    reduce: int  # 1x1 before 3x3
    middle: int  # 3x3
    double_reduce: int  # 1x1 before the two 3x3
    double: int  # each of the two 3x3
    projection: int  # 1x1 after the pooling
    pool: str = "average"
    stride: int = 1

    @property
    def width(self) -> int:
        """Channels of the branches that do not pass the input on."""
        return self.single + self.middle + self.double + self.projection


MODULES = {
    "inception_3a": Inception(64, 64, 64, 64, 96, 32),
    "inception_3b": Inception(64, 64, 96, 64, 96, 64),
    "inception_3c": Inception(0, 128, 160, 64, 96, 0, "max", 2),
    "inception_4a": Inception(224, 64, 96, 96, 128, 128),
    "inception_4b": Inception(192, 96, 128, 96, 128, 128),
    "inception_4c": Inception(160, 128, 160, 128, 160, 128),
    "inception_4d": Inception(96, 128, 192, 160, 192, 128),
    "inception_4e": Inception(0, 128, 192, 192, 256, 0, "max", 2),
    "inception_5a": Inception(352, 192, 320, 160, 224, 128),
    "inception_5b": Inception(352, 192, 320, 192, 224, 128, "max"),
}
STEM = {"conv1_7x7_s2": (64, 7, 2), "conv2_3x3_reduce": (64, 1, 1), "conv2_3x3": (192, 3, 1)}  # name -> width, kernel, stride
LEVELS = {"inception_3c": "inception_3c", "inception_4e": "inception_4e", "inception_5b": "global_pool"}  # module -> level
FEATURES = 1024
MULTIPLE = 32  # sides of the input; others make the pooled and the convolved branches of 3c or 4e differ in size
CLASSIFIERS = ("new_fc.", "last_linear.")  # as tsn-pytorch and pretrainedmodels call what is fc here

TSN, ACTION_DETECTION = "https://yjxiong.blob.core.windows.net/models/", "https://yjxiong.blob.core.windows.net/ssn-models/"
PUBLISHED = {
    "rgb": {
        "kinetics400": Published(
            ACTION_DETECTION + "bninception_rgb_kinetics_init-d4ee618d3399.pth",
            about="authors of TSN and SSN, from their Caffe model trained on Kinetics-400 RGB; no classifier",
        ),
        "imagenet": Published(TSN + "bn_inception-9f5701afb96c8044.pth", about="authors of TSN, from the Caffe model of ImageNet"),
        "imagenet_cadene": Published(
            "http://data.lip6.fr/cadene/pretrainedmodels/bn_inception-52deb4733.pth",
            licence="BSD-3-Clause (pretrained-models.pytorch)",
            about="the same ImageNet weights, converted by R. Cadene",
        ),
    },
    "flow": {
        "kinetics400": Published(
            ACTION_DETECTION + "bninception_flow_kinetics_init-1410c1ccb470.pth",
            about="authors of TSN and SSN, from their Caffe model trained on Kinetics-400 TV-L1 flow; no classifier",
        ),
    },
}


class BnInception(Backbone):
    """BN-Inception of one modality; ``logits`` are the scores of as many classes as the file has, 1000 in ImageNet's.

    ``global_pool`` is what temporal segment networks call the feature of a frame. Sides of frames must be multiples of 32.
    """

    level_keys = {"logits": ("fc.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone
    first_layer = "conv1_7x7_s2.weight"
    fc: nn.Module

    def __init__(self, modality: str, classes: int = 1000) -> None:
        super().__init__()
        flow = modality == "flow"
        dims = {"inception_3c": 576, "inception_4e": 1056, "global_pool": FEATURES, "logits": classes}
        self.info = BackboneInfo(
            f"tsn_bninception_{modality}",
            dims,
            "global_pool",
            {"inception_5b": "global_pool"},
            ("inception_3c", "inception_4e", "global_pool"),
            channels=10 if flow else 3,
            resize=(340, 256),
            antialias=False,  # OpenCV resized the frames
            mean=(128.0,) if flow else (104.0, 117.0, 123.0),
            std=(1.0,),
            value_range=(0.0, 255.0),
            channel_order="rgb" if flow else "bgr",
            modality="flow" if flow else "rgb",
            quantise="dense_flow" if flow else "",
            flow_method="tvl1" if flow else "",
            published=PUBLISHED[modality],
        )
        width = self.info.channels
        for name, (out, kernel, stride) in STEM.items():
            self._add(name, width, out, kernel, stride)
            width = out
        for name, part in MODULES.items():
            width = self._add_inception(name, part, width)
        self.fc = nn.Linear(FEATURES, classes)

    def _add_inception(self, name: str, part: Inception, width: int) -> int:
        if part.single:
            self._add(f"{name}_1x1", width, part.single)
        self._add(f"{name}_3x3_reduce", width, part.reduce)
        self._add(f"{name}_3x3", part.reduce, part.middle, 3, part.stride)
        self._add(f"{name}_double_3x3_reduce", width, part.double_reduce)
        self._add(f"{name}_double_3x3_1", part.double_reduce, part.double, 3)
        self._add(f"{name}_double_3x3_2", part.double, part.double, 3, part.stride)
        if part.projection:
            self._add(f"{name}_pool_proj", width, part.projection)
        return part.width + (0 if part.projection else width)

    def _add(self, name: str, width: int, out: int, kernel: int = 1, stride: int = 1) -> None:
        self.add_module(name, nn.Conv2d(width, out, kernel, stride, kernel // 2))
        self.add_module(f"{name}_bn", nn.BatchNorm2d(out))

    def initialise(self, seed: int) -> None:
        """He initialisation by fan-in; torch's own shrinks the signal in every layer, so that features of 70 layers would be zero."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, generator=generator)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of modules 3c, 4e and 5b, [B, D, h, w], then the class scores [B, classes]."""
        height, width = frames.shape[-2:]
        if height % MULTIPLE or width % MULTIPLE:
            raise SpecError(
                f"{self.info.name} takes frames whose sides are multiples of {MULTIPLE}, not {height}x{width}; "
                f"set --crops.size {self.info.size}"
            )
        x = caffe_max_pool(self._convolve("conv1_7x7_s2", frames))
        x = caffe_max_pool(self._convolve("conv2_3x3", self._convolve("conv2_3x3_reduce", x)))
        for name, part in MODULES.items():
            x = self._inception(name, part, x)
            if name in LEVELS:
                yield LEVELS[name], x
        yield "logits", self.fc(x.mean((2, 3)))

    def _convolve(self, name: str, x: torch.Tensor) -> torch.Tensor:
        return functional.relu(getattr(self, f"{name}_bn")(getattr(self, name)(x)), inplace=True)

    def _inception(self, name: str, part: Inception, x: torch.Tensor) -> torch.Tensor:
        branches = [self._convolve(f"{name}_1x1", x)] if part.single else []
        branches.append(self._convolve(f"{name}_3x3", self._convolve(f"{name}_3x3_reduce", x)))
        double = self._convolve(f"{name}_double_3x3_1", self._convolve(f"{name}_double_3x3_reduce", x))
        branches.append(self._convolve(f"{name}_double_3x3_2", double))
        if part.stride == 2:
            return torch.cat([*branches, caffe_max_pool(x)], 1)
        pool = functional.avg_pool2d if part.pool == "average" else functional.max_pool2d  # the average counts the padding, as Caffe
        pooled = pool(x, 3, 1, 1)
        return torch.cat([*branches, self._convolve(f"{name}_pool_proj", pooled)], 1)

    def rename(self, state: Mapping[str, torch.Tensor]) -> State:
        """Keys of tsn-pytorch (``base_model.``, ``new_fc.``) and pretrainedmodels (``last_linear.``) in this module's naming.

        Files of torch before 0.4 hold batch normalisation as [1, D], which becomes [D].
        """
        renamed = {}
        for key, value in state.items():
            name = key.removeprefix("base_model.")
            for classifier in CLASSIFIERS:
                name = name.replace(classifier, "fc.", 1) if name.startswith(classifier) else name
            renamed[name] = value.squeeze(0) if "_bn." in name and value.dim() == 2 else value
        return renamed

    def convert(self, state: Mapping[str, torch.Tensor]) -> State:
        """Rename; the number of classes is the file's. Weights of RGB are refused for flow, see ``extract.backbones.cross_modality``."""
        renamed = self.rename(state)
        refuse_rgb(self.info, renamed, self.first_layer)
        take_classes(self, renamed, "fc")
        return renamed


def caffe_max_pool(x: torch.Tensor) -> torch.Tensor:
    """Largest of 3 x 3 at stride 2, [B, C, h, w] -> [B, C, ceil((h - 1) / 2), ...]: as Caffe, the last window may reach over the end."""
    return functional.max_pool2d(x, 3, 2, ceil_mode=True)


for _modality in ("rgb", "flow"):
    BACKBONES.register(f"tsn_bninception_{_modality}")(partial(BnInception, _modality))
