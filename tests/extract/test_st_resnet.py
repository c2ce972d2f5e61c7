"""ST-ResNet against torchvision's ResNet-50, and each addition of the paper against its equation in plain operations."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision
from torch.nn import functional

from extract.backbones import backbone_info
from extract.backbones.st_resnet import StResNet50, TemporalConvolution, inflated
from extract.checkpoint import fit_state
from extract.crops import normalise
from extract.weights import load_backbone
from store.errors import SpecError, WeightsError

State = dict[str, torch.Tensor]
STAGES = [f"{stream}_block{number}" for number in (1, 2, 3, 4) for stream in ("appearance", "motion")]


def resnet_state(seed: int, classes: int = 7) -> State:
    """A ResNet-50 of torchvision's layout with seeded weights and lived-in batch normalisation."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        state: State = torchvision.models.resnet50(weights=None, num_classes=classes).state_dict()
        for key, value in state.items():
            if key.endswith("running_var"):
                value.uniform_(0.8, 1.6)
            elif value.dim() == 1 and "fc" not in key:
                value.add_(torch.randn_like(value) * 0.1)
    return {key: value for key, value in state.items() if not key.endswith("num_batches_tracked")}


@pytest.fixture(scope="module")
def states() -> tuple[State, State]:
    """Two different 2D networks; the second takes 20 channels."""
    motion = resnet_state(1)
    motion["conv1.weight"] = torch.randn(64, 20, 7, 7, generator=torch.Generator().manual_seed(2)) * 0.05
    return resnet_state(0), motion


@pytest.fixture(scope="module")
def build(states: tuple[State, State]) -> Callable[..., StResNet50]:
    def made(pooled: bool = False, motion_residuals: bool = True, state: State | None = None) -> StResNet50:
        both = {f"{name}.{key}": value for name, part in zip(("appearance", "motion"), states, strict=True) for key, value in part.items()}
        with torch.device("meta"):
            backbone = StResNet50(pooled, motion_residuals)
        fit_state(backbone, state or both, ("logits",), Path("two ResNet-50s"))
        return backbone.eval()

    return made


def clip(chunks: int, size: int = 64, seed: int = 0, batch: int = 1) -> torch.Tensor:
    return torch.randn(batch, 23, chunks, size, size, generator=torch.Generator().manual_seed(seed))


def run(backbone: StResNet50, frames: torch.Tensor, *levels: str) -> dict[str, torch.Tensor]:
    with torch.inference_mode():
        return backbone(frames, levels)


