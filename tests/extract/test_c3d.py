"""C3D: parity with the published conversions, Caffe's pooling, the mean cube, and every layout of its weights."""

import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.nn import functional
from torchvision.transforms.v2.functional import center_crop

from extract.backbones import MAP, Backbone, backbone_info
from extract.backbones.c3d import C3D, mean_cube
from extract.checkpoint import fit_state
from extract.downloads import promised_digits
from extract.fit import with_format
from extract.network import Network
from extract.precision import prepare
from extract.presets import preset
from extract.spec import FeatureSpec
from extract.weights import load_backbone
from store.errors import SpecError, UnknownNameError, WeightsError
from store.options import resolve

State = dict[str, torch.Tensor]
Layouts = dict[str, dict[str, list[int]]]
CUBE = "mean_cube"


def shapes(state: Mapping[str, torch.Tensor]) -> dict[str, list[int]]:
    return {key: list(value.shape) for key, value in state.items()}


def empty(name: str = "c3d") -> C3D:
    """Without memory for its weights."""
    with torch.device("meta"):
        return C3D(name, as_caffe=name == "c3d_caffe")


def clip(size: tuple[int, ...] = (1, 3, 16, 112, 112)) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(0).uniform(-1, 1, size).astype(np.float32))


@pytest.fixture(scope="module")
def state(layouts: Layouts, recipe: Callable[..., State]) -> State:
    """The weights behind the reference outputs, with a cube of zeros: the reference's input is what the first layer sees."""
    return {**recipe(layouts["c3d_davidea"]), CUBE: torch.zeros(3, 16, 112, 112)}


@pytest.fixture(scope="module")
def backbone(state: State, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Backbone]:
    """Read from a file, as a user's."""
    path = tmp_path_factory.mktemp("c3d") / "c3d.safetensors"
    safetensors.torch.save_file(state, path)
    yield load_backbone("c3d", str(path), tuple(backbone_info("c3d").dims)).backbone
    path.unlink()  # 300 MB


def test_names_and_shapes_are_the_published_ones(layouts: Layouts) -> None:
    ours = shapes(empty().state_dict())
    assert ours.pop(CUBE) == [3, 16, 112, 112]
    assert ours == layouts["c3d_davidea"]
    assert sum(math.prod(shape) for shape in ours.values()) - 487 * 4097 + 101 * 4097 == 78_409_573  # mmaction2 counts for 101 classes


def test_it_computes_what_the_published_conversion_does(backbone: Backbone, outputs: Mapping[str, np.ndarray]) -> None:
    """One pass over all levels and maps; the conformance tests ask the same of every network, but this one takes seconds a pass."""
    levels = tuple(backbone.info.dims)
    with torch.inference_mode():
        features = backbone(clip(), (*levels, *(level + MAP for level in backbone.info.maps)))
    for level, reference in {"pool5": "pool5_mean", "fc6": "fc6_relu"}.items():
        np.testing.assert_allclose(features[level].numpy(), outputs[f"c3d_davidea/{reference}"], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(features["logits"].softmax(1).numpy(), outputs["c3d_davidea/prob"], rtol=1e-4, atol=1e-7)
    assert [features[level].shape for level in levels] == [(1, backbone.info.dims[level]) for level in levels]
    assert all(torch.equal(features[level], features[level + MAP].mean((2, 3, 4))) for level in backbone.info.maps)
    assert features["pool5" + MAP].shape == (1, 512, 1, 4, 4)
    assert torch.equal(features["pool5_flat"], features["pool5" + MAP].reshape(1, 8192))
    assert features["pool5_flat"].shape == (1, 8192)
    assert min(float(features[level].min()) for level in ("fc6", "fc7")) == 0.0  # after their ReLU


def test_a_clip_does_not_see_its_neighbour_and_a_level_not_those_above(backbone: Backbone) -> None:
    first, second = clip(), clip().flip(2)
    with torch.inference_mode():
        both = backbone(torch.cat([first, second]), ("pool2",))["pool2"]
        alone = backbone(second, ("pool2",))["pool2"]
    torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-6)
    assert not torch.allclose(both[0], both[1], rtol=1e-3)


