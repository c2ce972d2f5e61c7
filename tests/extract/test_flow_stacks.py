"""Stacks of flow: which flows, in what order, each computed once, in bounded memory; and whether a network takes them."""

import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from extract.backbones import BackboneInfo, backbone_info
from extract.crops import crop_boxes, cut, normalise, resize_frames
from extract.flow import FLOWS
from extract.flow_bytes import flow_bytes
from extract.flow_frames import flow_frames, flow_size
from extract.flow_stacks import stack_indices
from extract.modality import check_channels, flow_channels, with_quantise
from extract.network import Network
from extract.spec import CropSpec, DecodeSpec, FeatureSpec, FlowSpec
from extract.video import Scan, VideoSource
from extract.weights import load_backbone
from store.errors import SpecError
from store.options import resolve


class Coded(VideoSource):
    """Frames whose brightness is their number; frame i is all (i, i + 1, i + 2). Counts what is read."""

    def __init__(self, count: int, height: int = 12, width: int = 16) -> None:
        super().__init__(Path("memory"), DecodeSpec())
        self.count, self.size = count, (height, width)
        self.reads: list[int] = []

    def _scan(self) -> Scan:
        return Scan(np.arange(self.count) / 25, self.count / 25, *self.size)

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index in indices:
            self.reads.append(int(index))
            yield np.full((*self.size, 3), index, np.uint8) + np.arange(3, dtype=np.uint8)

    def _close(self) -> None:
        pass


