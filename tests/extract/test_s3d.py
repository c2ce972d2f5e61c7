"""S3D: both layouts of its weights, its pooling. Parity with torchvision's network is in test_torchvision_video."""

from pathlib import Path

import pytest
import torch

from extract.backbones import backbone_info
from extract.weights import load_backbone
from store.errors import WeightsError


def kylemin_names() -> dict[str, tuple[int, ...]]:
    """Names and shapes of Kyle Min's checkpoint, written down from his network's definition (github.com/kylemin/S3D, model.py)."""
    shapes: dict[str, tuple[int, ...]] = {}

    def norm(name: str, width: int) -> None:
        shapes.update({f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")})
        shapes[f"{name}.num_batches_tracked"] = ()

    def basic(name: str, into: int, out: int) -> None:
        shapes[f"{name}.conv.weight"] = (out, into, 1, 1, 1)
        norm(f"{name}.bn", out)

    def separable(name: str, into: int, out: int, side: int) -> None:
        shapes[f"{name}.conv_s.weight"] = (out, into, 1, side, side)
        norm(f"{name}.bn_s", out)
        shapes[f"{name}.conv_t.weight"] = (out, out, side, 1, 1)
        norm(f"{name}.bn_t", out)

    separable("base.0", 3, 64, 7)
    basic("base.2", 64, 64)
    separable("base.3", 64, 192, 3)
    into = 192
    table = {
        5: (64, 96, 128, 16, 32, 32),
        6: (128, 128, 192, 32, 96, 64),
        8: (192, 96, 208, 16, 48, 64),
        9: (160, 112, 224, 24, 64, 64),
        10: (128, 128, 256, 24, 64, 64),
        11: (112, 144, 288, 32, 64, 64),
        12: (256, 160, 320, 32, 128, 128),
        14: (256, 160, 320, 32, 128, 128),
        15: (384, 192, 384, 48, 128, 128),
    }
    for index, (first, middle1, second, middle2, third, fourth) in table.items():
        name = f"base.{index}"
        basic(f"{name}.branch0.0", into, first)
        basic(f"{name}.branch1.0", into, middle1)
        separable(f"{name}.branch1.1", middle1, second, 3)
        basic(f"{name}.branch2.0", into, middle2)
        separable(f"{name}.branch2.1", middle2, third, 3)
        basic(f"{name}.branch3.1", into, fourth)
        into = first + second + third + fourth
    shapes["fc.0.weight"], shapes["fc.0.bias"] = (400, 1024, 1, 1, 1), (400,)
    return shapes


def test_kyle_mins_s3d_is_read_and_refused_where_its_input_would_be_wrong(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    state = {
        f"module.{name}": torch.rand(shape, generator=generator) if shape else torch.tensor(0) for name, shape in kylemin_names().items()
    }
    torch.save(state, tmp_path / "S3D_kinetics400.pt")
    info = backbone_info("s3d_kylemin")
    loaded = load_backbone("s3d_kylemin", str(tmp_path / "S3D_kinetics400.pt"), tuple(info.dims)).backbone.state_dict()
    assert len(loaded) == len(state)
    for name, key in {
        "base.0.conv_s.weight": "features.0.0.0.weight",
        "base.0.bn_t.running_var": "features.0.1.1.running_var",
        "base.2.conv.weight": "features.2.0.weight",
        "base.5.branch0.0.bn.bias": "features.5.branch0.1.bias",
        "base.15.branch1.1.conv_t.weight": "features.15.branch1.1.1.0.weight",
        "base.8.branch3.1.bn.running_mean": "features.8.branch3.1.1.running_mean",
        "fc.0.weight": "classifier.1.weight",
    }.items():
        assert torch.equal(loaded[key], state[f"module.{name}"])
    assert (info.mean, info.std, info.resize) == ((0.0,), (1.0,), (224,))
    with pytest.raises(WeightsError, match=r"S3D_kinetics400\.pt.*Kyle Min's conversion.*use them with --backbone s3d_kylemin"):
        load_backbone("s3d", str(tmp_path / "S3D_kinetics400.pt"))


def test_s3d_pools_over_pairs_in_time() -> None:
    """Of n places in time the ends count half: (x1/2 + x2 + ... + x(n-1) + xn/2) / (n - 1)."""
    backbone = load_backbone("s3d", "random:0").backbone
    clip = torch.randn(1, 3, 32, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        features = backbone(clip, ("features", "block5.map"))
    places = features["block5.map"].mean((3, 4))
    count = places.shape[2]
    assert count == 4
    weights = torch.tensor([0.5, 1, 1, 0.5]) / (count - 1)
    torch.testing.assert_close(features["features"], (places * weights).sum(2), rtol=1e-5, atol=1e-6)


def test_random_s3d_does_not_fade_away() -> None:
    backbone = load_backbone("s3d", "random:0").backbone
    with torch.inference_mode():
        features = backbone(torch.randn(1, 3, 14, 64, 64, generator=torch.Generator().manual_seed(0)))["features"]
    assert 0.05 < float(features.std()) < 50