def pooled(x: np.ndarray, first: int) -> np.ndarray:
    """Largest of windows of 2 x 2 x 2 that start at ``first``, first + 2, ... in space; what lies outside does not count."""
    result = np.full((*x.shape[:2], x.shape[2] // 2, 4, 4), -np.inf, np.float32)
    for row in range(4):
        for column in range(4):
            top, left = first + 2 * row, first + 2 * column
            window = x[..., max(top, 0) : top + 2, max(left, 0) : left + 2].max((3, 4))
            result[..., row, column] = window.reshape(*x.shape[:2], -1, 2).max(3)
    return result


@pytest.mark.parametrize(("name", "first"), [("c3d_caffe", 0), ("c3d", -1)])
def test_windows_of_pool5_start_where_caffe_or_its_conversions_start_them(name: str, first: int) -> None:
    """Caffe rounds 3.5 windows up to 4 and cuts the last; the conversions pad 7 to 9 with what never wins (inputs are negative here)."""
    x = np.random.default_rng(2).uniform(-2, -1, (2, 5, 2, 7, 7)).astype(np.float32)
    assert np.array_equal(empty(name).pool(5, torch.from_numpy(x)).numpy(), pooled(x, first))


@pytest.mark.parametrize(("number", "shape", "expected"), [(1, (16, 112, 112), (16, 56, 56)), (4, (4, 14, 14), (2, 7, 7))])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last_3d])
def test_other_poolings_agree_with_torch(
    number: int, shape: tuple[int, ...], expected: tuple[int, ...], dtype: torch.dtype, layout: torch.memory_format
) -> None:
    x = clip((1, 2, *shape)).to(dtype).contiguous(memory_format=layout)
    x[0, 0, 1, 3, 2] = torch.nan
    for name in ("c3d", "c3d_caffe"):
        ours = empty(name).pool(number, x)
        assert ours.shape == (1, 2, *expected)
        assert ours.is_contiguous(memory_format=layout)
        torch.testing.assert_close(ours, functional.max_pool3d(x, (1, 2, 2) if number == 1 else 2), rtol=0, atol=0, equal_nan=True)


# The mean cube


def test_the_cube_is_subtracted_pixel_by_pixel(backbone: Backbone, state: State) -> None:
    network, cube = empty(), torch.from_numpy(np.random.default_rng(3).uniform(80, 120, (3, 16, 112, 112)).astype(np.float32))
    fit_state(network, {**state, CUBE: cube}, (), Path("c3d.pth"))
    with torch.inference_mode():
        ours = network(clip() + cube, ("pool1",))["pool1"]
        expected = backbone(clip() + cube - cube, ("pool1",))["pool1"]
    torch.testing.assert_close(ours, expected)


def test_a_published_file_without_its_cube_is_refused_with_the_way_to_put_it_in(state: State) -> None:
    words = (
        r"c3d\.pickle does not fit c3d \(23 entries\): 1 missing: mean_cube\. mean_cube belongs to the weights but .* put it in once with "
        r"`actioncache weights convert c3d c3d\.pickle --mean-cube FILE -o OUT\.safetensors` .*mean of the training clips, 0\.\.255, BGR"
    )
    without = {key: value for key, value in state.items() if key != CUBE}
    with pytest.raises(WeightsError, match=words):
        fit_state(empty(), without, (), Path("c3d.pickle"))
    network = empty()
    completed = network.add_extras(network.convert(without), {CUBE: np.full((16, 112, 112, 3), 97.5, np.float32)})
    fit_state(network, completed, (), Path("c3d.safetensors"))
    assert torch.equal(network.mean_cube, torch.full((3, 16, 112, 112), 97.5))


def test_extras_that_it_does_not_take_are_refused() -> None:
    with pytest.raises(UnknownNameError, match="backbone c3d takes no mean_image with its weights; it takes: mean_cube"):
        empty().add_extras({}, {"mean_image": np.zeros(3)})


@pytest.mark.parametrize(("name", "left"), [("c3d", 30), ("c3d_caffe", 29)])
def test_cubes_of_every_published_shape_become_the_same(name: str, left: int) -> None:
    """The centre is where torchvision, or Caffe ((171 - 112) / 2 in whole numbers), cuts 112 x 112 out of 128 x 171."""
    caffe = np.random.default_rng(4).uniform(60, 120, (1, 3, 16, 128, 171)).astype(np.float32)
    centre = torch.from_numpy(caffe[0, ..., 8:120, left : left + 112])
    assert (left == 29) != torch.equal(centre, center_crop(torch.from_numpy(caffe[0]), [112, 112]))
    info = backbone_info(name)
    variants = (caffe, caffe[0], caffe.astype(np.float64), centre.numpy(), centre.numpy()[None], centre.permute(1, 2, 3, 0).numpy())
    for array in variants:
        cube = mean_cube(array, info.centre)
        assert cube.dtype == torch.float32
        assert torch.equal(cube, centre)
    assert torch.equal(mean_cube(np.array([90.25, 97.66, 101.41]), info.centre)[:, 3, 5, 7], torch.tensor([90.25, 97.66, 101.41]))


