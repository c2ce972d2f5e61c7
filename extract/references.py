"""Published outputs that a network can be held against: ``actioncache weights check`` compares with what the reference folder has."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

from extract.backbones import Backbone
from extract.checkpoint import TORCH_ERRORS
from extract.compare import Comparison, differ
from extract.precision import exact_arithmetic
from extract.reference_features import compare_video
from store.errors import PipelineError, WeightsError

EXPECTED = "torchvision_expect/ModelTester.test_{name}_expect.pkl"
I3D = "i3d"
I3D_STREAMS = {"i3d_rgb": "imagenet_rgb.txt", "i3d_flow": "imagenet_flow.txt"}
LOGITS = "logits"


def compare_references(backbone: Backbone, folder: Path, clip: torch.Tensor | None, device: torch.device) -> Iterator[Comparison]:
    """Everything in ``folder`` that says what ``backbone`` (prepared, float32) should compute; ``clip`` is the user's input, if any."""
    yield from _expected_by_torchvision(backbone.info.name, folder)
    yield from compare_video(backbone, folder, device)
    if clip is not None:
        yield from _logits_of_cricket(backbone, folder, clip, device)


def _expected_by_torchvision(name: str, folder: Path) -> Iterator[Comparison]:
    """torchvision's own test of its ResNets: seed 0, a network of 50 classes, then its input. It holds our code to account, not a file."""
    path = folder / EXPECTED.format(name=name)
    if not path.is_file() or not (depth := re.fullmatch(r"resnet(\d+)", name)):
        return
    from extract.backbones.resnet import ResNet

    try:
        expected = torch.load(path, map_location="cpu", weights_only=True)
    except TORCH_ERRORS as error:
        raise PipelineError(
            f"{path} is damaged or no file of tensors ({type(error).__name__}); take it out of the folder, or copy it again"
        ) from None
    with torch.random.fork_rng(devices=[]), torch.inference_mode():
        torch.manual_seed(0)
        seeded = ResNet(int(depth[1]), classes=expected.shape[-1]).eval()
        ours = seeded(torch.rand(1, 3, 224, 224), (LOGITS,))[LOGITS]
    yield differ(
        "torchvision's expected output", expected.detach().numpy(), ours.numpy(), 2e-5, "its seeded network (checks the code, not the file)"
    )


def _logits_of_cricket(backbone: Backbone, folder: Path, clip: torch.Tensor, device: torch.device) -> Iterator[Comparison]:
    """DeepMind's logits of its sample clip v_CricketShot_g04_c01: their norm and the highest of each stream."""
    stated, labels = folder / I3D / I3D_STREAMS.get(backbone.info.name, "none"), folder / I3D / "label_map.txt"
    if not (stated.is_file() and labels.is_file()):
        return
    norm, tops = read_logits(stated)
    classes = [line.strip() for line in labels.read_text(encoding="utf-8").splitlines()]
    logits = run_clip(backbone, clip, device)
    made = "published:imagenet_kinetics400, on DeepMind's sample clip v_CricketShot_g04_c01"
    if logits.shape != (len(classes),):
        yield Comparison("logits of the sample clip", made, False, f"ours are {list(logits.shape)}", f"{len(classes)} logits")
        return
    ours = np.array([logits[classes.index(name)] for name in tops])
    yield differ("norm of the logits of the sample clip", np.array([norm]), np.array([np.linalg.norm(logits)]), 0.01, made)
    yield differ(f"the {len(tops)} highest logits of the sample clip", np.array(list(tops.values())), ours, 0.01, made)


def run_clip(backbone: Backbone, clip: torch.Tensor, device: torch.device) -> np.ndarray:
    """Class scores float32 [C] of one clip [1, C, T, H, W] as the network takes it."""
    if LOGITS not in backbone.info.dims:
        raise WeightsError(f"these weights of {backbone.info.name} have no classifier that fits, so no logits can be compared")
    with torch.inference_mode(), exact_arithmetic():
        logits: np.ndarray = backbone(clip.to(device), (LOGITS,))[LOGITS][0].cpu().numpy()
    return logits


def read_logits(path: Path) -> tuple[float, dict[str, float]]:
    """DeepMind's printed output: the norm of the logits, and class -> logit of the highest ones."""
    lines = path.read_text(encoding="utf-8").splitlines()
    norm = next((line.rpartition(" ")[2] for line in lines if line.startswith("Norm of logits:")), None)
    rows = [line.split(" ", 2) for line in lines if re.match(r"[\d.e-]+ -?[\d.]+ ", line)]
    if norm is None or not rows:
        raise WeightsError(f"{path} is not the printed output of DeepMind's evaluation: no norm or no classes in it")
    return float(norm), {name: float(logit) for _, logit, name in rows}
