"""From frames to network inputs, on the device that holds the frames: resize, cut, normalise.

Each frame's result depends on that frame alone.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torchvision.transforms.v2 import InterpolationMode, functional

from extract.backbones import BackboneInfo, Centre, centre_of
from extract.flow_bytes import MIRRORS, mirrored_channels
from extract.modality import RGB_CHANNELS
from extract.spec import LARGEST_SIDE, CropSpec, FlowSpec
from store.errors import FeatureError


class Box(NamedTuple):
    """Where one crop is cut. ``left`` is measured in the frame as it is; a mirrored crop is cut there and then mirrored."""

    top: int
    left: int
    mirrored: bool
    size: int


def resize_frames(frames: torch.Tensor, spec: CropSpec, info: BackboneInfo | None = None) -> torch.Tensor:
    """Resize uint8 [B, H, W, 3] to uint8 [B, 3, h, w] as the network was trained (``info``), else bilinear with antialiasing.

    One number in ``spec.resize`` is the short side, the long one becoming int(short * long / short side); two are width and height.
    """
    height, width = frames.shape[1:3]
    target = resized_size(height, width, spec.resize)
    channels_first = frames.permute(0, 3, 1, 2)
    if target == (height, width):
        return channels_first.contiguous()
    mode = InterpolationMode(info.interpolation if info else "bilinear")
    return functional.resize(channels_first, list(target), interpolation=mode, antialias=info.antialias if info else True).contiguous()


def resized_size(height: int, width: int, resize: Sequence[int]) -> tuple[int, int]:
    """(height, width) after ``CropSpec.resize``, with torchvision's rounding; ``FeatureError`` for a strip that no memory holds."""
    if len(resize) == 2:
        return resize[1], resize[0]
    short = resize[0]
    size = (short, int(short * width / height)) if height <= width else (int(short * height / width), short)
    if max(size) > LARGEST_SIDE and size != (height, width):
        raise FeatureError(
            f"frames of {width}x{height} with a short side of {short} would be {size[1]}x{size[0]}; sides are at most {LARGEST_SIDE} "
            "(--crops.resize with two numbers takes any shape)"
        )
    return size


def crop_boxes(height: int, width: int, size: int, count: int, rule: Centre = "even") -> list[Box]:
    """The ``count`` crops of ``size`` x ``size`` of frames of ``height`` x ``width``; ``rule`` of the centre: see ``BackboneInfo.centre``.

    One: the centre. Ten, in the order of torchvision's ``TenCrop``: top left, top right, bottom left, bottom right, centre; then the same
    five of the mirrored frame.
    """
    assert size <= min(height, width), (height, width, size)
    down, right = height - size, width - size
    centre = (centre_of(height, size, rule), centre_of(width, size, rule))
    if count == 1:
        return [Box(*centre, False, size)]
    five = [(0, 0), (0, right), (down, 0), (down, right), centre]
    return [Box(top, left, False, size) for top, left in five] + [Box(top, right - left, True, size) for top, left in five]


def cut(resized: torch.Tensor, boxes: Sequence[Box], flow: FlowSpec | None = None) -> torch.Tensor:
    """Cut ``boxes`` from uint8 [B, C, h, w]: uint8 [B, n, C, size, size]. ``flow`` says what the channels are; without it, or without a
    method in it, they are RGB.

    In mirrored crops the channels that hold motion to the right are inverted as the family of networks did in training, byte by byte
    (``extract.flow_bytes``); motion down, the magnitude and RGB stay.
    """
    inverted = mirrored_channels(flow) if flow and flow.method else slice(0)
    total = MIRRORS[flow.quantise] if flow else 0
    crops = []
    for top, left, mirrored, size in boxes:
        crop = resized[:, :, top : top + size, left : left + size]
        if mirrored:
            crop = crop.flip(-1)
            crop[:, inverted] = (total - crop[:, inverted].short()).clamp(0, 255).to(torch.uint8)
        crops.append(crop)
    return torch.stack(crops, 1)


def normalise(crops: torch.Tensor, info: BackboneInfo, dtype: torch.dtype = torch.float32, channels_last: bool = False) -> torch.Tensor:
    """Map bytes to what the network was trained on: uint8 [..., C, S, S], RGB first where there is RGB -> ``dtype`` [..., C, S, S].

    In float32: 0..255 to ``info.value_range``, then (x - mean) / std with mean and deviation (one number, or one a channel in the
    network's channel order), then rounded to ``dtype``. Only RGB has a channel order: channels of flow stay where they are. With
    ``channels_last`` bytes and result are [..., S, S, C], with the same values.
    """
    axis = -1 if channels_last else -3
    if info.channel_order == "bgr" and info.modality != "flow":
        colours, rest = crops.split([RGB_CHANNELS, crops.shape[axis] - RGB_CHANNELS], axis)
        crops = torch.cat([colours.flip(axis), rest], axis)
    low, high = info.value_range
    values = crops.to(torch.float32).div_(255)
    if (low, high) != (0.0, 1.0):
        values = values.mul_(high - low).add_(low)
    mean, std = (torch.tensor(numbers, device=crops.device) for numbers in (info.mean, info.std))
    if not channels_last:
        return values.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1)).to(dtype)
    side, channels = crops.shape[-2:]
    rows = values.view(*crops.shape[:-2], side * channels)  # whole rows at a time: three numbers a pixel are no vector
    return rows.sub_(mean.expand(side, channels).flatten()).div_(std.expand(side, channels).flatten()).to(dtype).view(crops.shape)