def test_the_cube_of_a_real_training_set_is_taken(shared_data: Path) -> None:
    array = np.load(shared_data / "c3d" / "crop_mean.npy")
    cube = mean_cube(array, "even")
    assert np.array_equal(cube[2, 5].numpy(), array[5, :, :, 2])
    assert cube.mean((1, 2, 3)).diff().min() > 0  # blue, green, red of UCF-101, as in (90, 98, 101) of Sports-1M: BGR


@pytest.mark.parametrize(
    ("array", "words"),
    [
        (np.zeros((16, 3, 112, 112)), r"is \[16, 3, 112, 112\] float64; give the mean of the training clips"),
        (np.zeros((3, 16, 112, 112), complex), r"is \[3, 16, 112, 112\] complex128; give the mean"),
        (np.zeros(()), r"is \[\] float64; give the mean"),
        (np.full(3, 0.4), r"has values from 0\.4 to 0\.4; give the mean of the training clips, 0\.\.255"),
        (np.array([-1.0, 5, 5]), r"has values from -1 to 5"),
        (np.array([3.0, 5, 256]), r"has values from 3 to 256"),
        (np.array([3.0, 5, np.nan]), r"has values from nan to nan"),
    ],
)
def test_arrays_that_are_no_mean_are_refused(array: np.ndarray, words: str) -> None:
    with pytest.raises(WeightsError, match=words):
        mean_cube(array, "even")


# Layouts


def mmaction2(state: State, prefix: str) -> State:
    """mmaction2's names of the same weights."""
    renamed = {key.replace("conv1.", "conv1a.").replace("conv2.", "conv2a."): value for key, value in state.items() if key != CUBE}
    return {prefix + key.replace(".", ".conv.", 1) if "conv" in key else prefix + key: value for key, value in renamed.items()}


def test_a_backbone_of_mmaction2_is_the_converted_sports1m_model(state: State, layouts: Layouts) -> None:
    theirs = {key: value for key, value in mmaction2(state, "").items() if not key.startswith("fc8.")}
    assert shapes(theirs) == layouts["c3d_mmaction2_backbone"]
    network = empty()
    fit_state(network, network.add_extras(network.convert(theirs), {CUBE: np.zeros(3)}), ("fc7",), Path("c3d.pth"))
    assert "logits" not in network.info.dims
    assert all(torch.equal(value, state[key]) for key, value in network.state_dict().items())


def test_a_whole_file_of_mmaction2_gets_rgb_frames_minus_its_mean(state: State) -> None:
    """Fed our BGR frames, the first layer gives what mmaction2's gives for RGB frames minus 104, 117, 128."""
    theirs = {key: value for key, value in mmaction2(state, "backbone.").items() if "fc8" not in key}
    classifier = {"cls_head.fc_cls.weight": torch.ones(101, 4096), "cls_head.fc_cls.bias": torch.zeros(101)}
    network = empty()
    fit_state(network, {**theirs, **classifier}, ("logits",), Path("c3d_ucf101.pth"))
    assert network.info.dims["logits"] == 101
    rgb = torch.from_numpy(np.random.default_rng(5).uniform(0, 255, (1, 3, 16, 112, 112)).astype(np.float32))
    normalised = rgb - torch.tensor([104.0, 117.0, 128.0]).view(3, 1, 1, 1)
    with torch.inference_mode():
        expected = functional.conv3d(normalised, state["conv1.weight"], state["conv1.bias"], padding=1).relu()
        ours = network(rgb.flip(1), ("pool1" + MAP,))["pool1" + MAP]
    torch.testing.assert_close(ours, functional.max_pool3d(expected, (1, 2, 2)), rtol=1e-4, atol=1e-3)
    network.convert({**theirs, CUBE: torch.zeros(3, 16, 112, 112)})  # a cube that somebody put in stays
    assert float(network.convert({**theirs, CUBE: torch.ones(1)})[CUBE]) == 1.0


def test_layers_of_the_authors_caffe_model_are_known(layouts: Layouts) -> None:
    layers = ("conv1a", "conv2a", "conv3a", "conv3b", "conv4a", "conv4b", "conv5a", "conv5b", "fc6-1", "fc7-1", "fc8-1")
    blobs = {f"{layer}.{index}": torch.zeros(1) for layer in layers for index in (0, 1)}
    assert sorted(empty("c3d_caffe").convert(blobs)) == sorted(layouts["c3d_davidea"])


