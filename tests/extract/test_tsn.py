"""Networks of temporal segment networks: the layouts of published files, parity with their authors' networks, Caffe's pooling."""

import json
import math
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch

from extract.backbones import Backbone, backbone_info
from extract.backbones.bn_inception import BnInception, caffe_max_pool
from extract.backbones.cross_modality import from_rgb
from extract.backbones.tsn_resnet import TsnResNet50, rename
from extract.checkpoint import read_state
from extract.downloads import promised_digits
from extract.weights import LoadedBackbone, load_backbone
from store.errors import SpecError, WeightsError

State = dict[str, torch.Tensor]


def recipe(shapes: Mapping[str, list[int]]) -> State:
    """The weights of ``checkpoints/outputs.npz``, from the names and shapes of its layout alone."""
    state = {}
    for key, shape in shapes.items():
        noise = np.random.default_rng(zlib.crc32(key.encode())).standard_normal(shape)
        if key.endswith("num_batches_tracked"):
            state[key] = torch.zeros(shape, dtype=torch.int64)
            continue
        if key.endswith("running_var"):
            noise = 1 + 0.1 * np.abs(noise)
        elif key.endswith(("running_mean", "bias")):
            noise = 0.1 * noise
        else:
            noise = 1 + 0.1 * noise if len(shape) == 1 else noise * math.sqrt(2 / math.prod(shape[1:]))
        state[key] = torch.from_numpy(np.asarray(noise, np.float32))
    return state


@pytest.fixture(scope="module")
def layouts(shared_data: Path) -> dict[str, dict[str, list[int]]]:
    content: dict[str, dict[str, list[int]]] = json.loads((shared_data / "checkpoints" / "keys.json").read_text())
    return content


@pytest.fixture(scope="module")
def outputs(shared_data: Path) -> Mapping[str, np.ndarray]:
    return np.load(shared_data / "checkpoints" / "outputs.npz")


@pytest.fixture(scope="module")
def inception_state(layouts: dict[str, dict[str, list[int]]]) -> State:
    return recipe(layouts["tsn_bninception"])


def picture() -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, (1, 3, 224, 224)).astype(np.float32))


def load(tmp_path: Path, name: str, content: object, levels: tuple[str, ...] = ()) -> LoadedBackbone:
    torch.save(content, tmp_path / "weights.pth")
    return load_backbone(name, str(tmp_path / "weights.pth"), levels)


def run(backbone: Backbone, frames: torch.Tensor, *levels: str) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {name: values.numpy() for name, values in backbone(frames, levels).items()}


def assert_same(first: Backbone, second: Backbone) -> None:
    ours, theirs = first.state_dict(), second.state_dict()
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in ours)


# BN-Inception