class Counting:
    """A flow method that tells its frames: x is the number of the first, y minus that of the second, in pixels. Counts its calls."""

    version, defaults = "1", {}

    def __init__(self) -> None:
        self.calls: list[int] = []

    def __call__(self, params: object) -> "Counting":
        return self

    def between(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        self.calls.append(int(first[0, 0]) - 1)  # grey is 0.299 R + 0.587 G + 0.114 B, about number + 1
        return np.stack([first.astype(np.float32) - 1, 1 - second.astype(np.float32)], -1)


@pytest.fixture
def counting(monkeypatch: pytest.MonkeyPatch) -> Counting:
    family = Counting()
    monkeypatch.setitem(FLOWS._entries, "counting", lambda params: family.between)
    return family


def spec(pairs: int = 1, offset: int = 0, with_rgb: bool = False, short_side: int = 0) -> FlowSpec:
    return FlowSpec(
        method="counting",
        encoding="pairs",
        pairs=pairs,
        offset=offset,
        with_rgb=with_rgb,
        quantise="dense_flow",
        bound=100.0,
        short_side=short_side,
    )


STACKS = [(1, 0), (5, 0), (10, 0), (10, -5), (3, -3)]
WANTED = [[0], [7], [0, 1, 2], [3, 9, 11], [5, 10], list(range(12))]


@pytest.mark.parametrize(("pairs", "offset"), STACKS)
def test_a_stack_is_the_flows_from_its_frame_on_and_repeats_at_the_ends(pairs: int, offset: int) -> None:
    for num_frames in (1, 2, 3, 12, 40):
        frames = np.arange(num_frames)
        expected = [[min(max(i + offset + k, 0), max(num_frames - 2, 0)) for k in range(pairs)] for i in frames]
        assert stack_indices(frames, num_frames, spec(pairs, offset)).tolist() == expected


def test_a_stack_of_tsn_is_its_authors() -> None:
    """Their tools number frames and flows from 1 and read flow min(frame_cnt, tick + offset); the last flow of n frames is n - 1."""
    num_frames = 30
    for tick in range(1, num_frames + 1):
        theirs = [min(num_frames - 1, tick + offset) for offset in range(5)]
        ours = stack_indices(np.array([tick - 1]), num_frames, spec(5))[0] + 1
        assert ours.tolist() == theirs


@pytest.mark.parametrize(("pairs", "offset"), STACKS)
@pytest.mark.parametrize("wanted", WANTED)
def test_stacks_hold_the_bytes_of_their_flows_in_pairs(wanted: list[int], pairs: int, offset: int, counting: Counting) -> None:
    with Coded(12) as source:
        stacks = list(flow_frames(source, np.array(wanted), spec(pairs, offset)))
    flows = [[min(max(frame + offset + k, 0), 10) for k in range(pairs)] for frame in wanted]
    assert len(stacks) == len(wanted)
    for stack, members in zip(stacks, flows, strict=True):
        expected = [byte for i in members for byte in (round(255 * (i + 100) / 200), round(255 * (99 - i) / 200))]  # x = i, y = -(i + 1)
        assert stack.shape == (12, 16, 2 * pairs)
        assert stack.dtype == np.uint8
        assert (stack == np.array(expected)).all()
    needed = {i for members in flows for i in members}
    assert counting.calls == sorted(needed)  # each flow once, however many stacks share it, and no other
    assert source.reads == sorted(needed | {i + 1 for i in needed})


@pytest.mark.parametrize(("pairs", "offset"), STACKS)
@pytest.mark.parametrize("wanted", WANTED)
def test_rgb_stands_before_its_own_frames_stack(wanted: list[int], pairs: int, offset: int, counting: Counting) -> None:
    with Coded(12) as source:
        alone = list(flow_frames(source, np.array(wanted), spec(pairs, offset)))
    with Coded(12) as source:
        both = list(flow_frames(source, np.array(wanted), spec(pairs, offset, with_rgb=True)))
    assert source.reads == sorted(set(source.reads))  # each frame decoded once
    for frame, image, stack in zip(wanted, both, alone, strict=True):
        assert (image[..., :3] == [frame, frame + 1, frame + 2]).all()
        assert np.array_equal(image[..., 3:], stack)


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("with_rgb", [False, True])
def test_videos_of_one_and_two_frames(count: int, with_rgb: bool, counting: Counting) -> None:
    with Coded(count) as source:
        images = list(flow_frames(source, np.arange(count), spec(5, 0, with_rgb)))
    assert [image.shape[2] for image in images] == [10 + 3 * with_rgb] * count
    for image in images:
        stack = image[..., 3 * with_rgb :].reshape(12, 16, 5, 2)
        assert (stack == stack[:, :, :1]).all()  # the one flow there is, repeated
        assert count == 2 or (stack == 128).all()


def test_rgb_and_flow_have_the_flows_size(counting: Counting) -> None:
    frame = np.random.default_rng(0).integers(0, 256, (48, 64, 3), np.uint8)
    for short_side, expected in ((24, (24, 32)), (96, (96, 128)), (0, (48, 64))):
        assert flow_size(frame, short_side).shape == (*expected, 3)
        with Coded(3, 48, 64) as source:
            (image,) = flow_frames(source, np.array([1]), spec(2, 0, True, short_side))
        assert image.shape == (*expected, 7)
    exact = cv2.resize(frame, (32, 24), interpolation=cv2.INTER_AREA)
    assert np.array_equal(flow_size(frame, 24), exact)
    assert np.array_equal(flow_size(frame[..., 1], 24), exact[..., 1])


@pytest.mark.parametrize(("pairs", "offset", "with_rgb"), [(10, 0, False), (10, -5, True), (1, 0, False)])
def test_memory_holds_one_stack_however_long_the_video(pairs: int, offset: int, with_rgb: bool, counting: Counting) -> None:
    height, width = 60, 80
    one_flow = height * width * 4 * 2
    tracemalloc.start()
    with Coded(250, height, width) as source:
        for _ in flow_frames(source, np.arange(250), spec(pairs, offset, with_rgb)):
            pass
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < (pairs + 12) * one_flow < 250 * one_flow // 4


def test_pairs_of_a_real_method_are_the_channels_of_its_image() -> None:
    """The same flow, seen by both encodings: x and y of an image are a stack of one."""
    frames = [
        np.roll(np.kron(np.random.default_rng(0).integers(0, 256, (12, 16), np.uint8), np.ones((8, 8), np.uint8)), i, 1) for i in (0, 2)
    ]
    flow = FLOWS.get("dis")(FLOWS.get("dis").defaults)(*frames)
    image = flow_bytes(flow, FlowSpec(method="dis"))
    pair = flow_bytes(flow, FlowSpec(method="dis", encoding="pairs"))
    assert np.array_equal(image[..., :2], pair)


# Whether a network takes them

DIS = {"method": "dis"}
PAIRS_OF_TSN = {**DIS, "encoding": "pairs", "pairs": 5}
BOTH = BackboneInfo("both", {"last": 1}, channels=23, mean=(0.5,), std=(1.0,), modality="rgb+flow")
TWO = BackboneInfo("two", {"last": 1}, channels=2, mean=(0.5,), std=(1.0,), modality="flow")


def made(**flow: object) -> FeatureSpec:
    return resolve(FeatureSpec, {"flow": flow})


@pytest.mark.parametrize(
    ("flow", "channels"),
    [
        ({}, 3),
        (DIS, 3),
        ({**DIS, "encoding": "pairs"}, 2),
        (PAIRS_OF_TSN, 10),
        ({**DIS, "encoding": "pairs", "pairs": 10, "with_rgb": True}, 23),
    ],
)
def test_channels_are_counted(flow: dict[str, object], channels: int) -> None:
    assert flow_channels(made(**flow).flow) == channels


def test_what_fits_passes() -> None:
    check_channels(made(), backbone_info("tiny"))
    check_channels(made(**DIS), backbone_info("tiny"))  # flow drawn as an image, for a network trained on RGB
    check_channels(made(**PAIRS_OF_TSN), backbone_info("tsn_bninception_flow"))
    check_channels(made(**DIS, encoding="pairs"), TWO)
    check_channels(made(**DIS, encoding="pairs", pairs=10, offset=-5, with_rgb=True), BOTH)


@pytest.mark.parametrize(
    ("info", "flow", "words"),
    [
        (
            backbone_info("tsn_bninception_flow"),
            {},
            r"takes 5 flow fields \(10 channels\), but this spec gives it RGB \(3 channels\); set --flow.method, e.g. dis, and "
            r"--flow.encoding pairs --flow.pairs 5 --no-flow.with-rgb",
        ),
        (
            backbone_info("tsn_bninception_flow"),
            DIS,
            r"gives it flow drawn as an image \(3 channels\); .*--flow.encoding pairs --flow.pairs 5",
        ),
        (
            TWO,
            PAIRS_OF_TSN,
            r"two takes 1 flow field \(2 channels\), but this spec gives it 5 flow fields \(10 channels\); .*--flow.pairs 1",
        ),
        (backbone_info("tiny"), PAIRS_OF_TSN, r"tiny takes RGB, or flow drawn as an image .*5 flow fields .*; leave --flow.method out"),
        (
            BOTH,
            {**DIS, "encoding": "pairs", "pairs": 10},
            r"both takes RGB and 10 flow fields \(23 channels\), .* it 10 flow fields \(20 channels\); .*--flow.pairs 10 --flow.with-rgb",
        ),
        (BOTH, {}, r"both takes RGB and 10 flow fields .*gives it RGB \(3"),
        (TWO, {"encoding": "pairs"}, r"flow\.encoding is pairs but no flow\.method is set"),
    ],
)
def test_what_does_not_fit_is_refused_with_the_flags_that_do(info: BackboneInfo, flow: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        check_channels(made(**flow), info)


@pytest.mark.parametrize(
    ("name", "flow", "expected"),
    [
        ("tsn_bninception_flow", PAIRS_OF_TSN, "dense_flow"),
        ("tsn_resnet50_flow", PAIRS_OF_TSN, "dense_flow"),
        ("i3d_flow", {**DIS, "encoding": "pairs"}, "i3d"),
        ("st_resnet50", {**DIS, "encoding": "pairs", "pairs": 10, "with_rgb": True}, "dense_flow"),
        ("tiny", DIS, "symmetric"),
        ("tsn_bninception_flow", {**PAIRS_OF_TSN, "quantise": "symmetric"}, "symmetric"),  # what is said stands
    ],
)
def test_bytes_are_those_of_the_networks_training(name: str, flow: dict[str, object], expected: str) -> None:
    assert with_quantise(made(**flow).flow, backbone_info(name)).quantise == expected


def test_a_stack_reaches_the_network_as_it_was_trained(counting: Counting) -> None:
    """From decoded frames to BN-Inception's features by the pieces, and by ``Network``: five pairs, minus 128, mirrors 255 - x."""
    flow = FlowSpec(**{**PAIRS_OF_TSN, "method": "counting", "quantise": "dense_flow"}, short_side=0)  # type: ignore[arg-type]
    backbone = load_backbone("tsn_bninception_flow", "random:0").backbone
    made_of = FeatureSpec("tsn_bninception_flow", crops=CropSpec((64,), 64, 10), flow=flow, levels=("global_pool",))
    with Coded(12, 64, 80) as source:
        frames = np.stack(list(flow_frames(source, np.array([2, 8]), flow)))
    network = Network(backbone, made_of, torch.device("cpu"), 20)
    features = network.forward(network.cut(network.resize(frames))[:, None])["global_pool"]
    boxes = crop_boxes(64, 80, 64, 10)
    crops = cut(resize_frames(torch.from_numpy(frames), made_of.crops), boxes, flow)
    assert torch.equal(normalise(crops, backbone.info), crops.float() - 128)
    assert (crops[:, 5:, ::2] == 255 - crops[:, :5, ::2]).all()  # these fields are the same everywhere
    with torch.inference_mode():
        expected = backbone((crops.float() - 128).flatten(0, 1))["global_pool"].unflatten(0, (2, 10))
    torch.testing.assert_close(features, expected, rtol=1e-4, atol=1e-4)
