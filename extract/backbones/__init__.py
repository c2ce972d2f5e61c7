"""CNN backbones, one file a family."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import torch
from torch import nn

from store.digest import Checked
from store.registry import Registry


@dataclass(frozen=True)
class BackboneInfo(Checked):
    """What a network gives and what it must be fed. Preprocessing belongs to the weights, so it stands here and nowhere else."""

    name: str
    dims: dict[str, int]  # level -> feature width, from the lowest level to the last
    clip_length: int = 1  # frames the network takes at once; 1: frame-wise
    size: int = 224  # side of the square input in pixels
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    value_range: tuple[float, ...] = (0.0, 1.0)  # that uint8 0..255 is mapped to, before mean and std
    channel_order: Literal["rgb", "bgr"] = "rgb"
    modality: Literal["rgb", "flow"] = "rgb"
    urls: dict[str, str] = field(default_factory=dict)  # published weights by name; see extract.weights

    def check(self) -> None:
        if not self.dims or min(self.dims.values()) < 1 or self.clip_length < 1 or self.size < 1:
            raise ValueError(f"backbone {self.name!r} describes itself wrongly: {self}")


class Backbone(nn.Module):
    """A network from normalised frames to the features of each of its levels."""

    info: BackboneInfo

    def forward(self, frames: torch.Tensor) -> dict[str, torch.Tensor]:
        """Frames [B, 3, H, W] (frame-wise) or [B, 3, T, H, W] (clips), normalised float -> ``{level: [B, D]}``, one pass for all levels."""
        raise NotImplementedError

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bring a published checkpoint's keys to this module's; the default takes them as they are."""
        return dict(state)


BACKBONES: Registry[Callable[[], Backbone]] = Registry("backbone", "extract.backbones")
