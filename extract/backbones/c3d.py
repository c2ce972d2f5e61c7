"""C3D (Tran et al. 2015): eight 3x3x3 convolutions, five poolings and two fully connected layers over 16 frames of 112 x 112.

The weights are Caffe's: BGR frames in 0..255 minus the mean of the training clips, pixel by pixel. That mean cube belongs to the weights
(a buffer here, so the file's identity covers it), but the published files come without it: ``add_extras`` puts it in.

Caffe rounds the size of pool5 up, so its windows over 7 pixels start at 0, 2, 4 and 6. The conversions to Keras and PyTorch pad instead,
so theirs start at -1, 1, 3 and 5, and their fc6 sees the map moved by one place. ``c3d`` computes what those conversions compute,
``c3d_caffe`` what the authors' own network computes, from Caffe's centre crop, a column further left (columns 29 to 140 of 171); both take
every known layout of the weights.
"""

import re
from collections.abc import Iterator, Mapping
from functools import partial

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo, Centre, Published, centre_of
from extract.backbones.classifier import take_classes
from store.errors import SpecError, WeightsError

FRAMES, SIZE = 16, 112
RESIZED = (128, 171)  # height and width of the frames that the mean cube was taken over
CONVOLUTIONS = {
    "conv1": (3, 64),
    "conv2": (64, 128),
    "conv3a": (128, 256),
    "conv3b": (256, 256),
    "conv4a": (256, 512),
    "conv4b": (512, 512),
    "conv5a": (512, 512),
    "conv5b": (512, 512),
}
GROUPS = (("conv1",), ("conv2",), ("conv3a", "conv3b"), ("conv4a", "conv4b"), ("conv5a", "conv5b"))  # each ends in a pooling
POOL5 = 512 * 4 * 4
MMACTION2_MEAN = (104.0, 117.0, 128.0)  # that mmaction2's own training subtracts from RGB frames
MMACTION2 = "https://download.openmmlab.com/mmaction/"
PUBLISHED = {
    "sports1m": Published(
        "http://imagelab.ing.unimore.it/files/c3d_pytorch/c3d.pickle",
        licence="MIT (c3d-pytorch); the authors' C3D is CC BY-NC 3.0",
        about="D. Abati, from the authors' Caffe model of Sports-1M, 487 classes; without its mean cube, "
        "sport1m_train16_128_mean.binaryproto of github.com/facebookarchive/C3D",
    ),
    "sports1m_mmaction2": Published(
        MMACTION2 + "recognition/c3d/c3d_sports1m_pretrain_20201016-dcc47ddc.pth",
        licence="Apache-2.0 (mmaction2); the authors' C3D is CC BY-NC 3.0",
        about="the same weights converted by mmaction2, without classifier and mean cube",
    ),
    "ucf101": Published(
        MMACTION2 + "v1.0/recognition/c3d/c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb/"
        "c3d_sports1m-pretrained_8xb30-16x1x1-45e_ucf101-rgb_20220811-31723200.pth",
        licence="Apache-2.0 (mmaction2)",
        about="mmaction2, fine-tuned on UCF-101; 78,409,573 parameters; top-1 82.92, top-5 96.11 (10 clips)",
    ),
}
CUBE_HELP = (
    "mean of the training clips, 0..255, BGR, in a .npy or Caffe's .binaryproto of shape [3, 16, 112, 112], [16, 112, 112, 3] or "
    "[3, 16, 128, 171], or one number a channel [3]"
)