def test_inception_has_every_published_entry_and_no_other(layouts: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        state = BnInception("rgb").state_dict()
    theirs = layouts["tsn_bninception"]
    counters = {key for key in state if key.endswith("num_batches_tracked")}
    assert {key: list(value.shape) for key, value in state.items() if key not in counters} == {
        key: shape for key, shape in theirs.items() if key not in counters
    }
    assert counters == {key for key in theirs if key.endswith("num_batches_tracked")}


def test_inception_computes_what_its_authors_network_does(
    inception_state: State, outputs: Mapping[str, np.ndarray], tmp_path: Path
) -> None:
    backbone = load(tmp_path, "tsn_bninception_rgb", inception_state, ("global_pool", "logits")).backbone
    ours = run(backbone, picture(), "global_pool", "logits")
    for level, values in ours.items():
        theirs = outputs[f"tsn_bninception/{level}"].reshape(values.shape)
        np.testing.assert_allclose(values, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


def tsn_pytorch(state: State, classes: int) -> State:
    """As tsn-pytorch's training program saves a network: wrapped twice, its classifier outside, batch normalisation of old torch."""
    renamed = {f"module.base_model.{key}": value for key, value in state.items() if not key.startswith("fc.")}
    old = {key: value[None] if "_bn." in key and value.dim() == 1 else value for key, value in renamed.items()}
    generator = torch.Generator().manual_seed(1)
    classifier = {"weight": torch.randn(classes, 1024, generator=generator), "bias": torch.zeros(classes)}
    return {**old, **{f"module.new_fc.{key}": value for key, value in classifier.items()}}


def test_tsn_pytorchs_files_load_with_their_own_classes(inception_state: State, tmp_path: Path) -> None:
    content = {"epoch": 80, "arch": "BNInception", "best_prec1": 0.85, "state_dict": tsn_pytorch(inception_state, 101)}
    loaded = load(tmp_path, "tsn_bninception_rgb", content, ("global_pool", "logits")).backbone
    assert loaded.info.dims["logits"] == 101
    plain = load(tmp_path, "tsn_bninception_rgb", inception_state).backbone
    frames = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(2)) * 255
    ours, expected = run(loaded, frames, "global_pool", "logits"), run(plain, frames, "global_pool")
    assert np.array_equal(ours["global_pool"], expected["global_pool"])
    weight = content["state_dict"]["module.new_fc.weight"].numpy()  # type: ignore[index]
    np.testing.assert_allclose(ours["logits"], expected["global_pool"] @ weight.T, rtol=1e-4, atol=1e-3)


def test_pretrainedmodels_name_of_the_classifier_is_known(inception_state: State, tmp_path: Path) -> None:
    renamed = {key.replace("fc.", "last_linear.", 1) if key.startswith("fc.") else key: value for key, value in inception_state.items()}
    assert_same(
        load(tmp_path, "tsn_bninception_rgb", renamed, ("logits",)).backbone,
        load(tmp_path, "tsn_bninception_rgb", inception_state, ("logits",)).backbone,
    )


def test_the_published_kinetics_files_have_no_classifier(inception_state: State, tmp_path: Path) -> None:
    """Saved as ``{"state_dict": ...}`` of the base model, so the level ``logits`` is not there, and said not to be."""
    headless = {key: value[None] if "_bn." in key and value.dim() else value for key, value in inception_state.items() if "fc." not in key}
    loaded = load(tmp_path, "tsn_bninception_rgb", {"state_dict": headless}).backbone
    assert list(loaded.info.dims) == ["inception_3c", "inception_4e", "global_pool"]
    with pytest.raises(WeightsError, match=r"2 missing: fc\.weight, fc\.bias"):
        load(tmp_path, "tsn_bninception_rgb", {"state_dict": headless}, ("logits",))


def test_rgb_weights_never_become_flow_by_accident(inception_state: State, tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError,
        match=r"weights\.pth: these are weights of an RGB network: conv1_7x7_s2\.weight takes 3 channels, but tsn_bninception_flow takes "
        r"10 .*`actioncache weights convert tsn_bninception_flow FILE --cross-modality -o OUT`",
    ):
        load(tmp_path, "tsn_bninception_flow", inception_state)


def test_rgb_weights_become_flow_on_purpose(inception_state: State, tmp_path: Path) -> None:
    torch.save({"state_dict": tsn_pytorch(inception_state, 101)}, tmp_path / "rgb.pth")
    with torch.device("meta"):
        network = BnInception("flow")
    spread = from_rgb(network, read_state((tmp_path / "rgb.pth").read_bytes(), tmp_path / "rgb.pth"))
    backbone = load(tmp_path, "tsn_bninception_flow", spread).backbone
    filters = backbone.state_dict()["conv1_7x7_s2.weight"]
    mean = inception_state["conv1_7x7_s2.weight"].numpy().astype(np.float64).mean(1)
    assert filters.shape == (64, 10, 7, 7)
    np.testing.assert_allclose(filters.numpy(), np.repeat(mean[:, None], 10, 1), rtol=0, atol=1e-6)


@pytest.mark.parametrize("side", [4, 5, 27, 28, 56, 112])
def test_pooling_rounds_up_as_caffe(side: int) -> None:
    """Caffe's size and windows, written out: ceil((h - 3) / 2) + 1 windows from 0, 2, 4, ..., cut off at the end."""
    values = np.random.default_rng(side).normal(size=(side, side)).astype(np.float32)
    count = math.ceil((side - 3) / 2) + 1
    expected = [[values[2 * i : 2 * i + 3, 2 * j : 2 * j + 3].max() for j in range(count)] for i in range(count)]
    assert np.array_equal(caffe_max_pool(torch.from_numpy(values)[None, None])[0, 0].numpy(), np.array(expected))


@pytest.mark.parametrize(("height", "width", "fits"), [(256, 320, True), (64, 96, True), (240, 224, False), (224, 340, False)])
def test_inception_takes_sides_that_are_multiples_of_32(height: int, width: int, fits: bool) -> None:
    with torch.device("meta"):
        backbone, frames = BnInception("rgb").eval(), torch.zeros(1, 3, height, width)
    if fits:
        assert backbone(frames, ("global_pool.map",))["global_pool.map"].shape == (1, 1024, height // 32, width // 32)
        return
    with pytest.raises(SpecError, match=rf"sides are multiples of 32, not {height}x{width}; set --crops.size 224"):
        backbone(frames)


def test_inception_is_fed_as_caffe_was() -> None:
    rgb, flow = backbone_info("tsn_bninception_rgb"), backbone_info("tsn_bninception_flow")
    assert (rgb.channel_order, rgb.mean, rgb.std, rgb.value_range) == ("bgr", (104.0, 117.0, 123.0), (1.0,), (0.0, 255.0))
    assert (flow.modality, flow.channels, flow.mean, flow.value_range) == ("flow", 10, (128.0,), (0.0, 255.0))
    assert rgb.dims["global_pool"] == flow.dims["global_pool"] == 1024


def test_random_inception_does_not_fade_away() -> None:
    build: Callable[[str, str], LoadedBackbone] = load_backbone
    first, again, other = (build("tsn_bninception_flow", f"random:{seed}") for seed in (0, 0, 1))
    assert first.identity == again.identity != other.identity
    features = run(first.backbone, torch.randn(2, 10, 64, 64, generator=torch.Generator().manual_seed(0)))["global_pool"]
    assert 0.05 < features.std() < 50


# mmaction2's ResNet-50


@pytest.fixture(scope="module")
def resnet_state(layouts: dict[str, dict[str, list[int]]]) -> State:
    return recipe(layouts["tsn_mmaction2_resnet50_backbone"])


def mmaction2(state: State, classes: int) -> dict[str, object]:
    """A whole file of mmaction2: the recogniser's prefixes, and a classifier."""
    head = {"cls_head.fc_cls.weight": torch.ones(classes, 2048), "cls_head.fc_cls.bias": torch.arange(classes).float()}
    return {"meta": {"mmaction2_version": "0.5.0"}, "state_dict": {**{f"backbone.{key}": value for key, value in state.items()}, **head}}


def test_resnet_has_every_published_entry_and_no_other(layouts: dict[str, dict[str, list[int]]]) -> None:
    with torch.device("meta"):
        ours = {key: list(value.shape) for key, value in TsnResNet50("rgb").state_dict().items() if not key.startswith("fc.")}
    theirs = layouts["tsn_mmaction2_resnet50_backbone"]
    assert {rename(key): shape for key, shape in theirs.items()} == ours
    assert len(theirs) == len(ours) == 318


def test_resnet_computes_what_mmaction2s_does(resnet_state: State, outputs: Mapping[str, np.ndarray], tmp_path: Path) -> None:
    for content in (resnet_state, mmaction2(resnet_state, 51)):  # a backbone alone, and a whole recogniser
        ours = run(load(tmp_path, "tsn_resnet50_rgb", content).backbone, picture(), "block4")["block4"]
        theirs = outputs["tsn_mmaction2_resnet50/layer4_mean"]
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


def test_mmaction2s_files_load_with_their_own_classes(resnet_state: State, tmp_path: Path) -> None:
    backbone = load(tmp_path, "tsn_resnet50_rgb", mmaction2(resnet_state, 51), ("block4", "logits")).backbone
    assert backbone.info.dims["logits"] == 51
    values = run(backbone, torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0)), "block4", "logits")
    expected = values["block4"].sum(1, keepdims=True) + np.arange(51)
    np.testing.assert_allclose(values["logits"], expected, rtol=1e-4)


