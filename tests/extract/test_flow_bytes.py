"""Flow as bytes, mirrors and normalisation of each family, against their formulas written out."""

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms import v2

from extract.backbones import BackboneInfo
from extract.crops import crop_boxes, cut, normalise
from extract.flow_bytes import flow_bytes, mirrored_channels
from extract.spec import FlowSpec
from store.errors import SpecError

KINDS = ("symmetric", "dense_flow", "i3d")


def pairs(quantise: str, count: int = 1, **settings: object) -> FlowSpec:
    return FlowSpec(method="dis", encoding="pairs", pairs=count, quantise=quantise, **settings)  # type: ignore[arg-type]


def field(bound: float = 20.0) -> np.ndarray:
    """Displacements within and beyond the bound, and the ones that fall on halves: float32 [41, 50, 2]."""
    flow = np.random.default_rng(0).normal(0, bound, (41, 50, 2)).astype(np.float32)
    flow[0, :8, 0] = [0, bound, -bound, 1e30, -1e30, bound / 2, -bound / 2, 0.01]
    flow[1, :, 0] = (np.arange(50) + 0.5) * 2 * bound / 255 - bound  # bytes of dense_flow exactly between two numbers
    return flow


def cast(v: float, bound: float) -> int:
    """dense_flow's macro, in C's terms: double precision, and halves to even as cvRound does."""
    return 255 if v > bound else 0 if v < -bound else round(255 * (v + bound) / (2 * bound))


@pytest.mark.parametrize("bound", [15.0, 20.0])
def test_dense_flow_is_the_tools_cast(bound: float) -> None:
    flow = field(bound)
    ours = flow_bytes(flow, pairs("dense_flow", bound=bound))
    expected = [cast(float(v), bound) for v in flow.ravel()]
    assert ours.dtype == np.uint8
    assert ours.shape == flow.shape
    assert ours.ravel().tolist() == expected
    assert ours[0, :7, 0].tolist() == [128, 255, 0, 255, 0, 191, 64]  # 127.5 and 191.25 and 63.75


def test_i3d_is_the_ports_formula_in_a_byte() -> None:
    flow = field()
    exact = (128 + 255 / 40 * torch.from_numpy(flow).clamp(-20, 20)).round()  # as the ports write it
    ours = flow_bytes(flow, pairs("i3d"))
    assert exact.max() == 256  # which a byte cannot hold
    assert np.array_equal(ours, exact.clamp(max=255).numpy().astype(np.uint8))
    assert ours[0, :5, 0].tolist() == [128, 255, 0, 255, 0]


@pytest.mark.parametrize("bound", [1.0, 20.0])
def test_symmetric_is_its_formula(bound: float) -> None:
    flow = field(bound)
    exact = 128 + 127 * np.clip(flow.astype(np.float64), -bound, bound) / bound
    ours = flow_bytes(flow, pairs("symmetric", bound=bound))
    assert np.abs(ours - exact).max() <= 0.5 + 1e-4
    assert ours[0, :5, 0].tolist() == [128, 255, 1, 255, 1]


@pytest.mark.parametrize("quantise", KINDS)
def test_an_image_holds_the_same_components_and_the_magnitude(quantise: str) -> None:
    flow = field()
    image = flow_bytes(flow, FlowSpec(method="dis", quantise=quantise))  # type: ignore[arg-type]
    magnitude = 255 * np.minimum(np.sqrt((flow.astype(np.float64) ** 2).sum(-1)), 20) / 20
    assert np.array_equal(image[..., :2], flow_bytes(flow, pairs(quantise)))
    assert np.abs(image[..., 2] - magnitude).max() <= 0.5 + 1e-4


# Mirrors


@pytest.mark.parametrize(("quantise", "tolerance"), [("symmetric", 0), ("dense_flow", 0), ("i3d", 1)])
def test_a_mirrored_crop_holds_the_bytes_of_the_mirrored_flow(quantise: str, tolerance: int) -> None:
    """Flow of the mirrored video is the mirrored field with x negated. dense_flow's halves, no motion among them, go to even both times."""
    flow = field()
    flow[:2] = np.random.default_rng(1).normal(0, 5, flow[:2].shape)  # no halves
    mirrored = flow[:, ::-1] * np.float32([-1, 1])
    spec = pairs(quantise)
    plain, other = (torch.from_numpy(flow_bytes(each, spec)).permute(2, 0, 1)[None] for each in (flow, mirrored))
    crops, expected = (cut(image, crop_boxes(41, 50, 32, 10), spec)[0].int() for image in (plain, other))
    assert (crops[5:] - expected[:5]).abs().max() <= tolerance  # the i-th mirrored crop is the i-th crop of the mirrored frame


