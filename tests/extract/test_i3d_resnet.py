"""The inflated ResNet-50: mmaction2's layout, and torchvision's plain network as the truth about what it computes."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision

from extract.backbones import MAP, Backbone
from extract.backbones.i3d_resnet import INFLATED, I3DResNet50
from extract.checkpoint import fit_state

Layouts = dict[str, dict[str, list[int]]]


def run(backbone: Backbone, frames: torch.Tensor, *levels: str) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {level: values.numpy() for level, values in backbone(frames, levels).items()}


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


def test_the_inflated_resnet_has_every_published_entry(layouts: Layouts) -> None:
    network = I3DResNet50()
    assert sum(value.numel() for value in network.parameters()) == 28_043_472  # as mmaction2 states it
    layout = layouts["i3d_mmaction2_resnet50_backbone"]
    theirs = {f"backbone.{key}": torch.zeros(shape) for key, shape in layout.items()}
    theirs |= {"cls_head.fc_cls.weight": torch.zeros(174, 2048), "cls_head.fc_cls.bias": torch.zeros(174)}
    assert theirs["backbone.conv1.conv.weight"].shape[2] == 3  # mmaction2's default; the published files have 5
    with torch.device("meta"):
        network = I3DResNet50()
    fit_state(network, theirs, ("logits",), Path("i3d.pth"))
    assert (network.conv1.kernel_size, network.conv1.stride) == ((3, 7, 7), (1, 2, 2))
    assert network.info.dims["logits"] == 174
    assert sum(map(sum, INFLATED)) == sum(
        shape[2] == 3 for key, shape in layouts["i3d_mmaction2_resnet50_backbone"].items() if ".conv1.conv" in key
    )


@pytest.mark.parametrize(("span", "places"), [(5, 4), (3, 16)])
def test_inflated_at_the_middle_it_is_torchvisions_resnet_on_every_frame(span: int, places: int) -> None:
    """Kernels that only look at their middle frame, and a clip that stands still: every level equals the plain network's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        plain = torchvision.models.resnet50(weights=None, num_classes=7).eval()
    with torch.device("meta"):
        network = I3DResNet50()
    targets = {**network.state_dict(), "conv1.weight": torch.empty(64, 3, span, 7, 7, device="meta")}
    fit_state(network, {key: inflated(value, targets[key]) for key, value in plain.state_dict().items()}, ("logits",), Path("w.pth"))
    picture = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    levels = ("block1", "block3", "block4")
    ours = run(network.eval(), picture[:, :, None].expand(-1, -1, 32, -1, -1), *levels, "block4" + MAP, "logits")
    x = plain.maxpool(plain.relu(plain.bn1(plain.conv1(picture))))
    with torch.inference_mode():
        for number in (1, 2, 3, 4):
            x = getattr(plain, f"layer{number}")(x)
            if f"block{number}" in levels:
                assert_close(ours[f"block{number}"], x.mean((2, 3)).numpy())
        assert_close(ours["logits"], plain(picture).numpy())
    assert ours["block4" + MAP].shape == (2, 2048, places, 2, 2)


def inflated(value: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A 2D kernel [D, C, kh, kw] at the middle frame of a 3D one; other entries as they are."""
    if value.dim() != 4:
        return value
    kernel = torch.zeros(*value.shape[:2], target.shape[2], *value.shape[2:])
    kernel[:, :, target.shape[2] // 2] = value
    return kernel
