"""ResNet-50 of temporal segment networks (Wang et al. 2016) as mmaction2 trains and publishes it.

The network is torchvision's; a published file names its layers ``backbone.layer1.0.conv1.conv``, ``backbone.layer1.0.conv1.bn``, ... and
its classifier ``cls_head.fc_cls``. Flow is five (x, y) pairs as bytes of dense_flow, (b - 128) / 128.
"""

import re
from collections.abc import Mapping
from functools import partial

import torch
from torch import nn

from extract.backbones import BACKBONES, BackboneInfo, Published
from extract.backbones.classifier import take_classes
from extract.backbones.cross_modality import State, refuse_rgb
from extract.backbones.resnet import ResNet

PAIRS = 5
RENAMED = (
    (re.compile(r"^backbone\."), ""),
    (re.compile(r"^cls_head\.fc_cls\."), "fc."),
    (re.compile(r"\bdownsample\.conv\."), "downsample.0."),
    (re.compile(r"\bdownsample\.bn\."), "downsample.1."),
    (re.compile(r"\bconv(\d)\.conv\."), r"conv\1."),
    (re.compile(r"\bconv(\d)\.bn\."), r"bn\1."),
)
"""From mmaction2's names to torchvision's, in this order."""

MMACTION, LICENCE = "https://download.openmmlab.com/mmaction/", "Apache-2.0 (mmaction2)"


def _published(path: str, about: str) -> Published:
    return Published(f"{MMACTION}{path}.pth", licence=LICENCE, about=f"mmaction2, {about}")


PUBLISHED = {
    "rgb": {
        "kinetics400": _published(
            "recognition/tsn/tsn_r50_320p_1x1x8_100e_kinetics400_rgb/tsn_r50_320p_1x1x8_100e_kinetics400_rgb_20200702-ef80e3d7",
            "Kinetics-400, 8 segments, short side 320; top-1 72.41, top-5 90.55",
        ),
        "kinetics400_340x256": _published(
            "recognition/tsn/tsn_r50_1x1x3_100e_kinetics400_rgb/tsn_r50_1x1x3_100e_kinetics400_rgb_20200614-e508be42",
            "Kinetics-400, 3 segments, 340x256; top-1 70.60, top-5 89.26 (25 frames, 10 crops)",
        ),
        "kinetics400_v1": _published(
            "v1.0/recognition/tsn/tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb/"
            "tsn_imagenet-pretrained-r50_8xb32-1x1x8-100e_kinetics400-rgb_20220906-2692d16c",
            "Kinetics-400, 8 segments; top-1 74.12, top-5 91.34",
        ),
        "ucf101": _published(
            "recognition/tsn/tsn_r50_1x1x3_75e_ucf101_rgb/tsn_r50_1x1x3_75e_ucf101_rgb_20201023-d85ab600",
            "UCF-101 split 1 from ImageNet; top-1 83.03, top-5 96.78",
        ),
        "hmdb51": _published(
            "recognition/tsn/tsn_r50_1x1x8_50e_hmdb51_kinetics400_rgb/tsn_r50_1x1x8_50e_hmdb51_kinetics400_rgb_20201123-7f84701b",
            "HMDB-51 from Kinetics-400; top-1 56.08, top-5 84.31",
        ),
    },
    "flow": {
        "kinetics400": _published(
            "recognition/tsn/tsn_r50_320p_1x1x8_110e_kinetics400_flow/tsn_r50_320p_1x1x8_110e_kinetics400_flow_20200705-1f39486b",
            "Kinetics-400 flow, 8 segments, short side 320; top-1 57.76, top-5 80.99",
        ),
        "kinetics400_3segments": _published(
            "recognition/tsn/tsn_r50_320p_1x1x3_110e_kinetics400_flow/tsn_r50_320p_1x1x3_110e_kinetics400_flow_20200705-3036bab6",
            "Kinetics-400 flow, 3 segments, short side 320; top-1 55.70, top-5 79.85",
        ),
    },
}


class TsnResNet50(ResNet):
    """ResNet-50 of one modality; ``logits`` are the scores of as many classes as the file has, 400 of Kinetics unless it says otherwise."""

    first_layer = "conv1.weight"

    def __init__(self, modality: str, classes: int = 400) -> None:
        super().__init__(50, classes)
        flow = modality == "flow"
        plain = self.info
        self.info = BackboneInfo(
            f"tsn_resnet50_{modality}",
            plain.dims,
            plain.default_level,
            plain.aliases,
            plain.maps,
            channels=2 * PAIRS if flow else 3,
            antialias=False,  # OpenCV resized the frames
            mean=(128.0,) if flow else (123.675, 116.28, 103.53),
            std=(128.0,) if flow else (58.395, 57.12, 57.375),
            value_range=(0.0, 255.0),
            modality="flow" if flow else "rgb",
            quantise="dense_flow" if flow else "",
            flow_method="tvl1" if flow else "",
            published=PUBLISHED[modality],
        )
        if flow:
            self.conv1 = nn.Conv2d(2 * PAIRS, 64, 7, 2, 3, bias=False)
            nn.init.kaiming_normal_(self.conv1.weight, mode="fan_out", nonlinearity="relu")

    def rename(self, state: Mapping[str, torch.Tensor]) -> State:
        """mmaction2's names, with or without the recogniser's prefixes, in torchvision's; torchvision's own stay as they are."""
        return {rename(key): value for key, value in state.items()}

    def convert(self, state: Mapping[str, torch.Tensor]) -> State:
        """Rename; the number of classes is the file's. Weights of RGB are refused for flow, see ``extract.backbones.cross_modality``."""
        renamed = self.rename(state)
        refuse_rgb(self.info, renamed, self.first_layer)
        take_classes(self, renamed, "fc")
        return renamed


def rename(key: str) -> str:
    """One of mmaction2's names in torchvision's naming: ``backbone.layer1.0.conv2.bn.bias`` -> ``layer1.0.bn2.bias``."""
    for pattern, replacement in RENAMED:
        key = pattern.sub(replacement, key)
    return key


for _modality in ("rgb", "flow"):
    BACKBONES.register(f"tsn_resnet50_{_modality}")(partial(TsnResNet50, _modality))
