"""I3D: parity with both conversions, the published features, DeepMind's variables, and every layout of its weights."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional

from extract.backbones import MAP, Backbone, backbone_info
from extract.backbones.i3d import I3D, same_padding
from extract.backbones.i3d_names import from_tensorflow
from extract.checkpoint import fit_state
from extract.weights import load_backbone
from store.errors import WeightsError

State = dict[str, torch.Tensor]
Layouts = dict[str, dict[str, list[int]]]
CHANNELS = {"rgb": 3, "flow": 2}


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}


def empty(modality: str) -> I3D:
    """Without memory for its weights."""
    with torch.device("meta"):
        return I3D(modality)


def clip(modality: str, seed: int = 0, length: int = 16, height: int = 224, width: int = 224) -> torch.Tensor:
    shape = (1, CHANNELS[modality], length, height, width)
    return torch.from_numpy(np.random.default_rng(seed).uniform(-1, 1, shape).astype(np.float32))


def odd_clip(modality: str) -> torch.Tensor:
    return clip(modality, 1, 17, 200, 230)


def run(backbone: Backbone, frames: torch.Tensor, *levels: str) -> dict[str, np.ndarray]:
    with torch.inference_mode():
        return {level: values.numpy() for level, values in backbone(frames, levels).items()}


def assert_close(ours: np.ndarray, theirs: np.ndarray) -> None:
    np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-5 * float(np.abs(theirs).max()))


@pytest.fixture(scope="module")
def loaded(layouts: Layouts, recipe: Callable[..., State], tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Backbone]:
    """``loaded(layout)``: the network with the reference's weights, read from a file in that layout as a user's is."""
    made: dict[str, Backbone] = {}

    def get(layout: str) -> Backbone:
        if layout not in made:
            path = tmp_path_factory.mktemp("i3d") / "i3d.pth"
            torch.save(recipe(layouts[layout]), path)
            made[layout] = load_backbone(f"i3d_{layout.rpartition('_')[2]}", str(path), ("logits",)).backbone
        return made[layout]

    return get


# Parity


def test_piergiajs_conversion_is_reproduced(loaded: Callable[[str], Backbone], outputs: Mapping[str, np.ndarray]) -> None:
    layout = "i3d_piergiaj_flow"
    backbone = loaded(layout)
    ours = run(backbone, clip("flow"), "features", "logits")
    assert_close(ours["features"], outputs[f"{layout}/features"].reshape(1, 1024))
    assert_close(ours["logits"], outputs[f"{layout}/logits"].mean(2))
    odd = run(backbone, odd_clip("flow"), "mixed_5c" + MAP)["mixed_5c" + MAP]
    assert_close(odd.mean((3, 4)), outputs[f"{layout}/odd_17x200x230/mixed_5c_mean"])


def test_hassony2s_conversion_is_reproduced(loaded: Callable[[str], Backbone], outputs: Mapping[str, np.ndarray]) -> None:
    ours = run(loaded("i3d_hassony2_rgb"), clip("rgb"), "mixed_5c" + MAP, "logits")
    assert_close(ours["mixed_5c" + MAP].mean((3, 4)), outputs["i3d_hassony2_rgb/mixed_5c_mean"])
    assert_close(ours["logits"], outputs["i3d_hassony2_rgb/logits"])


def pool_of_hassony2(x: torch.Tensor, kernel: tuple[int, ...], stride: tuple[int, ...]) -> torch.Tensor:
    """In space its padding is that of sizes which the stride divides, whatever the size; rounding up makes room for the last window."""
    sizes = (x.shape[2], *(size * step for size, step in zip(x.shape[3:], stride[1:], strict=True)))
    sides = [same_padding(*axis) for axis in zip(sizes, kernel, stride, strict=True)]
    inside = functional.pad(x, [count for pair in reversed(sides) for count in pair])
    return functional.max_pool3d(inside, kernel, stride, ceil_mode=True)


def test_at_odd_sizes_hassony2s_conversion_differs_from_tensorflow_by_its_pooling_alone(
    loaded: Callable[[str], Backbone], outputs: Mapping[str, np.ndarray], monkeypatch: pytest.MonkeyPatch
) -> None:
    backbone, theirs = loaded("i3d_hassony2_rgb"), outputs["i3d_hassony2_rgb/odd_17x200x230/mixed_5c_mean"]
    ours = run(backbone, odd_clip("rgb"), "mixed_5c" + MAP)["mixed_5c" + MAP].mean((3, 4))
    assert 0.01 < np.abs(ours - theirs).max() < 0.5
    monkeypatch.setattr("extract.backbones.i3d.max_pool", pool_of_hassony2)
    assert_close(run(backbone, odd_clip("rgb"), "mixed_5c" + MAP)["mixed_5c" + MAP].mean((3, 4)), theirs)


def test_features_are_means_over_pairs_in_time_and_seven_by_seven_in_space(loaded: Callable[[str], Backbone]) -> None:
    """With 24 frames there are three places in time, of which the middle one counts twice."""
    ours = run(loaded("i3d_piergiaj_flow"), clip("flow", 2, 24, 224, 256), "mixed_5c" + MAP, "features", "logits")
    place = ours["mixed_5c" + MAP][0]
    assert place.shape == (1024, 3, 7, 8)
    means = [place[:, t : t + 2, :, column : column + 7].mean((1, 2, 3)) for t in (0, 1) for column in (0, 1)]
    assert_close(ours["features"][0], np.mean(means, 0))
    classifier = loaded("i3d_piergiaj_flow").state_dict()
    weight, bias = (classifier[f"logits.conv3d.{name}"].numpy() for name in ("weight", "bias"))
    assert_close(ours["logits"][0], weight.reshape(400, 1024) @ ours["features"][0] + bias)  # a mean of scores is the score of the mean


def test_the_shortest_clip_leaves_two_places_in_time(loaded: Callable[[str], Backbone]) -> None:
    backbone = loaded("i3d_hassony2_rgb")
    for length, places in ((backbone.info.shortest_clip, 2), (backbone.info.shortest_clip - 1, 1)):
        level = "mixed_5c" + MAP
        assert run(backbone, clip("rgb", 3, length, 32, 32), level)[level].shape == (1, 1024, places, 1, 1)


# Names


@pytest.mark.parametrize("modality", ["rgb", "flow"])
def test_names_and_shapes_are_the_published_ones(modality: str, layouts: Layouts) -> None:
    network = empty(modality)
    assert shapes(network.state_dict()) == layouts[f"i3d_piergiaj_{modality}"]
    theirs = {key: torch.empty(shape, device="meta") for key, shape in layouts[f"i3d_hassony2_{modality}"].items()}
    assert shapes(network.convert(theirs)) == shapes(network.state_dict())


@pytest.fixture(scope="module")
def variables(shared_data: Path) -> dict[str, dict[str, list[int]]]:
    """Checkpoint of DeepMind -> its variables' names and shapes."""
    content = json.loads((shared_data / "i3d" / "variables.json").read_text())
    return {checkpoint: dict(pairs) for checkpoint, pairs in content.items()}


