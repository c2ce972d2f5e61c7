"""Clips, time stamps and features against what another extractor stored, and the comparison itself against extractors written here."""

import json
from collections.abc import Callable
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
import torch
import torchvision
from click.testing import CliRunner
from PIL import Image
from torch.nn import functional

from extract.clips import clip_indices, frame_spans, time_spans
from extract.compare import Tolerance, compare, differ
from extract.reference_features import FEATURES, REFERENCES, VIDEO, VIDEOS, VideoReference, filtered_indices, plan_clips, stamp
from extract.spec import ClipSpec, DecodeSpec
from extract.video import open_source
from extract.weights_commands import weights
from store.errors import PipelineError


@pytest.fixture(scope="module")
def arrays(shared_data: Path) -> dict[str, np.ndarray]:
    with np.load(shared_data / FEATURES) as stored:
        return {name: stored[name] for name in stored.files}


def settings(shared_data: Path, key: str) -> dict[str, object]:
    """What the extractor was asked for, from its own record."""
    whole: dict[str, dict[str, object]] = json.loads((shared_data / FEATURES).with_name("video_features_reference_args.json").read_text())
    return whole[key]


def test_the_references_are_those_that_were_recorded(shared_data: Path, arrays: dict[str, np.ndarray]) -> None:
    defaults = {"i3d": (64, None), "r21d": (16, None), "s3d": (64, 25)}  # of its extractors, where nothing was asked for
    for reference in REFERENCES:
        asked = settings(shared_data, reference.key)
        family = str(asked["feature_type"])
        assert (reference.fps or None) == (asked["extraction_fps"] or defaults.get(family, (None, None))[1])
        if family == "resnet":
            assert asked["model_name"] == reference.backbone
        else:
            assert reference.clips.length == (asked["stack_size"] or defaults[family][0])
            assert reference.clips.stride == (asked["step_size"] or defaults[family][0])


@pytest.mark.parametrize("reference", REFERENCES, ids=lambda each: each.key)
def test_every_reference_has_as_many_clips_as_ours(reference: VideoReference, shared_data: Path, arrays: dict[str, np.ndarray]) -> None:
    with open_source(shared_data / VIDEOS / f"{VIDEO}.mp4", DecodeSpec()) as source:
        plan = plan_clips(source, reference)
    assert len(plan.indices) == len(arrays[reference.key])
    stamps = arrays.get(reference.key.rpartition("_")[0] + "_timestamps_ms")
    if stamps is not None:
        np.testing.assert_allclose(stamp(plan, reference), stamps, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "fps", "clips", "behind"),
    [
        ("resnet/v_GGSY1Qvo990_resnet34_64_None", 0, ClipSpec("every", length=1, stride=1), 0),
        ("resnet/v_GGSY1Qvo990_resnet101_1_1", 1, ClipSpec("every", length=1, stride=1), 0),
        ("i3d/v_GGSY1Qvo990_None_raft_None_None_None", 0, ClipSpec("sliding", length=64, stride=64), 1),
        ("i3d/v_GGSY1Qvo990_None_raft_24_24_25", 25, ClipSpec("sliding", length=24, stride=24), 1),
        ("i3d/v_GGSY1Qvo990_None_raft_24_12_15", 15, ClipSpec("sliding", length=24, stride=12), 1),
    ],
)
def test_spans_and_time_stamps_of_extraction_are_the_references(
    key: str, fps: float, clips: ClipSpec, behind: int, shared_data: Path, arrays: dict[str, np.ndarray]
) -> None:
    """As ``extract`` cuts clips with ``--decode.fps``. The reference stamps a frame with its beginning, ours: ``times[:, 0]``; and a stack
    with the beginning of the frame behind it, which is where our clip ends: ``times[:, 1]``. It asks for that frame to be there (flow
    needs it), so ours can have one clip more at the end of another video, and has not here.
    """
    stamps, rate = arrays[f"{key}_timestamps_ms"], float(arrays[f"{key}_fps"])
    with open_source(shared_data / VIDEOS / f"{VIDEO}.mp4", DecodeSpec(fps=fps)) as source:
        assert source.fps == pytest.approx(rate, abs=0.005)
        indices = clip_indices(source.num_frames, clips)
        spans, times = frame_spans(indices), time_spans(indices, source.times, source.end)
    assert len(spans) == len(stamps) == len(next(arrays[f"{key}_{name}"] for name in ("resnet", "rgb") if f"{key}_{name}" in arrays))
    np.testing.assert_allclose(times[:, behind] * 1000, stamps, atol=1e-6)
    np.testing.assert_allclose(spans[:, behind] * 1000 / rate, stamps, rtol=0.001, atol=1e-6)
    np.testing.assert_array_equal(spans[:, 0], np.arange(len(spans)) * clips.stride)


