"""CNN backbones, one file a family."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
from torch import nn

from store.digest import Checked
from store.errors import UnknownNameError
from store.registry import Registry


@dataclass(frozen=True)
class Published(Checked):
    """A file of weights that its authors put on the web; what is not known is empty or zero, and then said to be unknown."""

    url: str
    sha256: str = ""  # all 64 digits, where the publisher states them; else the first use records them
    bytes: int = 0  # as the publisher states it, who may round it
    licence: str = ""
    about: str = ""  # by whom, trained on what, accuracy as published


Centre = Literal["even", "down"]


def centre_of(side: int, size: int, rule: Centre) -> int:
    """First of the ``size`` pixels in the middle of ``side``."""
    return round((side - size) / 2) if rule == "even" else (side - size) // 2


@dataclass(frozen=True)
class BackboneInfo(Checked):
    """What a network gives and what it must be fed. Preprocessing belongs to the weights, so it stands here and nowhere else."""

    name: str
    dims: dict[str, int]  # level -> feature width, from the lowest level to the last
    default_level: str = ""  # level used when none is asked for; empty: the last
    aliases: dict[str, str] = field(default_factory=dict)  # other names of levels, e.g. a paper's; never stored
    maps: tuple[str, ...] = ()  # levels that can also be had as feature maps [D, (t), h, w], under their name with MAP behind it
    clip_length: int = 1  # frames the network takes at once, as it was trained; 1: frame-wise
    shortest_clip: int = 0  # a network that takes clips of any length from this one on; 0: of clip_length only
    channels: int = 3  # of one frame: 3 (RGB, or flow drawn as an image), 2 a pair of x- and y-flow, 3 + 2 a pair for rgb+flow
    resize: tuple[int, ...] = (256,)  # of frames before the crop, as it was trained: short side, or width and height
    size: int = 224  # side of the square input in pixels that the weights were trained on
    fixed_size: bool = False  # takes inputs of ``size`` only, as a table of positions or a classifier over positions demands
    interpolation: Literal["bilinear", "bicubic"] = "bilinear"  # of that resize
    antialias: bool = True  # whether that resize averages over what it shrinks, as PIL does
    centre: Centre = "even"  # where a centre crop between two pixels begins: at the even one (torchvision) or before
    fps: float = 0.0  # frame rate of the clips it was trained on; 0: not stated, or single frames
    mean: tuple[float, ...] = (0.485, 0.456, 0.406)  # one number for all channels, or one a channel in channel_order
    std: tuple[float, ...] = (0.229, 0.224, 0.225)
    value_range: tuple[float, ...] = (0.0, 1.0)  # that uint8 0..255 is mapped to, before mean and std
    channel_order: Literal["rgb", "bgr"] = "rgb"
    modality: Literal["rgb", "flow", "rgb+flow"] = "rgb"
    quantise: Literal["", "symmetric", "dense_flow", "i3d"] = ""  # how flow became its bytes, see extract.flow_bytes; empty: not stated
    flow_method: str = ""  # the flow it was trained on, as extract.flow calls the method; empty: not stated, or no flow
    published: dict[str, Published] = field(default_factory=dict)  # weights by name, the usual one first; see extract.weights
    code: str = ""  # version of code that is not this project's; becomes part of the identity of the weights

    def check(self) -> None:
        sizes = [*self.dims.values(), self.clip_length, self.size, self.channels]
        levels = [*self.aliases.values(), self.default_level or self.last_level]
        strange = {*levels, *self.maps} - set(self.dims)
        if not self.dims or min(sizes) < 1 or strange or set(self.aliases) & set(self.dims) or self.fps < 0:
            raise ValueError(f"backbone {self.name!r} describes itself wrongly: {self}")

    @property
    def last_level(self) -> str:
        """The highest level."""
        return next(reversed(self.dims), "")


MAP = ".map"


def resolve_levels(info: BackboneInfo, names: Sequence[str]) -> tuple[str, ...]:
    """Bring level names to one form: aliases to canonical names, each once, from low to high; none asked for gives the default level.

    So ``("high", "low")`` and ``("block2", "block4")`` are the same levels and the same spec. A level of ``info.maps`` with ``MAP`` behind
    it, such as ``block3.map``, is its feature map instead of the mean over it. Unknown names raise ``UnknownNameError``.
    """
    wanted = {_canonical(info, name) for name in names} or {info.default_level or info.last_level}
    possible = [name for level in info.dims for name in ((level, level + MAP) if level in info.maps else (level,))]
    unknown = sorted(wanted - set(possible))
    if unknown:
        aliases = ", ".join(f"{alias} = {level}" for alias, level in info.aliases.items())
        known = ", ".join(info.dims) + (f" ({aliases})" if aliases else "")
        known += f"; as maps: {', '.join(level + MAP for level in info.maps)}" if info.maps else ""
        raise UnknownNameError(f"backbone {info.name} has no level {', '.join(map(repr, unknown))}; known: {known}")
    return tuple(name for name in possible if name in wanted)


def _canonical(info: BackboneInfo, name: str) -> str:
    level = name.removesuffix(MAP)
    return info.aliases.get(level, level) + name[len(level) :]


class Backbone(nn.Module):
    """A network from normalised frames to the features of each of its levels.

    A subclass sets ``info`` and writes ``stages``; its parameters carry the names of the published checkpoints.
    """

    info: BackboneInfo
    level_keys: ClassVar[Mapping[str, tuple[str, ...]]] = {}
    """Level -> prefixes of parameter names that this level alone needs; a checkpoint may lack them where the level is not wanted."""
    extras: ClassVar[Mapping[str, str]] = {}
    """Arrays that belong to the weights but are published in a file of their own, such as a mean cube: name -> what it is, in words."""

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield (level, its output [B, D, ...]) from low to high, computing each only when it is asked for."""
        raise NotImplementedError

    def forward(self, frames: torch.Tensor, levels: Sequence[str] = ()) -> dict[str, torch.Tensor]:
        """Frames [B, C, H, W] (frame-wise) or [B, C, T, H, W] (clips), normalised -> ``{level: float32 [B, D]}``.

        One pass serves all ``levels`` (names or aliases; none: the default level) and ends at the highest of them. A level is the mean of
        its output over space (and time), taken in float32 whatever the network's precision; a level with ``MAP`` behind its name is the
        output itself, float32 [B, D, (t), h, w].
        """
        wanted = resolve_levels(self.info, levels)
        last = wanted[-1].removesuffix(MAP)
        features: dict[str, torch.Tensor] = {}
        for level, output in self.stages(frames):
            if level in wanted:
                features[level] = average(output)
            if level + MAP in wanted:
                features[level + MAP] = output.float().contiguous()
            if level == last:
                break
        return features

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Bring a published checkpoint's keys to this module's; the default takes them as they are."""
        return dict(state)

    def add_extras(self, state: Mapping[str, torch.Tensor], arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Put ``arrays``, named as in ``extras``, into a converted state dict. Raises ``WeightsError`` for one that does not fit.

        The default network has none, so it refuses any.
        """
        if arrays:
            known = ", ".join(self.extras) or "none"
            raise UnknownNameError(f"backbone {self.info.name} takes no {', '.join(arrays)} with its weights; it takes: {known}")
        return dict(state)

    def initialise(self, seed: int) -> None:
        """Draw seeded random weights where the constructor's are not the ones wanted; the default keeps the constructor's."""

    def without(self, level: str) -> None:
        """Give up a level whose weights are not there, so that it can never be computed from random ones."""
        dims = {name: width for name, width in self.info.dims.items() if name != level}
        for prefix in self.level_keys[level]:
            delattr(self, prefix.rstrip("."))
        self.info = dataclasses.replace(self.info, dims=dims)