class C3D(Backbone):
    """C3D over [B, 3, 16, 112, 112]. ``logits`` are the scores of as many classes as the file has, 487 in Sports-1M's.

    ``pool5_flat`` is the blob that Caffe calls pool5, 8192 wide; ``pool5`` is its mean over space. fc6 and fc7 are after their ReLU, as
    published features are.
    """

    conv1: nn.Module
    fc6: nn.Module
    fc7: nn.Module
    fc8: nn.Module
    mean_cube: torch.Tensor

    level_keys = {"logits": ("fc8.",)}  # noqa: RUF012 - declared as a ClassVar in Backbone
    extras = {"mean_cube": CUBE_HELP}  # noqa: RUF012 - declared as a ClassVar in Backbone

    def __init__(self, name: str = "c3d", as_caffe: bool = False, classes: int = 487) -> None:
        super().__init__()
        pools = {f"pool{number}": CONVOLUTIONS[group[-1]][1] for number, group in enumerate(GROUPS, start=1)}
        self.info = BackboneInfo(
            name,
            {**pools, "pool5_flat": POOL5, "fc6": 4096, "fc7": 4096, "logits": classes},
            "fc6",
            maps=tuple(pools),
            clip_length=FRAMES,
            resize=(RESIZED[1], RESIZED[0]),
            size=SIZE,
            fixed_size=True,
            antialias=False,
            centre="down" if as_caffe else "even",
            mean=(0.0,),
            std=(1.0,),
            value_range=(0.0, 255.0),
            channel_order="bgr",
            published=PUBLISHED,
        )
        self.as_caffe = as_caffe
        self.register_buffer("mean_cube", torch.zeros(3, FRAMES, SIZE, SIZE))
        for layer, (before, after) in CONVOLUTIONS.items():
            self.add_module(layer, nn.Conv3d(before, after, 3, padding=1))
        self.fc6, self.fc7, self.fc8 = nn.Linear(POOL5, 4096), nn.Linear(4096, 4096), nn.Linear(4096, classes)

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield each pooled map [B, D, t, h, w], pool5 as a vector [B, 8192], fc6 and fc7 [B, 4096], and class scores [B, classes]."""
        if frames.shape[2:] != self.mean_cube.shape[1:]:
            length, height, width = frames.shape[2:]
            raise SpecError(
                f"{self.info.name} takes clips of {FRAMES} frames of {SIZE}x{SIZE}, not {length} of {height}x{width}; "
                f"set --clips.length {FRAMES} --crops.size {SIZE}"
            )
        x = (frames - self.mean_cube).to(frames.dtype)  # in float32: the differences are small where the mean is not
        for number, group in enumerate(GROUPS, start=1):
            for layer in group[:-1]:
                x = functional.relu(getattr(self, layer)(x), inplace=True)
            # the largest of some values after ReLU is the ReLU of the largest, of which there are fewer
            x = functional.relu(self.pool(number, getattr(self, group[-1])(x)), inplace=True)
            yield f"pool{number}", x
        x = x.flatten(1)
        yield "pool5_flat", x
        for layer in ("fc6", "fc7"):
            x = functional.relu(getattr(self, layer)(x))
            yield layer, x
        yield "logits", self.fc8(x)

    def pool(self, number: int, x: torch.Tensor) -> torch.Tensor:
        """The pooling that ends group ``number``: [B, D, t, h, w] -> [B, D, t / 2 (not in the first), ceil(h / 2), ceil(w / 2)]."""
        if number == len(GROUPS):
            padding = 0 if self.as_caffe else 1
            return functional.max_pool3d(x, 2, padding=(0, padding, padding), ceil_mode=self.as_caffe)
        for axis in (3, 4) if number == 1 else (2, 3, 4):  # the first leaves time alone
            x = larger_of_pairs(x, axis)
        return x

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """Names of c3d-pytorch, of mmaction2 and of the authors' Caffe model; the number of classes is the file's.

        mmaction2's own training (a whole file, with ``backbone.``) fed RGB frames minus 104, 117, 128: its first layer is turned to
        BGR and that mean becomes the cube. A bare backbone is taken for the converted Sports-1M weights, which need theirs.
        """
        renamed = {_native(key): value for key, value in state.items()}
        if any(key.startswith("backbone.") for key in state) and "mean_cube" not in renamed and "conv1.weight" in renamed:
            renamed["conv1.weight"] = renamed["conv1.weight"].flip(1)
            renamed["mean_cube"] = mean_cube(np.array(MMACTION2_MEAN[::-1]), self.info.centre)
        take_classes(self, renamed, "fc8")
        return renamed

    def add_extras(self, state: Mapping[str, torch.Tensor], arrays: Mapping[str, np.ndarray]) -> dict[str, torch.Tensor]:
        """Put the mean cube in, see ``mean_cube``."""
        super().add_extras({}, {name: array for name, array in arrays.items() if name not in self.extras})
        return {**state, **{name: mean_cube(array, self.info.centre) for name, array in arrays.items()}}


def larger_of_pairs(x: torch.Tensor, axis: int) -> torch.Tensor:
    """The larger of each two neighbours along an axis of even length.

    One axis after the other this is ``max_pool3d``, whose places of the largest values nobody asks for here: they are 64 bits each, and
    cost a processor 5 times as long (the first pooling in bf16) to 13 times (in float32, contiguous).
    """
    pairs = x.unflatten(axis, (-1, 2))
    return torch.maximum(pairs.select(axis + 1, 0), pairs.select(axis + 1, 1))


def _native(key: str) -> str:
    key = key.removeprefix("backbone.").replace("cls_head.fc_cls.", "fc8.")
    key = re.sub(r"^conv([12])a\.", r"conv\1.", key)
    key = key.replace(".conv.", ".")  # mmaction2
    key = re.sub(r"^(fc[678])[-_][^.]*\.", r"\1.", key)  # Caffe: fc6-1, fc8_ucf
    return re.sub(r"\.[01]$", lambda blob: {".0": ".weight", ".1": ".bias"}[blob[0]], key)


def mean_cube(array: np.ndarray, rule: Centre) -> torch.Tensor:
    """A published mean, BGR in 0..255, as the float32 cube [3, 16, 112, 112] that the network subtracts.

    Takes [3, 16, 112, 112], [16, 112, 112, 3], Caffe's [3, 16, 128, 171] (cut where the frames are, by ``rule``), each also with a
    leading 1, and one number a channel [3]. Anything else, and values outside 0..255, raise ``WeightsError``.
    """
    cube = np.asarray(array)
    cube = cube[0] if cube.ndim == 5 and len(cube) == 1 else cube
    if cube.shape == (3,):
        cube = np.broadcast_to(cube[:, None, None, None], (3, FRAMES, SIZE, SIZE))
    elif cube.shape == (FRAMES, SIZE, SIZE, 3):
        cube = cube.transpose(3, 0, 1, 2)
    elif cube.shape == (3, FRAMES, *RESIZED):
        top, left = (centre_of(side, SIZE, rule) for side in RESIZED)  # as extract.crops cuts, so that each pixel loses its own mean
        cube = cube[:, :, top : top + SIZE, left : left + SIZE]
    if cube.shape != (3, FRAMES, SIZE, SIZE) or cube.dtype.kind not in "fiu":
        raise WeightsError(f"the mean cube is {list(np.shape(array))} {np.asarray(array).dtype}; give the {CUBE_HELP}")
    if not (np.isfinite(cube).all() and cube.min() >= 0 and cube.max() <= 255) or 0 < cube.max() <= 2:
        raise WeightsError(f"the mean cube has values from {cube.min():g} to {cube.max():g}; give the {CUBE_HELP}")
    return torch.from_numpy(np.ascontiguousarray(cube, dtype=np.float32))


BACKBONES.register("c3d")(C3D)
BACKBONES.register("c3d_caffe")(partial(C3D, "c3d_caffe", as_caffe=True))