@pytest.mark.parametrize("fps", [1, 15, 20, 25, 50])
def test_frames_of_another_rate_are_those_of_ffmpegs_own_filter(
    fps: int, tmp_path: Path, encode_video: Callable[..., Path], numbered_frames: Callable[..., list[np.ndarray]]
) -> None:
    """The filter itself, as FFmpeg's library runs it, on a video with uneven time stamps."""
    steps = np.random.default_rng(0).integers(10, 90, 60)
    stamps = np.concatenate([[0], np.cumsum(steps)[:-1]])
    path = encode_video(tmp_path / "v.mkv", numbered_frames(60), codec="ffv1", pts=stamps.tolist(), pix_fmt="bgr0")
    with open_source(path, DecodeSpec()) as source:
        ours = filtered_indices(source.times, source.end, fps)
    shown = []
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        graph = av.filter.Graph()
        entry, rate, end = graph.add_buffer(template=stream), graph.add("fps", f"fps={fps}"), graph.add("buffersink")
        entry.link_to(rate)
        rate.link_to(end)
        graph.configure()
        for frame in [*container.decode(stream), None]:
            entry.push(frame)
            while True:
                try:
                    shown.append(number_of(end.pull().to_ndarray(format="rgb24")))
                except (av.error.BlockingIOError, av.error.EOFError):
                    break
    common = min(len(shown), len(ours))
    assert abs(len(shown) - len(ours)) <= 1  # what the last frame's duration is, is a matter of opinion
    assert ours[:common].tolist() == shown[:common]