def average(output: torch.Tensor) -> torch.Tensor:
    """Mean over all axes after the second, in float32: [B, D, ...] -> [B, D]; [B, D] is only cast."""
    output = output.float()
    return output.mean(tuple(range(2, output.dim()))) if output.dim() > 2 else output


BACKBONES: Registry[Callable[[], Backbone]] = Registry("backbone", "extract.backbones")


def backbone_builder(name: str) -> Callable[[], Backbone]:
    """What builds the network called ``name``: a registered one, ``timm:NAME`` or ``package.module:attribute``.

    Raises ``UnknownNameError`` for a name that means nothing, ``PipelineError`` for one that cannot be used here, with the reason.
    """
    if is_private(name):
        from extract.backbones.private import private_builder

        return private_builder(name)
    prefix, colon, rest = name.partition(":")
    if not colon:
        return BACKBONES.get(name)
    from extract.backbones.timm_image import timm_builder

    assert prefix == "timm"
    return timm_builder(rest)


def is_private(name: str) -> bool:
    """Whether a name is one of the user's own networks, ``package.module:attribute``, so that asking about it runs that code."""
    prefix, colon, _ = name.partition(":")
    return bool(colon) and prefix != "timm"


def empty_backbone(name: str) -> Backbone:
    """The network called ``name``, to be filled from a file: without memory for its weights, where it makes no arrays by itself.

    Those of others may: tables of positions, as plain arrays or as buffers that no file holds. They are built on the CPU.
    """
    if ":" in name:
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            return backbone_builder(name)()
    with torch.device("meta"):
        return backbone_builder(name)()


@functools.cache
def backbone_info(name: str) -> BackboneInfo:
    """Describe one backbone; a name that means nothing raises ``UnknownNameError``. Only others' networks are built for it."""
    return empty_backbone(name).info


def describe_backbones() -> list[BackboneInfo]:
    """Describe every backbone, by name."""
    return [backbone_info(name) for name in BACKBONES]
