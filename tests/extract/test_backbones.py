"""Backbones against plain torchvision networks, published outputs, and a cat."""

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch import nn

from extract.backbones import BACKBONES, MAP, Backbone, BackboneInfo, average, backbone_info, describe_backbones, resolve_levels
from extract.backbones.mobilenet import MobileNetV2
from extract.backbones.resnet import ResNet
from extract.precision import DTYPES, MEMORY_FORMATS, exact_arithmetic, prepare
from extract.weights import load_backbone
from store.errors import UnknownNameError


@pytest.fixture(scope="module")
def network() -> Callable[[str], Backbone]:
    """Each backbone with seeded random weights, built once; tests must not change it."""
    built: dict[str, Backbone] = {}

    def get(name: str) -> Backbone:
        if name not in built:
            built[name] = load_backbone(name, "random:0", levels=tuple(backbone_info(name).dims)).backbone
        return built[name]

    return get


HEAVY = {"c3d", "c3d_caffe", "st_resnet50_star", "mc3_18", "r2plus1d_18", "s3d_kylemin", "mvit_v1_b", "mvit_v2_s", "swin3d_s", "swin3d_b"}
"""Networks that take seconds to build or run and share their code with a lighter one, or have tests of their own on small inputs."""
NAMES = [pytest.param(name, marks=pytest.mark.slow) if name in HEAVY else name for name in BACKBONES]


def inputs(info: BackboneInfo, batch: int = 2, size: int = 64) -> torch.Tensor:
    """As few frames and pixels as the network takes."""
    frames = min(info.clip_length, max(info.shortest_clip, 4)) if info.shortest_clip else info.clip_length
    time, side = (frames,) if info.clip_length > 1 else (), info.size if info.fixed_size else size
    return torch.rand(batch, info.channels, *time, side, side, generator=torch.Generator().manual_seed(3))


@pytest.mark.parametrize("name", NAMES)
def test_every_backbone_gives_the_levels_it_promises(name: str, network: Callable[[str], Backbone]) -> None:
    backbone = network(name)
    levels = tuple(backbone.info.dims)
    with torch.inference_mode():
        features = backbone(inputs(backbone.info), levels)
        default = backbone(inputs(backbone.info))
    assert tuple(features) == levels
    for level, values in features.items():
        assert values.shape == (2, backbone.info.dims[level])
        assert values.dtype == torch.float32
        assert torch.isfinite(values).all()
        assert not torch.equal(values[0], values[1])
        assert values.abs().max() > 1e-3  # float16 keeps it
    assert list(default) == [backbone.info.default_level or levels[-1]]


@pytest.mark.parametrize("name", NAMES)
def test_one_pass_equals_one_pass_a_level(name: str, network: Callable[[str], Backbone]) -> None:
    backbone = network(name)
    frames = inputs(backbone.info)
    with torch.inference_mode():
        together = backbone(frames, tuple(backbone.info.dims))
        for level, values in together.items():
            assert torch.equal(backbone(frames, (level,))[level], values)


@pytest.mark.parametrize("name", NAMES)
def test_a_map_is_what_its_level_is_the_mean_of(name: str, network: Callable[[str], Backbone]) -> None:
    backbone = network(name)
    frames = inputs(backbone.info)
    for level in backbone.info.maps:
        with torch.inference_mode():
            features = backbone(frames, (level, level + MAP))
        assert list(features) == [level, level + MAP]
        assert features[level + MAP].dim() == frames.dim()
        assert features[level + MAP].dtype == torch.float32
        assert torch.equal(average(features[level + MAP]), features[level])


def test_levels_resolve_to_maps_in_order_and_refuse_what_has_none() -> None:
    info = backbone_info("resnet34")
    assert resolve_levels(info, ("high", "mid.map", "block3", "low.map")) == ("block2.map", "block3", "block3.map", "block4")
    with pytest.raises(UnknownNameError, match=r"no level 'logits.map'; known: .*; as maps: stem.map, block1.map, block2.map"):
        resolve_levels(info, ("logits.map",))


