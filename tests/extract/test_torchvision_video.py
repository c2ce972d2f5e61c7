"""torchvision's video networks against torchvision's own: outputs, preprocessing, and what it says of its published weights."""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from PIL import Image
from torch import nn

from extract.backbones import Backbone, BackboneInfo, backbone_info, empty_backbone
from extract.backbones.s3d import S3D_ENDS
from extract.backbones.torchvision_video import MVIT_WIDTHS, SWIN_WIDTHS
from extract.crops import crop_boxes, normalise, resize_frames
from extract.prepare import check_fit
from extract.spec import ClipSpec, CropSpec, DecodeSpec, FeatureSpec
from extract.video import open_source
from extract.weights import load_backbone
from store.errors import SpecError, WeightsError

RESNETS = ("r3d_18", "mc3_18", "r2plus1d_18")
ALL = (*RESNETS, "s3d", *MVIT_WIDTHS, *SWIN_WIDTHS)
CLASSIFIERS = {**dict.fromkeys(RESNETS, "fc"), "s3d": "classifier", **dict.fromkeys((*MVIT_WIDTHS, *SWIN_WIDTHS), "head")}
ENDS = {
    **{name: {f"block{n}": f"layer{n}" for n in (1, 2, 3, 4)} for name in RESNETS},
    "s3d": {f"block{n}": f"features.{index}" for n, index in enumerate(S3D_ENDS, start=1)},
    **{name: {f"block{n + 1}": f"features.{2 * n}" for n in range(4)} for name in SWIN_WIDTHS},
    "mvit_v1_b": {"block1": "blocks.0", "block2": "blocks.2", "block3": "blocks.13", "block4": "blocks.15"},
    "mvit_v2_s": {"block1": "blocks.0", "block2": "blocks.2", "block3": "blocks.13", "block4": "blocks.15"},
}  # the paper's stages: 1, 2, 11 and 2 blocks


def shrink(network: nn.Module) -> nn.Module:
    """Let an MViT take 4 frames of 64 x 64: its own tables of positions, cut."""
    positions = network.pos_encoding
    positions.temporal_size, positions.spatial_size = 2, (16, 16)
    if positions.spatial_pos is not None:
        positions.spatial_pos = nn.Parameter(positions.spatial_pos[:256].detach())
        positions.temporal_pos = nn.Parameter(positions.temporal_pos[:2].detach())
    return network


def pair(name: str) -> tuple[Backbone, nn.Module, torch.Tensor]:
    """Our network and torchvision's with the same weights, and a clip for both."""
    backbone = load_backbone(name, "random:3", tuple(backbone_info(name).dims)).backbone
    plain = torchvision.models.get_model(name, weights=None)
    plain.load_state_dict(backbone.state_dict(), strict=True)
    if name in MVIT_WIDTHS:
        shrink(plain), shrink(backbone)
    frames, size = (14, 224) if name == "s3d" else (4, 64)
    return backbone, plain.eval(), torch.randn(1, 3, frames, size, size, generator=torch.Generator().manual_seed(1))


def run_plain(plain: nn.Module, modules: list[str], clip: torch.Tensor) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    """torchvision's output and, by hooks, what goes into the first of ``modules`` and what comes out of the others."""
    seen: dict[str, torch.Tensor] = {}

    def enter(_: nn.Module, arguments: tuple[torch.Tensor, ...]) -> None:
        seen[modules[0]] = arguments[0]

    def leave(module: str) -> Callable[..., None]:
        def keep(_: nn.Module, arguments: object, output: object) -> None:
            seen[module] = output[0] if isinstance(output, tuple) else output  # type: ignore[assignment]

        return keep

    plain.get_submodule(modules[0]).register_forward_pre_hook(enter)
    for module in modules[1:]:
        plain.get_submodule(module).register_forward_hook(leave(module))
    with torch.inference_mode():
        return plain(clip), seen


HEAVY = {"mc3_18", "swin3d_s", "swin3d_b"}
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in ALL]