def test_resnet_flow_starts_from_rgb_on_purpose_only(resnet_state: State, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"conv1\.weight takes 3 channels, .*`actioncache weights convert tsn_resnet50_flow FILE"):
        load(tmp_path, "tsn_resnet50_flow", mmaction2(resnet_state, 400))
    with torch.device("meta"):
        network = TsnResNet50("flow")
    backbone = load(tmp_path, "tsn_resnet50_flow", from_rgb(network, resnet_state)).backbone
    mean = resnet_state["conv1.conv.weight"].numpy().astype(np.float64).mean(1)
    np.testing.assert_allclose(backbone.state_dict()["conv1.weight"].numpy(), np.repeat(mean[:, None], 10, 1), rtol=0, atol=1e-6)


def test_resnet_is_fed_as_mmaction2_does() -> None:
    rgb, flow = backbone_info("tsn_resnet50_rgb"), backbone_info("tsn_resnet50_flow")
    assert (rgb.mean, rgb.std, rgb.value_range, rgb.channel_order) == ((123.675, 116.28, 103.53), (58.395, 57.12, 57.375), (0, 255), "rgb")
    assert (flow.modality, flow.channels, flow.mean, flow.std) == ("flow", 10, (128.0,), (128.0,))


def test_published_files_promise_their_digits() -> None:
    for name in ("tsn_bninception_rgb", "tsn_bninception_flow", "tsn_resnet50_rgb", "tsn_resnet50_flow"):
        published = backbone_info(name).published
        assert published
        assert all(promised_digits(Path(file.url).name) for file in published.values())