def test_a_stem_is_torchvisions_modules_up_to_block_1() -> None:
    reference = torchvision.models.resnet18(weights=None).eval()
    backbone = ResNet(18).eval()
    backbone.load_state_dict(reference.state_dict())
    frames = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        maps = backbone(frames, ("stem.map", "block1.map"))
        expected = nn.Sequential(*list(reference.children())[:4])(frames)
        assert torch.equal(maps["stem.map"], expected)
        assert torch.equal(maps["block1.map"], reference.layer1(expected))


@pytest.mark.parametrize("name", NAMES)
def test_info_is_the_same_on_the_meta_device(name: str, network: Callable[[str], Backbone]) -> None:
    assert backbone_info(name) == network(name).info
    assert network(name).info.name == name


def test_describe_lists_every_backbone_and_keeps_the_random_state() -> None:
    before = torch.random.get_rng_state()
    assert [info.name for info in describe_backbones()] == BACKBONES.names()
    assert torch.equal(torch.random.get_rng_state(), before)


def hooked_means(plain: nn.Module, modules: dict[str, nn.Module], frames: torch.Tensor) -> dict[str, torch.Tensor]:
    """Mean over space of what ``modules`` put out during one pass of an unchanged network."""
    seen: dict[str, torch.Tensor] = {}

    def watch(level: str) -> Callable[..., None]:
        def keep(module: nn.Module, arguments: object, output: torch.Tensor) -> None:
            seen[level] = output.mean((2, 3))

        return keep

    handles = [module.register_forward_hook(watch(level)) for level, module in modules.items()]
    with torch.inference_mode():
        seen["logits"] = plain(frames)
    for handle in handles:
        handle.remove()
    return seen


@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50", "resnet101"])
def test_resnet_levels_equal_hooks_on_torchvisions_network(name: str, network: Callable[[str], Backbone]) -> None:
    backbone = network(name)
    plain = torchvision.models.get_model(name, weights=None)
    plain.load_state_dict(backbone.state_dict(), strict=True)
    plain.eval()
    frames = inputs(backbone.info)
    modules = {"stem": plain.maxpool, **{f"block{n}": getattr(plain, f"layer{n}") for n in (1, 2, 3, 4)}}
    expected = hooked_means(plain, modules, frames)
    with torch.inference_mode():
        features = backbone(frames, tuple(backbone.info.dims))
    assert set(features) == set(expected)
    for level in features:
        assert torch.equal(features[level], expected[level])


def test_mobilenet_levels_equal_hooks_on_torchvisions_network(network: Callable[[str], Backbone]) -> None:
    backbone = network("mobilenet_v2")
    plain = torchvision.models.mobilenet_v2(weights=None)
    plain.load_state_dict(backbone.state_dict(), strict=True)
    plain.eval()
    ends = dict(zip([f"block{n}" for n in range(1, 8)], (1, 3, 6, 10, 13, 16, 17), strict=True))
    modules = {**{level: plain.features[index] for level, index in ends.items()}, "features": plain.features}
    frames = inputs(backbone.info, size=96)
    expected = hooked_means(plain, modules, frames)
    with torch.inference_mode():
        features = backbone(frames, tuple(backbone.info.dims))
    assert set(features) == set(expected)
    for level in set(features) - {"logits"}:
        assert torch.equal(features[level], expected[level])
    torch.testing.assert_close(features["logits"], expected["logits"], rtol=1e-5, atol=1e-5)


def test_widths_are_the_papers() -> None:
    mrrn, iqbal = backbone_info("resnet34"), backbone_info("resnet50")
    assert [mrrn.dims[level] for level in resolve_levels(mrrn, ("low", "mid", "high"))] == [128, 256, 512]
    assert [iqbal.dims[f"block{block}"] for block in (2, 3, 4)] == [512, 1024, 2048]
    assert backbone_info("mobilenet_v2").dims["features"] == 1280


def test_layers_above_the_wanted_levels_do_not_run(network: Callable[[str], Backbone]) -> None:
    backbone = network("resnet34")
    ran: list[str] = []
    handles = [
        module.register_forward_hook(lambda *_, name=name: ran.append(name))  # type: ignore[misc]
        for name, module in backbone.named_children()
        if name in ("layer2", "layer3", "layer4", "fc")
    ]
    with torch.inference_mode():
        backbone(inputs(backbone.info), ("low",))
    assert ran == ["layer2"]
    for handle in handles:
        handle.remove()