@pytest.mark.parametrize("checkpoint", ["rgb_imagenet", "rgb_scratch", "rgb_scratch_kin600", "flow_imagenet", "flow_scratch"])
def test_every_variable_of_deepminds_checkpoints_finds_its_place(checkpoint: str, variables: dict[str, dict[str, list[int]]]) -> None:
    network = empty(checkpoint.partition("_")[0])
    converted = network.convert({name: torch.empty(shape, device="meta") for name, shape in variables[checkpoint].items()})
    expected = {key: shape for key, shape in shapes(network.state_dict()).items() if not key.endswith("num_batches_tracked")}
    assert shapes(converted) == expected
    assert network.info.dims["logits"] == (600 if checkpoint.endswith("kin600") else 400)


def to_tensorflow(state: State, names: Mapping[str, list[int]]) -> dict[str, np.ndarray]:
    """Weights as DeepMind's checkpoint holds them: its names and shapes, filters as [t, h, w, in, out], no scales."""
    arrays = {}
    for name, shape in names.items():
        key = next(iter(from_tensorflow({name: torch.zeros(1)})))
        value = state[key].numpy()
        arrays[name] = np.ascontiguousarray(value.transpose(2, 3, 4, 1, 0) if value.ndim == 5 else value).reshape(shape)
    return arrays