def test_another_networks_weights_are_refused_without_a_word_about_cubes() -> None:
    with pytest.raises(WeightsError) as caught:
        fit_state(empty(), {"layer1.weight": torch.zeros(3)}, (), Path("w.pth"))
    assert "no entry fits, so these are another network's weights" in str(caught.value)
    assert "weights convert" not in str(caught.value)


@pytest.mark.parametrize("shape", [(1, 3, 16, 128, 128), (1, 3, 8, 112, 112)])
def test_clips_of_another_size_are_refused(shape: tuple[int, ...], backbone: Backbone) -> None:
    length, side = shape[2:4]
    words = rf"c3d takes clips of 16 frames of 112x112, not {length} of {side}x{side}; set --clips\.length 16 --crops\.size 112"
    with pytest.raises(SpecError, match=words):
        backbone(torch.zeros(shape), ("pool1",))


def test_preprocessing_is_caffes() -> None:
    info = backbone_info("c3d")
    assert (info.resize, info.size, info.clip_length, info.fixed_size) == ((171, 128), 112, 16, True)
    assert (info.value_range, info.mean, info.std, info.channel_order) == ((0.0, 255.0), (0.0,), (1.0,), "bgr")
    assert backbone_info("c3d_caffe").dims == info.dims
    assert promised_digits(Path(info.published["ucf101"].url).name) == "31723200"


def test_the_mean_cube_is_subtracted_in_float32_whatever_the_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the first layer gets of frames minus a real cube's kind of values differs from the exact difference by its own rounding."""
    network = C3D()
    random = np.random.default_rng(0)
    cube = torch.from_numpy(random.uniform(88, 114, (3, 16, 112, 112)).astype(np.float32))
    network.mean_cube.copy_(cube)
    prepare(network, "bf16", channels_last=True)
    given: list[torch.Tensor] = []
    monkeypatch.setattr(network.conv1, "forward", lambda x: given.append(x) or x[:, :1].expand(-1, 64, -1, -1, -1))
    frames = torch.from_numpy(random.integers(0, 256, (1, 3, 16, 112, 112))).to(torch.bfloat16)
    next(network.stages(frames))
    exact = frames.double() - cube.double()
    assert given[0].dtype == torch.bfloat16
    assert ((given[0].double() - exact).abs() <= exact.abs() * 2**-8 + 1e-6).all()


def test_stores_of_the_rounded_cube_and_of_repeated_flows_stay_apart() -> None:
    c3d = {"backbone": "c3d", "clips": {"rule": "sliding"}}
    formats = [
        with_format(resolve(FeatureSpec, {**settings, "format": 1}), backbone_info(settings.get("backbone", "tiny")), extras).format
        for settings, extras in (
            (c3d, C3D.extras),
            ({**c3d, "precision": "bf16"}, C3D.extras),
            ({"precision": "bf16"}, {}),
            (preset("tsn-flow-tencrop"), {}),
            (preset("tsn-rgb-tencrop"), {}),
            (preset("i3d-flow"), {}),
            (preset("st-resnet"), {}),
            ({**c3d, "backbone": "c3d_caffe"}, C3D.extras),
            ({**c3d, "backbone": "c3d_caffe", "precision": "bf16"}, C3D.extras),
        )
    ]
    assert formats == [1, 2, 1, 2, 1, 1, 1, 3, 3]


@pytest.mark.parametrize(("name", "left"), [("c3d", 30), ("c3d_caffe", 29)])
@pytest.mark.parametrize("count", [1, 10])
def test_each_pixel_of_the_centre_crop_loses_its_own_mean(name: str, left: int, count: int) -> None:
    """The extraction cuts frames of 128 x 171 where the cube of the same size is cut."""
    whole = np.random.default_rng(0).integers(60, 120, (3, 16, 128, 171)).astype(np.float32)
    frames = torch.from_numpy(whole[::-1].copy()).byte().permute(1, 2, 3, 0)  # RGB
    spec = resolve(FeatureSpec, {"backbone": name, "crops": {"resize": [171, 128], "size": 112, "count": count}})
    network = Network(empty(name), spec, torch.device("cpu"))
    resized = network.resize(frames)
    images = network.images(network.cut(resized)[None])[4 if count == 10 else 0]
    assert torch.equal(images, mean_cube(whole, network.backbone.info.centre))
    assert torch.equal(images, torch.from_numpy(whole[..., 8:120, left : left + 112]))
