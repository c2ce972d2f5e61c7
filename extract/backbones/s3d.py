"""S3D (Xie et al. 2018, arXiv 1712.04851): separable 3D Inception, for torchvision's weights and for the authors' own."""

import re
from collections.abc import Iterator, Mapping

import torch
import torchvision
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo
from extract.backbones.torchvision_video import KINETICS_MEAN, KINETICS_STD
from extract.published import from_torchvision
from store.errors import WeightsError

S3D_ENDS = {0: 64, 3: 192, 6: 480, 12: 832, 15: 1024}  # last layer of each resolution -> its width


@BACKBONES.register("s3d")
class S3D(Backbone):
    """Separable 3D Inception over [B, 3, T, H, W], T >= 14, of any size from 32 pixels.

    ``features`` are, as in the original, means over pairs of neighbouring places in time and all of space, then over time: so the first
    and the last place count half. ``logits`` are the class scores.
    """

    features: nn.Sequential
    classifier: nn.Module

    level_keys = {"logits": ("classifier.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, classes: int = 400) -> None:
        super().__init__()
        self.info = self.describe(classes)
        network = torchvision.models.get_model("s3d", weights=None, num_classes=classes)
        self.features, self.classifier = network.features, network.classifier

    def describe(self, classes: int) -> BackboneInfo:
        """Preprocessing of torchvision's own weights, trained on clips of 64 frames."""
        return BackboneInfo(
            "s3d",
            {**self.blocks(), "features": 1024, "logits": classes},
            "features",
            maps=tuple(self.blocks()),
            clip_length=64,
            shortest_clip=14,
            resize=(256, 256),
            antialias=False,
            fps=15.0,
            mean=KINETICS_MEAN,
            std=KINETICS_STD,
            published=from_torchvision("s3d"),
        )

    @staticmethod
    def blocks() -> dict[str, int]:
        """Levels before the pooling: name -> width."""
        return {f"block{number}": width for number, width in enumerate(S3D_ENDS.values(), start=1)}

    def initialise(self, seed: int) -> None:
        """He initialisation by fan-in; torch's own lets the signal fade to 1e-6 over so many layers, which float16 stores as zero."""
        generator = torch.Generator().manual_seed(seed)
        for module in self.modules():
            if isinstance(module, nn.Conv3d):
                nn.init.kaiming_normal_(module.weight, mode="fan_in", generator=generator)

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Takes torchvision's layout only: the other known one belongs to weights that were trained on other input."""
        if any(key.startswith("base.") for key in state):
            raise WeightsError(
                "these are S3D weights in the layout of Kyle Min's conversion, which take frames that are not normalised; "
                "use them with --backbone s3d_kylemin"
            )
        return dict(state)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output at each resolution, [B, D, t, h, w], then ``features`` [B, 1024, t - 1, ...] and the class scores."""
        x, block = frames, 0
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in S3D_ENDS:
                block += 1
                yield f"block{block}", x
        pooled = functional.avg_pool3d(x, (2, min(7, x.shape[3]), min(7, x.shape[4])), stride=1)
        yield "features", pooled
        yield "logits", self.classifier(pooled).mean((2, 3, 4))


@BACKBONES.register("s3d_kylemin")
class S3DKyleMin(S3D):
    """S3D for the weights that Kyle Min converted from the authors' (github.com/kylemin/S3D): frames are scaled to 0..1 and no more.

    Resized as video_features does, which distributes these weights.
    """

    def describe(self, classes: int) -> BackboneInfo:
        """Preprocessing of the converted weights."""
        return BackboneInfo(
            "s3d_kylemin",
            {**self.blocks(), "features": 1024, "logits": classes},
            "features",
            maps=tuple(self.blocks()),
            clip_length=64,
            shortest_clip=14,
            resize=(224,),
            antialias=False,
            fps=25.0,
            mean=(0.0,),
            std=(1.0,),
        )

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Kyle Min's names, or torchvision's, to torchvision's."""
        return {_from_kylemin(key) if key.startswith(("base.", "fc.")) else key: value for key, value in state.items()}


KYLEMIN_PARTS = {"conv": "0", "bn": "1", "conv_s": "0.0", "bn_s": "0.1", "conv_t": "1.0", "bn_t": "1.1"}


def _from_kylemin(key: str) -> str:
    key = re.sub(r"^fc\.0\.", "classifier.1.", key)
    key = re.sub(r"^base\.", "features.", key)
    key = key.replace("branch0.0.", "branch0.")
    return re.sub(r"\.((?:conv|bn)(?:_[st])?)\.", lambda found: f".{KYLEMIN_PARTS[found[1]]}.", key)