def test_deepminds_checkpoint_is_read_and_computes_the_same(
    layouts: Layouts,
    recipe: Callable[..., State],
    variables: dict[str, dict[str, list[int]]],
    tensor_bundle: Callable[..., Path],
    tmp_path: Path,
) -> None:
    """Sonnet's batch normalisation has no scale: it is (x - mean) / sqrt(variance + 0.001) + beta."""
    state = recipe(layouts["i3d_piergiaj_flow"])
    path = tensor_bundle(tmp_path / "model.ckpt.index", to_tensorflow(state, variables["flow_imagenet"]))
    backbone = load_backbone("i3d_flow", str(path), ("logits",)).backbone
    plain = I3D("flow").eval()
    plain.load_state_dict({key: torch.ones_like(value) if key.endswith("bn.weight") else value for key, value in state.items()})
    frames = clip("flow", 4, 9, 64, 64)
    assert np.array_equal(run(backbone, frames, "logits")["logits"], run(plain, frames, "logits")["logits"])
    for name in ("Conv3d_1a_7x7", "Mixed_5b.b2b"):
        assert torch.equal(backbone.state_dict()[f"{name}.conv3d.weight"], state[f"{name}.conv3d.weight"])


def test_weights_of_the_other_stream_and_of_other_networks_are_refused(layouts: Layouts) -> None:
    flow = {key: torch.zeros(shape) for key, shape in layouts["i3d_hassony2_flow"].items()}
    words = r"w\.pth does not fit i3d_rgb \(287 entries\): 1 of another shape or type: Conv3d_1a_7x7\.conv3d\.weight is \[64, 2, 7, 7, 7\] "
    with pytest.raises(WeightsError, match=words):
        fit_state(empty("rgb"), flow, ("logits",), Path("w.pth"))
    with pytest.raises(WeightsError, match=r"1 missing: Mixed_4b\.b3b\.bn\.running_var; 1 unexpected: Mixed_4b\.b3b\.bn\.moving"):
        strange = {key.replace("mixed_4b.branch_3.1.batch3d.running_var", "Mixed_4b.b3b.bn.moving"): value for key, value in flow.items()}
        fit_state(empty("flow"), strange, ("logits",), Path("w.pth"))


def test_the_number_of_classes_is_the_files(layouts: Layouts) -> None:
    state = {key: torch.zeros(shape) for key, shape in layouts["i3d_piergiaj_rgb"].items()}
    charades = {**state, "logits.conv3d.weight": torch.zeros(157, 1024, 1, 1, 1), "logits.conv3d.bias": torch.zeros(157)}
    network = empty("rgb")
    fit_state(network, charades, ("logits",), Path("rgb_charades.pt"))
    assert network.info.dims["logits"] == 157
    headless = empty("rgb")
    fit_state(headless, {key: value for key, value in state.items() if not key.startswith("logits")}, ("features",), Path("w.pt"))
    assert "logits" not in headless.info.dims


def test_preprocessing_is_deepminds() -> None:
    for modality, channels in CHANNELS.items():
        info = backbone_info(f"i3d_{modality}")
        assert (info.channels, info.modality, info.clip_length, info.fps) == (channels, modality, 64, 25.0)
        assert (info.resize, info.size, info.value_range, info.mean, info.std) == ((256,), 224, (-1.0, 1.0), (0.0,), (1.0,))
        assert [info.dims[level] for level in ("conv3d_2c", "mixed_3c", "mixed_4f", "mixed_5c", "features")] == [192, 480, 832, 1024, 1024]