@pytest.mark.parametrize("name", NAMES)
def test_levels_are_what_torchvisions_network_computes(name: str) -> None:
    backbone, plain, clip = pair(name)
    logits, seen = run_plain(plain, [CLASSIFIERS[name], *ENDS[name].values()], clip)
    with torch.inference_mode():
        ours = backbone(clip, (*backbone.info.dims,))
    torch.testing.assert_close(ours["logits"], logits, rtol=1e-5, atol=1e-5)
    before = seen[CLASSIFIERS[name]]
    features = ours.get("features", ours.get("block4"))
    torch.testing.assert_close(features, before.flatten(2).mean(2) if before.dim() > 2 else before, rtol=1e-5, atol=1e-5)
    for level, module in ENDS[name].items():
        output = seen[module]
        places = {"mvit": lambda x: x[:, 1:].mean(1), "swin": lambda x: x.mean((1, 2, 3))}.get(name[:4], lambda x: x.mean((2, 3, 4)))
        torch.testing.assert_close(ours[level], places(output), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", ALL)
def test_names_shapes_and_counts_are_those_of_the_published_checkpoints(name: str) -> None:
    """torchvision states how many parameters each of its files has."""
    info = backbone_info(name)
    with torch.device("meta"):
        plain = torchvision.models.get_model(name, weights=None)
    backbone = empty_backbone(name)
    assert {key: value.shape for key, value in backbone.state_dict().items()} == {key: v.shape for key, v in plain.state_dict().items()}
    weights = list(torchvision.models.get_model_weights(name))
    assert [each.name for each in weights] == list(info.published)
    for each in weights:
        assert sum(value.numel() for value in backbone.parameters()) == each.meta["num_params"]
        assert info.published[each.name].url == each.url
        assert info.dims["logits"] == len(each.meta["categories"])


@pytest.mark.parametrize("name", ALL)
def test_preprocessing_is_that_of_torchvisions_weights(name: str) -> None:
    info = backbone_info(name)
    for weights in torchvision.models.get_model_weights(name):
        transform = weights.transforms()
        resize = transform.resize_size if len(transform.resize_size) == 1 else transform.resize_size[::-1]
        assert list(info.resize) == list(resize)
        assert [info.size, info.size] == transform.crop_size
        assert list(info.mean) == transform.mean
        assert list(info.std) == transform.std
        assert info.interpolation == transform.interpolation.value
        assert not info.antialias  # as the transform's forward pass says
        assert info.value_range == (0.0, 1.0)
        assert info.channel_order == "rgb"
        stated = re.search(r"frame_rate=([\d.]+)", weights.meta["_docs"])
        length = re.search(r"clip_len=(\d+)", weights.meta["_docs"])
        assert stated is not None
        assert length is not None
        assert info.fps == float(stated[1])
        if name != "s3d":  # evaluated on 128 frames, trained on 64 (pytorch/vision pull request 6537)
            assert info.clip_length == int(length[1])
        if "min_temporal_size" in weights.meta and not info.fixed_size:
            assert info.shortest_clip == weights.meta["min_temporal_size"]


def prepared(frames: torch.Tensor, info: BackboneInfo, antialias: bool) -> torch.Tensor:
    """Frames as extraction gives them to the network: float32 [B, 3, S, S]."""
    spec = CropSpec(resize=info.resize, size=info.size)
    resized = resize_frames(frames, spec, replace(info, antialias=antialias))
    (box,) = crop_boxes(*resized.shape[-2:], info.size, 1)
    return normalise(resized[:, :, box.top : box.top + box.size, box.left : box.left + box.size], info)


def real_clip(shared_data: Path, count: int = 3) -> np.ndarray:
    with open_source(shared_data / "videos" / "torchcodec" / "nasa_13013.mp4", DecodeSpec()) as source:
        return np.stack(list(source.frames(np.arange(count) * 7)))


@pytest.mark.parametrize("name", ["r2plus1d_18", "s3d", "mvit_v2_s", "swin3d_t"])
def test_a_real_clip_is_prepared_as_torchvisions_transform_does(name: str, shared_data: Path) -> None:
    """Both resize bytes to bytes; they differ by at most one step of 255 (measured: in 5 to 8 % of the values)."""
    info, frames = backbone_info(name), torch.from_numpy(real_clip(shared_data))
    transform = torchvision.models.get_model_weights(name).DEFAULT.transforms()
    theirs = transform(frames.permute(0, 3, 1, 2)).permute(1, 0, 2, 3)
    in_bytes = torch.tensor(info.std)[:, None, None] * 255
    steps = (prepared(frames, info, antialias=False) - theirs).abs() * in_bytes
    assert float(steps.max()) < 1.01
    assert float((steps > 0.5).float().mean()) < 0.1  # torch interpolates bytes in fixed point, the transform in float32
    assert float(((prepared(frames, info, antialias=True) - theirs).abs() * in_bytes).max()) > 5  # so the setting matters


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
def test_bicubic_and_bilinear_are_pils(mode: str) -> None:
    info = BackboneInfo("net", {"a": 1}, interpolation=mode)  # type: ignore[arg-type]
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (1, 90, 120, 3), np.uint8))
    ours = resize_frames(frames, CropSpec(resize=(64,), size=56), info)[0].permute(1, 2, 0).numpy()
    pil = Image.fromarray(frames[0].numpy()).resize((85, 64), Image.Resampling.BICUBIC if mode == "bicubic" else Image.Resampling.BILINEAR)
    assert np.abs(ours.astype(int) - np.asarray(pil)).max() <= 1


def test_swins_tables_of_indices_are_loaded_as_they_are_and_nothing_else_is(tmp_path: Path) -> None:
    state = load_backbone("swin3d_t", "random:1").backbone.state_dict()
    key = "features.0.0.attn.relative_position_index"
    torch.save(state, tmp_path / "w.pth")
    loaded = load_backbone("swin3d_t", str(tmp_path / "w.pth")).backbone.state_dict()
    assert all(torch.equal(loaded[name], value) and loaded[name].dtype == value.dtype for name, value in state.items())
    torch.save({**state, key: state[key].float()}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"relative_position_index is \[392, 392\] float32, not \[392, 392\] int64"):
        load_backbone("swin3d_t", str(tmp_path / "w.pth"))


@pytest.mark.parametrize(
    ("name", "length", "size", "words"),
    [
        ("mvit_v2_s", 8, 224, r"clips\.length is 8 but mvit_v2_s takes clips of 16 frames; set --clips\.length 16"),
        ("s3d", 13, 224, r"s3d takes clips of 64 frames, or any from 14 on; set --clips\.length 64"),
        ("mvit_v2_s", 16, 112, r"crops\.size is 112 but mvit_v2_s takes 224 and no other; set --crops\.size 224"),
        ("s3d", 14, 112, ""),
        ("swin3d_t", 1, 56, ""),
    ],
)
def test_a_spec_must_fit_what_the_network_takes(name: str, length: int, size: int, words: str) -> None:
    spec = FeatureSpec(name, clips=ClipSpec(length=length), crops=CropSpec(size=size))
    if not words:
        check_fit(spec, backbone_info(name))
        return
    with pytest.raises(SpecError, match=words):
        check_fit(spec, backbone_info(name))