def number_of(frame: np.ndarray) -> int:
    columns = np.array_split(frame.mean((0, 2)), 8)
    return sum(1 << bit for bit, column in enumerate(columns) if column[len(column) // 2] > 127)


def smooth_video(path: Path, encode_video: Callable[..., Path], count: int) -> Path:
    """Something that moves, as a camera sees it."""
    grid = torch.rand(count // 4 + 2, 3, 5, 7, generator=torch.Generator().manual_seed(0))
    clip = functional.interpolate(grid.movedim(0, 1)[None], (count, 60, 80), mode="trilinear")[0]
    frames = (clip.permute(1, 2, 3, 0) * 255).round().to(torch.uint8).numpy()
    path.parent.mkdir(parents=True)
    return encode_video(path, list(frames), fps=25)


def frames_of(path: Path) -> list[np.ndarray]:
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


def resnet_features(network: torch.nn.Module, frames: list[np.ndarray]) -> np.ndarray:
    """The reference's way: Pillow's resize, torchvision's transforms, the network without its classifier."""
    steps = torchvision.transforms.Compose(
        [
            torchvision.transforms.Resize(256),
            torchvision.transforms.CenterCrop(224),
            torchvision.transforms.ToTensor(),
            torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    network.fc = torch.nn.Identity()
    with torch.inference_mode():
        features: np.ndarray = network.eval()(torch.stack([steps(Image.fromarray(frame)) for frame in frames])).numpy()
    return features


def r21d_features(network: torch.nn.Module, frames: list[np.ndarray]) -> np.ndarray:
    """The reference's way: floats resized without antialiasing, then normalised and cut; stacks of 16."""
    clip = torch.from_numpy(np.stack(frames)).permute(3, 0, 1, 2).float() / 255
    clip = functional.interpolate(clip, (128, 171), mode="bilinear", align_corners=False)
    mean, std = (torch.tensor(each)[:, None, None, None] for each in ([0.43216, 0.394666, 0.37645], [0.22803, 0.22145, 0.216989]))
    clip = ((clip - mean) / std)[..., 8:120, 30:142]  # round((171 - 112) / 2) = 30, halves to even
    network.fc = torch.nn.Identity()
    stacks = [clip[:, start : start + 16] for start in range(0, len(frames) - 15, 16)]
    with torch.inference_mode():
        features: np.ndarray = network.eval()(torch.stack(stacks)).numpy()
    return features


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> Path:
    """A folder laid out as the shared data, with another video and features of networks whose weights are beside it."""
    folder = tmp_path_factory.mktemp("reference")
    video = smooth_video(folder / VIDEOS / f"{VIDEO}.mp4", encode_video, 17)
    frames = frames_of(video)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        networks = {name: torchvision.models.get_model(name, weights=None) for name in ("resnet34", "r2plus1d_18")}
    for name, network in networks.items():
        for module in network.modules():
            if hasattr(module, "running_mean"):  # so that untrained layers keep the scale of their input
                module.momentum = None
        network.train()
        with torch.no_grad():
            network(torch.randn(2, 3, 64, 64) if name == "resnet34" else torch.randn(2, 3, 8, 32, 32))
        torch.save(network.state_dict(), folder / f"{name}.pth")
    (folder / "features").mkdir()
    np.savez(
        folder / FEATURES,
        **{
            f"resnet/{VIDEO}_resnet34_64_None_resnet": resnet_features(networks["resnet34"], frames),
            f"resnet/{VIDEO}_resnet34_64_None_timestamps_ms": np.arange(17) * 40.0,
            f"r21d/{VIDEO}_r2plus1d_18_16_kinetics_None_None_None_r21d": r21d_features(networks["r2plus1d_18"], frames),
        },
    )
    return folder


def run(*arguments: object) -> tuple[int, str]:
    result = CliRunner().invoke(weights, [str(each) for each in arguments])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.exception
    return result.exit_code, result.output


@pytest.mark.parametrize("name", ["resnet34", "r2plus1d_18"])
def test_the_same_weights_agree_with_features_that_others_computed(name: str, made: Path) -> None:
    code, output = run("check", name, "--weights", made / f"{name}.pth", "--reference", made)
    assert code == 0, output
    assert output.count("agrees: ") == (2 if name == "resnet34" else 1)
    assert "DIFFERS" not in output


@pytest.mark.parametrize("name", ["resnet34", pytest.param("r2plus1d_18", marks=pytest.mark.slow)])
def test_other_weights_are_told_by_exit_code_1(name: str, made: Path, tmp_path: Path) -> None:
    state = torch.load(made / f"{name}.pth", weights_only=True)
    key = "layer4.1.conv2.weight" if name == "resnet34" else "layer4.1.conv2.0.3.weight"
    torch.save({**state, key: state[key].flip(0)}, tmp_path / "other.pth")
    code, output = run("check", name, "--weights", tmp_path / "other.pth", "--reference", made, "--json")
    assert code == 1
    found = json.loads(output)
    assert not found["good"]
    assert [each["holds"] for each in found["comparisons"]] == ([False, True] if name == "resnet34" else [False])
    assert found["comparisons"][0]["cosine"] < 0.99


def test_a_video_too_short_for_the_reference_is_an_error(made: Path) -> None:
    reference = next(each for each in REFERENCES if each.backbone == "i3d_rgb")
    with open_source(made / VIDEOS / f"{VIDEO}.mp4", DecodeSpec()) as source, pytest.raises(PipelineError, match=r"has 17 frames, too few"):
        plan_clips(source, reference)


def test_comparison_is_of_rows_and_nan_never_agrees() -> None:
    tolerance = Tolerance(0.9, 0.5, "for this test")
    theirs = np.array([[3.0, 4.0], [1.0, 0.0]])
    near = compare("a", "b", theirs, theirs * 1.01, tolerance)
    assert near.holds
    assert near.largest == pytest.approx(0.04)
    assert near.relative == pytest.approx(0.01)
    assert near.cosine == pytest.approx(1.0)
    far = compare("a", "b", theirs, np.array([[3.0, 4.0], [0.0, 1.0]]), tolerance)
    assert not far.holds
    assert far.cosine == pytest.approx(0.0)
    for wrong in (theirs * np.nan, theirs[:1], theirs[:, :1], theirs * 0):
        assert not compare("a", "b", theirs, wrong, tolerance).holds
        assert not differ("a", theirs, wrong, 0.1).holds
    assert "ours is [1, 2], theirs [2, 2]" in compare("a", "b", theirs, theirs[:1], tolerance).text()
    assert differ("a", theirs, theirs + 0.05, 0.1).holds