def test_mirrors_of_dense_flow_are_255_minus_x() -> None:
    """As TSN and two-stream networks were trained: no motion is 128, and 127 in a mirror. The expected bytes are PIL's."""
    still = torch.full((1, 2, 32, 32), 128, dtype=torch.uint8)
    assert (cut(still, crop_boxes(32, 32, 32, 10), pairs("dense_flow"))[0, 5:, 0] == 127).all()
    assert (cut(still, crop_boxes(32, 32, 32, 10), pairs("symmetric"))[0, 5:, 0] == 128).all()
    assert (cut(still, crop_boxes(32, 32, 32, 10), pairs("i3d"))[0, 5:, 0] == 128).all()
    image = torch.arange(256, dtype=torch.uint8).view(1, 1, 16, 16).repeat(1, 2, 1, 1)
    ours = cut(image, crop_boxes(16, 16, 16, 10), pairs("dense_flow"))[0, 5, 0].numpy()
    assert np.array_equal(ours, np.asarray(ImageOps.invert(ImageOps.mirror(Image.fromarray(image[0, 0].numpy())))))


@pytest.mark.parametrize(
    ("spec", "inverted", "channels"),
    [
        (FlowSpec(method="dis"), [0], 3),
        (pairs("i3d"), [0], 2),
        (pairs("dense_flow", 5), [0, 2, 4, 6, 8], 10),
        (pairs("dense_flow", 3, with_rgb=True), [3, 5, 7], 9),
        (pairs("symmetric", 1, with_rgb=True), [3], 5),
    ],
)
def test_mirrored_crops_invert_motion_to_the_right_and_nothing_else(spec: FlowSpec, inverted: list[int], channels: int) -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(1, 256, (2, channels, 40, 50), np.uint8))
    before = frames.clone()
    crops = cut(frames, crop_boxes(40, 50, 32, 10), spec).int()
    plain = torch.stack(v2.TenCrop(32)(frames), 1).int()
    others = [channel for channel in range(channels) if channel not in inverted]
    total = 255 if spec.quantise == "dense_flow" else 256
    assert list(range(channels))[mirrored_channels(spec)] == inverted
    assert torch.equal(crops[:, :5], plain[:, :5])
    assert torch.equal(crops[:, 5:, inverted], (total - plain[:, 5:, inverted]).clamp(max=255))
    assert torch.equal(crops[:, 5:, others], plain[:, 5:, others])
    assert torch.equal(frames, before)


def test_rgb_crops_invert_nothing() -> None:
    frames = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 3, 40, 50), np.uint8))
    assert torch.equal(cut(frames, crop_boxes(40, 50, 32, 10), FlowSpec()), torch.stack(v2.TenCrop(32)(frames), 1))


# Normalisation


def test_every_channel_has_its_own_mean_and_deviation() -> None:
    mean, std = (0.485, 0.456, 0.406, *(0.5,) * 4), (0.229, 0.224, 0.225, *(0.226,) * 4)
    info = BackboneInfo("both", {"last": 1}, channels=7, mean=mean, std=std, modality="rgb+flow")
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 7, 4, 4), np.uint8))
    expected = (crops.numpy().astype(np.float64) / 255 - np.reshape(mean, (7, 1, 1))) / np.reshape(std, (7, 1, 1))
    np.testing.assert_allclose(normalise(crops, info).numpy(), expected, rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("modality", "channels", "order"), [("rgb", 3, [2, 1, 0]), ("rgb+flow", 7, [2, 1, 0, 3, 4, 5, 6]), ("flow", 4, [0, 1, 2, 3])]
)
def test_bgr_turns_the_order_of_rgb_alone(modality: str, channels: int, order: list[int]) -> None:
    mean = tuple(float(10 * channel) for channel in range(channels))  # in the network's order
    info = BackboneInfo(
        "caffe", {"last": 1}, channels=channels, mean=mean, std=(1.0,), value_range=(0, 255), channel_order="bgr", modality=modality
    )  # type: ignore[arg-type]
    crops = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (2, 5, channels, 4, 4), np.uint8))
    expected = crops.numpy()[:, :, order].astype(np.float64) - np.reshape(mean, (channels, 1, 1))
    np.testing.assert_allclose(normalise(crops, info).numpy(), expected, rtol=0, atol=1e-4)


# The spec


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"pairs": 5}, r"flow\.encoding is image, which has no flow\.pairs; set --flow\.encoding pairs"),
        ({"with_rgb": True, "pairs": 2}, r"flow\.encoding is image, which has no flow\.pairs and no flow\.with_rgb;"),
        ({"encoding": "pairs", "pairs": 0}, r"flow\.pairs is 0; it must be at least 1"),
        ({"encoding": "pairs", "pairs": 10, "offset": -11}, r"flow\.offset is -11; it must be from -10 .* to 0"),
        ({"encoding": "pairs", "offset": 1}, r"flow\.offset is 1; it must be from -1"),
        ({"quantise": "floor"}, r"quantise is 'floor'"),
    ],
)
def test_settings_that_contradict_one_another_are_refused(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        FlowSpec(method="dis", **settings)  # type: ignore[arg-type]