def assert_near(ours: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    torch.testing.assert_close(ours, expected, rtol=0, atol=tolerance * float(expected.abs().max()))


# Temporal convolution


@pytest.mark.parametrize("chunks", [1, 2, 5])
def test_temporal_convolution_is_its_sum(chunks: int) -> None:
    layer = TemporalConvolution(torch.nn.Conv2d(4, 6, 1, bias=False))
    torch.nn.init.normal_(layer.weight, generator=torch.Generator().manual_seed(0))
    clips = torch.randn(2, chunks, 4, 3, 5, generator=torch.Generator().manual_seed(1))
    weight, x = layer.weight.detach().numpy().astype(np.float64)[..., 0, 0], clips.numpy().astype(np.float64)
    with torch.inference_mode():
        ours = layer(clips.flatten(0, 1), chunks).unflatten(0, (2, chunks)).numpy()
    for t in range(chunks):
        seen = [x[:, min(max(t + step, 0), chunks - 1)] for step in (-1, 0, 1)]  # the ends are repeated
        expected = sum(np.einsum("dc,bchw->bdhw", weight[..., tap], seen[tap]) for tap in range(3))
        np.testing.assert_allclose(ours[:, t], expected, rtol=0, atol=1e-5)


def test_spread_filters_are_a_third_each_and_pass_a_still_clip_at_every_chunk() -> None:
    plain = torch.nn.Conv2d(8, 5, 1, bias=False)
    torch.testing.assert_close(inflated(plain.weight), torch.stack([plain.weight / 3] * 3, 2))
    image = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        ours = TemporalConvolution(plain)(image.repeat(4, 1, 1, 1), 4)
        torch.testing.assert_close(ours, plain(image).repeat(4, 1, 1, 1))


# The streams


def stages_of(state: State, images: torch.Tensor) -> list[torch.Tensor]:
    """torchvision's own network: the output of each stage, [B, D, h, w], and the scores."""
    plain = torchvision.models.resnet50(weights=None, num_classes=len(state["fc.bias"]))
    plain.conv1 = torch.nn.Conv2d(state["conv1.weight"].shape[1], 64, 7, 2, 3, bias=False)
    plain.load_state_dict(state, strict=False)
    plain.eval()
    outputs = []
    with torch.inference_mode():
        x = plain.maxpool(plain.relu(plain.bn1(plain.conv1(images))))
        for stage in (plain.layer1, plain.layer2, plain.layer3, plain.layer4):
            x = stage(x)
            outputs.append(x)
        return [*outputs, plain(images)]


def test_a_still_video_is_two_resnets_at_every_chunk(build: Callable[..., StResNet50], states: tuple[State, State]) -> None:
    image = clip(1)
    backbone = build(motion_residuals=False)
    ours = run(backbone, image.repeat(1, 1, 3, 1, 1), *(f"{stage}.map" for stage in STAGES), "logits")
    expected = [stages_of(state, part) for state, part in zip(states, (image[:, :3, 0], image[:, 3:, 0]), strict=True)]
    for number in range(4):
        for stream, outputs in zip(("appearance", "motion"), expected, strict=True):
            maps = ours[f"{stream}_block{number + 1}.map"]
            assert maps.shape[2] == 3
            for t in range(3):
                assert_near(maps[:, :, t], outputs[number])
    assert_near(ours["logits"], (expected[0][4] + expected[1][4]) / 2)


def unit(state: State, name: str, x: torch.Tensor, stride: int = 1) -> torch.Tensor:
    """F(x) of one unit of torchvision's network, [B, C, T, h, w], 1x1x3 where the state has it, ends repeated: plain operations."""
    for place in (1, 2, 3):
        weight = state[f"{name}.conv{place}.weight"]
        if weight.dim() == 4:
            weight = weight[:, :, None]
        if weight.shape[2] == 3:
            x = functional.pad(x, (0, 0, 0, 0, 1, 1), mode="replicate")
        side = weight.shape[-1] // 2
        x = functional.conv3d(x, weight, stride=(1, *[stride if place == 2 else 1] * 2), padding=(0, side, side))
        x = normalised(state, f"{name}.bn{place}", x)
        x = x.relu() if place < 3 else x
    return x


def normalised(state: State, name: str, x: torch.Tensor) -> torch.Tensor:
    mean, variance, weight, bias = (state[f"{name}.{part}"].view(-1, 1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias"))
    return (x - mean) / (variance + 1e-5).sqrt() * weight + bias


def stage(a: State, m: State, name: str, stride: int, x_a: torch.Tensor, x_m: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """One stage of both streams: equation 1 for its units, equation 2 for the appearance stream's second."""
    sums = []
    for state, x in ((a, x_a), (m, x_m)):
        shortcut = functional.conv3d(x, state[f"{name}.0.downsample.0.weight"][:, :, None], stride=(1, stride, stride))
        sums.append(normalised(state, f"{name}.0.downsample.1", shortcut) + unit(state, f"{name}.0", x, stride))
    x_a, x_m = sums  # x^a_l and x^m_l
    x_a = x_a.relu() + unit(a, f"{name}.1", x_a + x_m.relu())
    x_m = x_m.relu() + unit(m, f"{name}.1", x_m.relu())
    units = sum(key.startswith(f"{name}.") and key.endswith(".conv1.weight") for key in a)
    for number in range(2, units):
        x_a, x_m = (x.relu() + unit(state, f"{name}.{number}", x.relu()) for state, x in ((a, x_a), (m, x_m)))
    return x_a.relu(), x_m.relu()


def test_motion_residuals_and_temporal_convolutions_are_the_papers_equations(build: Callable[..., StResNet50]) -> None:
    backbone = build()
    frames = clip(3, size=32)
    state = backbone.state_dict()
    for key in [key for key in state if ".1.conv" in key and state[key].dim() == 5]:  # trained taps differ from one another
        state[key] += torch.randn(state[key].shape, generator=torch.Generator().manual_seed(len(key))) * state[key].std()
    a, m = ({key.removeprefix(f"{name}."): value for key, value in state.items()} for name in ("appearance", "motion"))
    with torch.inference_mode():
        x_a, x_m = (
            functional.max_pool3d(
                normalised(part, "bn1", functional.conv3d(x, part["conv1.weight"][:, :, None], stride=(1, 2, 2), padding=(0, 3, 3))).relu(),
                (1, 3, 3),
                (1, 2, 2),
                (0, 1, 1),
            )
            for part, x in ((a, frames[:, :3]), (m, frames[:, 3:]))
        )
        backbone.load_state_dict(state)
        ours = run(backbone, frames, *(f"{name}.map" for name in STAGES))
        for number in (1, 2, 3, 4):
            x_a, x_m = stage(a, m, f"layer{number}", 1 if number == 1 else 2, x_a, x_m)
            assert_near(ours[f"appearance_block{number}.map"], x_a)
            assert_near(ours[f"motion_block{number}.map"], x_m)


def test_motion_reaches_appearance_and_never_the_other_way(build: Callable[..., StResNet50]) -> None:
    frames, other_rgb, other_flow = clip(2, 32), clip(2, 32), clip(2, 32)
    other_rgb[:, :3] += 1
    other_flow[:, 3:] += 1
    backbone = build()
    first, rgb, flow = (run(backbone, each, "appearance_block1", "motion_block1", "motion") for each in (frames, other_rgb, other_flow))
    assert torch.equal(first["motion"], rgb["motion"])
    assert torch.equal(first["motion_block1"], rgb["motion_block1"])
    assert not torch.allclose(first["appearance_block1"], flow["appearance_block1"], atol=1e-3)
    apart = build(motion_residuals=False)
    assert torch.equal(run(apart, frames, "appearance")["appearance"], run(apart, other_flow, "appearance")["appearance"])


def test_each_stage_sees_as_many_chunks_as_table_1_says(build: Callable[..., StResNet50]) -> None:
    """5, 9, 13 and 17 chunks: a change of one chunk reaches 2, 4, 6 and 8 chunks before and after it, and no further."""
    frames = clip(19, 32)
    changed = frames.clone()
    changed[:, :, 9] *= 1000
    backbone = build()
    names = [f"{name}.map" for name in STAGES]
    before, after = run(backbone, frames, *names), run(backbone, changed, *names)
    for name in names:
        moved = (before[name] - after[name]).abs().amax((0, 1, 3, 4)) > 1e-5 * float(before[name].abs().max())
        reach = 2 * int(name[name.index("block") + 5])
        assert torch.nonzero(moved).flatten().tolist() == list(range(9 - reach, 9 + reach + 1))


# Pooling and classifiers


@pytest.mark.parametrize(("chunks", "windows"), [(5, 1), (6, 1), (7, 2), (11, 4), (25, 11)])
def test_temporal_pooling_is_the_largest_of_five_at_stride_two(chunks: int, windows: int, build: Callable[..., StResNet50]) -> None:
    """Table 1: 11 chunks give 4."""
    frames = clip(chunks, 32)
    plain, star = run(build(), frames, "appearance.map", "motion.map"), run(build(pooled=True), frames, "appearance.map", "motion.map")
    for stream in ("appearance.map", "motion.map"):
        places = plain[stream].numpy()
        expected = np.stack([places[:, :, 2 * n : 2 * n + 5].max(2) for n in range(windows)], 2)
        assert star[stream].shape[2] == windows
        np.testing.assert_allclose(star[stream].numpy(), expected, rtol=1e-5, atol=1e-5)


def test_scores_are_averaged_over_places_chunks_and_streams(build: Callable[..., StResNet50], states: tuple[State, State]) -> None:
    frames = clip(5, 256)[..., :224]  # 8 x 7 places of the last map: 2 x 1 windows of pool5
    backbone = build(pooled=True)
    ours = run(backbone, frames, "appearance_block4.map", "appearance.map", "motion.map", "logits", "appearance")
    last = ours["appearance_block4.map"]
    windows = torch.stack([last[:, :, :, top : top + 7].mean((3, 4)) for top in (0, 1)], 3)  # [1, 2048, 5, 2]
    assert_near(ours["appearance.map"][..., 0], windows.amax(2, keepdim=True))
    scores = [
        torch.einsum("dc,bcthw->bdthw", state["fc.weight"], ours[f"{stream}.map"]) + state["fc.bias"].view(-1, 1, 1, 1)
        for state, stream in zip(states, ("appearance", "motion"), strict=True)
    ]
    assert_near(ours["logits"], (scores[0].mean((2, 3, 4)) + scores[1].mean((2, 3, 4))) / 2)


def test_frames_of_the_papers_test_are_taken_whole() -> None:
    with torch.device("meta"):
        backbone = StResNet50(pooled=True).eval()
        maps = backbone(torch.zeros(1, 23, 25, 256, 340), ("appearance_block4.map", "appearance.map", "logits"))
    assert maps["appearance_block4.map"].shape == (1, 2048, 25, 8, 11)
    assert maps["appearance.map"].shape == (1, 2048, 11, 2, 5)
    assert maps["logits"].shape == (1, 1000)


def test_clips_that_are_too_short_are_told_so() -> None:
    with (
        torch.device("meta"),
        pytest.raises(SpecError, match=r"st_resnet50_star takes clips of at least 5 frames, not 4; set --clips.length"),
    ):
        StResNet50(pooled=True)(torch.zeros(1, 23, 4, 64, 64))


# Weights


def test_any_resnet_of_images_starts_both_streams(tmp_path: Path) -> None:
    state = resnet_state(3, classes=101)
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, tmp_path / "resnet50.pth")
    backbone = load_backbone("st_resnet50", str(tmp_path / "resnet50.pth"), ("logits",)).backbone
    ours = backbone.state_dict()
    assert backbone.info.dims["logits"] == 101
    mean = state["conv1.weight"].numpy().astype(np.float64).mean(1, keepdims=True)
    np.testing.assert_allclose(ours["motion.conv1.weight"].numpy(), np.repeat(mean, 20, 1), rtol=0, atol=1e-6)
    assert torch.equal(ours["appearance.conv1.weight"], state["conv1.weight"])
    for stream in ("appearance", "motion"):
        assert torch.equal(ours[f"{stream}_fc.weight"], state["fc.weight"])
        for key in ("layer1.1.conv1.weight", "layer4.1.conv3.weight"):
            assert torch.equal(ours[f"{stream}.{key}"], torch.stack([state[key] / 3] * 3, 2))
        assert torch.equal(ours[f"{stream}.layer1.1.conv2.weight"], state["layer1.1.conv2.weight"])
        assert torch.equal(ours[f"{stream}.layer3.5.conv1.weight"], state["layer3.5.conv1.weight"])
    assert sum(value.dim() == 5 for value in ours.values()) == 16  # the paper's 16 temporal convolutions
    frames = clip(2, 32)
    torch.save(ours, tmp_path / "own.pth")
    again = load_backbone("st_resnet50", str(tmp_path / "own.pth"), ("logits",)).backbone
    with torch.inference_mode():
        assert torch.equal(again(frames, ("logits",))["logits"], backbone(frames, ("logits",))["logits"])


def test_what_does_not_fit_is_told(states: tuple[State, State], tmp_path: Path) -> None:
    both = {f"{name}.{key}": value for name, part in zip(("appearance", "motion"), states, strict=True) for key, value in part.items()}
    headless = {key: value for key, value in both.items() if "fc." not in key}
    torch.save(headless, tmp_path / "headless.pth")
    assert "logits" not in load_backbone("st_resnet50", str(tmp_path / "headless.pth")).backbone.info.dims
    torch.save({**both, "motion.conv1.weight": states[0]["conv1.weight"]}, tmp_path / "rgb.pth")
    with pytest.raises(WeightsError, match=r"motion\.conv1\.weight is \[64, 3, 7, 7\] float32, not \[64, 20, 7, 7\]"):
        load_backbone("st_resnet50", str(tmp_path / "rgb.pth"))
    torch.save({**both, "motion.fc.weight": torch.zeros(9, 2048), "motion.fc.bias": torch.zeros(9)}, tmp_path / "classes.pth")
    with pytest.raises(WeightsError, match=r"appearance_fc\.weight is \[7, 2048\].*motion_fc\.weight is \[9, 2048\]"):
        load_backbone("st_resnet50", str(tmp_path / "classes.pth"), ("logits",))


def test_it_is_fed_rgb_and_ten_flows_with_no_motion_at_zero() -> None:
    info, star = backbone_info("st_resnet50"), backbone_info("st_resnet50_star")
    assert (info.modality, info.channels, info.clip_length, star.clip_length, star.shortest_clip) == ("rgb+flow", 23, 5, 11, 5)
    still = torch.full((1, 23, 4, 4), 128, dtype=torch.uint8)
    values = normalise(still, info)
    assert (values[:, 3:] == 0).all()
    for channel, (mean, std) in enumerate(zip((0.485, 0.456, 0.406), (0.229, 0.224, 0.225), strict=True)):
        assert float(values[0, channel, 0, 0]) == pytest.approx((128 / 255 - mean) / std, abs=1e-5)
    assert all(
        file.about.startswith("ResNet-50 for both streams to start from, which has seen no video") for file in info.published.values()
    )