def test_resolve_levels_gives_one_name_to_one_thing() -> None:
    info = backbone_info("resnet34")
    assert resolve_levels(info, ("high", "low")) == resolve_levels(info, ("block2", "block4")) == ("block2", "block4")
    assert resolve_levels(info, ("low", "block2")) == ("block2",)
    assert resolve_levels(info, ()) == ("block4",)
    assert resolve_levels(backbone_info("tiny3d"), ()) == ("block3",)


def test_unknown_levels_are_all_named_with_the_known_ones() -> None:
    with pytest.raises(
        UnknownNameError, match=r"resnet34 has no level 'blok2', 'pool5'; known: stem, block1, .*logits \(low = block2, mid = block3"
    ):
        resolve_levels(backbone_info("resnet34"), ("pool5", "block3", "blok2"))


def test_unknown_backbone_is_told_its_neighbours() -> None:
    with pytest.raises(UnknownNameError, match="no backbone is called 'resnet43'; did you mean resnet34"):
        backbone_info("resnet43")


@pytest.mark.parametrize(
    "wrong",
    [{"dims": {}}, {"dims": {"a": 0}}, {"clip_length": 0}, {"default_level": "b"}, {"aliases": {"low": "b"}}, {"aliases": {"a": "a"}}],
)
def test_an_info_that_contradicts_itself_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(ValueError, match="describes itself wrongly"):
        BackboneInfo(**{"name": "net", "dims": {"a": 4}, **wrong})  # type: ignore[arg-type]


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_resnet_reproduces_torchvisions_published_outputs(depth: int, shared_data: Path) -> None:
    """torchvision's own test: seed 0, the network, then its input; outputs agree to 2e-5."""
    path = shared_data / "torchvision_expect" / f"ModelTester.test_resnet{depth}_expect.pkl"
    expected = torch.load(path, weights_only=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        backbone = ResNet(depth, classes=50).eval()
        frames = torch.rand(1, 3, 224, 224)
    with torch.inference_mode():
        logits = backbone(frames, ("logits",))["logits"]
    torch.testing.assert_close(logits, expected, rtol=0, atol=2e-5)


@pytest.mark.parametrize(("precision", "channels_last"), [("fp32", False), ("bf16", True)])
def test_mobilenet_with_real_weights_sees_an_egyptian_cat(precision: str, channels_last: bool, shared_data: Path) -> None:
    cv2 = pytest.importorskip("cv2")
    weights = shared_data / "weights" / "mobilenet_v2-imagenet-from-tflite.safetensors"
    loaded = load_backbone("mobilenet_v2", str(weights), ("logits",))
    assert loaded.identity == "sha256:4ca6a9a4977d69fbeda9a97ee651bd527c732c4a842b4e0fd89e56314f383ad9"
    pixels = cv2.resize(cv2.imread(str(shared_data / "weights" / "cat.bmp"))[:, :, ::-1], (224, 224), interpolation=cv2.INTER_AREA)
    info = loaded.backbone.info
    image = (pixels.astype(np.float32) / 255 - np.float32(info.mean)) / np.float32(info.std)
    frames = torch.from_numpy(image.transpose(2, 0, 1)[None]).to(DTYPES[precision])
    backbone = prepare(loaded.backbone, precision, channels_last)
    with torch.inference_mode(), exact_arithmetic():
        probabilities = backbone(frames, ("logits",))["logits"].softmax(1)[0]
    labels = (shared_data / "weights" / "imagenet_labels.txt").read_text().splitlines()[1:]  # the first is the background class
    assert "Egyptian cat" in labels[int(probabilities.argmax())]
    assert float(probabilities.max()) == pytest.approx(0.73, abs=0.02)


def test_random_mobilenet_does_not_fade_away() -> None:
    """torchvision's own initialisation gives features of 1e-9, which float16 stores as zero."""
    backbone = MobileNetV2().eval()
    backbone.initialise(0)
    with torch.inference_mode():
        features = backbone(inputs(backbone.info, size=96))["features"]
    assert 0.05 < float(features.std()) < 50


def test_tiny_weights_are_the_same_for_ever() -> None:
    """PCG64's first raw number for seed 0 is NumPy's promise; the digests pin ours."""
    first = load_backbone("tiny", "random:0")
    bound = math.sqrt(6 / 27)
    weight = next(first.backbone.parameters()).detach().flatten()[0].item()
    assert weight == np.float32(bound * ((11749869230777074271 >> 40) / 2**23 - 1))
    assert first.identity == "random:0:39c08950ed07"
    assert load_backbone("tiny3d", "random:0").identity == "random:0:d69bdfefbf21"
    assert load_backbone("tiny", "random:1").identity != first.identity


def test_tiny_grid_tells_where_something_is(network: Callable[[str], Backbone]) -> None:
    frames = torch.zeros(2, 3, 56, 56)
    frames[0, :, 4:20, 4:20] = frames[1, :, 36:52, 36:52] = 1.0
    with torch.inference_mode():
        features = network("tiny")(frames, ("block3", "grid"))
    grid = features["grid"].unflatten(1, (64, 2, 2))
    assert float(grid[0, :, 0, 0].norm()) > 10 * float(grid[0, :, 1, 1].norm())
    assert float(grid[1, :, 1, 1].norm()) > 10 * float(grid[1, :, 0, 0].norm())


def test_tiny3d_sees_the_order_of_its_frames(network: Callable[[str], Backbone]) -> None:
    backbone = network("tiny3d")
    clip = inputs(backbone.info, batch=1)
    with torch.inference_mode():
        assert not torch.allclose(backbone(clip)["block3"], backbone(clip.flip(2))["block3"], atol=1e-3)


def test_average_is_taken_in_float32() -> None:
    values = torch.full((1, 2, 100, 100), 1.0, dtype=torch.bfloat16)
    values[:, 1] = 1.0078125
    assert average(values).dtype == torch.float32
    assert torch.equal(average(values), torch.tensor([[1.0, 1.0078125]]))
    assert average(values[:, :, 0, 0]).shape == (1, 2)
    assert average(values[:, :, None]).shape == (1, 2)


@pytest.mark.parametrize("name", ["tiny", "tiny3d"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_prepare_sets_type_layout_and_mode_and_features_stay_close(name: str, precision: str, network: Callable[[str], Backbone]) -> None:
    backbone = load_backbone(name, "random:0").backbone.train()
    assert prepare(backbone, precision, channels_last=True) is backbone
    frames = inputs(backbone.info)
    layout = MEMORY_FORMATS[frames.dim()]
    assert not backbone.training
    for parameter in backbone.parameters():
        assert parameter.dtype == DTYPES[precision]
        assert not parameter.requires_grad
        assert parameter.dim() != frames.dim() or parameter.is_contiguous(memory_format=layout)
    with torch.inference_mode():
        features = backbone(frames.to(DTYPES[precision]).contiguous(memory_format=layout))
        exact = network(name)(frames)
    for level, values in features.items():
        assert values.dtype == torch.float32
        assert torch.cosine_similarity(values, exact[level]).min() > 0.9995


def test_prepare_keeps_batch_normalisation_in_float32() -> None:
    backbone = prepare(load_backbone("resnet18", "random:0").backbone, "bf16", channels_last=True)
    kinds = {key: value.dtype for key, value in backbone.state_dict().items() if not key.endswith("num_batches_tracked")}
    normalisation = {key for key in kinds if ".bn" in key or key.startswith("bn1") or "downsample.1" in key}
    assert {kinds[key] for key in normalisation} == {torch.float32}
    assert {kinds[key] for key in set(kinds) - normalisation} == {torch.bfloat16}


def test_exact_arithmetic_forbids_tf32_and_puts_switches_back() -> None:
    cudnn, matmul = torch.backends.cudnn, torch.backends.cuda.matmul
    before = cudnn.benchmark, cudnn.deterministic, matmul.fp32_precision, cudnn.conv.fp32_precision  # type: ignore[attr-defined]
    with pytest.raises(KeyError), exact_arithmetic():
        assert (cudnn.benchmark, cudnn.deterministic) == (False, True)
        assert matmul.fp32_precision == cudnn.conv.fp32_precision == "ieee"  # type: ignore[attr-defined]
        raise KeyError("the switches are put back after an error as well")
    assert before == (cudnn.benchmark, cudnn.deterministic, matmul.fp32_precision, cudnn.conv.fp32_precision)  # type: ignore[attr-defined]
