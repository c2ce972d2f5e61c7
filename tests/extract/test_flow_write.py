"""Writing flow as files: every layout is read back as it was computed, complete or not at all, and nothing leaves the folder."""

import itertools
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

import cli
from extract.flow import FLOWS
from extract.flow_frames import flow_frames, flow_frames_from_files, resolve_flow
from extract.flow_layouts import LAYOUTS, WriteJob, write_video
from extract.flow_write import WriteOptions, describe, open_folder, resolve_write, video_targets, write_list
from extract.spec import DecodeSpec, FlowSpec
from extract.video import open_source
from extract.worker import StageError
from store.digest import from_dict
from store.errors import FeatureError, Interrupted, ListError, SpecError, StoreError
from store.features import FeatureStore
from store.videos import Video, VideoList, write_csv

CLI = Path(__file__).parents[2] / "cli.py"
ONE = WriteOptions(workers=1)
DIS = {"method": "dis", "short_side": 0}


class Quiet:
    """Stands for a worker's connection to its job."""

    def alive(self) -> None:
        pass


def moving(count: int, height: int = 60, width: int = 80, seed: int = 0) -> list[np.ndarray]:
    noise = np.random.default_rng(seed).integers(0, 255, (height, width, 3), np.uint8)
    smooth = cv2.GaussianBlur(noise, (0, 0), 3)
    return [np.roll(smooth, (index, 2 * index), (0, 1)) for index in range(count)]


@pytest.fixture
def video(tmp_path: Path, encode_video: Callable[..., Path]) -> Path:
    return encode_video(tmp_path / "v_1.avi", moving(7))


def write_one(video: Path, out: Path, video_id: str = "class/v_1.avi", **settings: object) -> None:
    spec = resolve_write({"flow": DIS, **settings})
    open_folder(out, spec)
    targets = video_targets([video_id], spec.layout, out)[video_id]
    write_video(WriteJob(video, targets, out / ".a.partial" / "0", spec), Quiet())  # type: ignore[arg-type]


def true_flows(video: Path, short_side: int = 0) -> np.ndarray:
    """The flows of DIS, by OpenCV alone."""
    with open_source(video, DecodeSpec()) as source:
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in source.frames(np.arange(source.num_frames))]
    method = FLOWS.get("dis")({"preset": 2.0})
    return np.stack([method(first, second) for first, second in itertools.pairwise(greys)])


# What is written


@pytest.mark.parametrize(
    ("layout", "names"),
    [
        ("folders", ["class/v_1/flow_x/{:05}.png", "class/v_1/flow_y/{:05}.png"]),
        ("tsn", ["class/v_1/flow_x_{:05}.png", "class/v_1/flow_y_{:05}.png"]),
        ("mmaction", ["class/v_1/x_{:05}.png", "class/v_1/y_{:05}.png"]),
        ("two-stream", ["u/class/v_1/frame{:06}.png", "v/class/v_1/frame{:06}.png"]),
    ],
)
def test_images_hold_the_bytes_of_their_formula(video: Path, tmp_path: Path, layout: str, names: list[str]) -> None:
    out = tmp_path / "out"
    write_one(video, out, layout=layout, images="png", flow={**DIS, "bound": 5.0})
    flows = np.clip(true_flows(video).astype(np.float64), -5, 5)
    expected = np.rint(255 * (flows + 5) / 10)  # the rounding of dense_flow
    for component, name in enumerate(names):
        for index in range(6):
            image = cv2.imread(str(out / name.format(index + 1)), cv2.IMREAD_UNCHANGED)
            assert image.ndim == 2
            assert np.array_equal(image, expected[index, ..., component])
    files = sorted(str(path.relative_to(out)) for path in out.rglob("*") if path.is_file())
    assert files == sorted(["flow.json", *(name.format(index) for name in names for index in range(1, 7))])


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_arrays_hold_pixels(video: Path, tmp_path: Path, dtype: str) -> None:
    write_one(video, tmp_path / "out", layout="npy", dtype=dtype)
    array = np.load(tmp_path / "out/class/v_1.npy")
    assert array.dtype == dtype
    assert np.array_equal(array, true_flows(video).astype(dtype))


def test_frames_beside_the_flow_are_the_videos(video: Path, tmp_path: Path) -> None:
    write_one(video, tmp_path / "out", rgb=True, images="png", flow={**DIS, "short_side": 30})
    with open_source(video, DecodeSpec()) as source:
        frames = list(source.frames(np.arange(7)))
    for index, frame in enumerate(frames):
        written = cv2.imread(str(tmp_path / f"out/class/v_1/img_{index + 1:05}.png"))[..., ::-1]
        assert np.array_equal(written, cv2.resize(frame, (40, 30), interpolation=cv2.INTER_AREA))
    with open_source(tmp_path / "out/class/v_1", DecodeSpec()) as source:  # a folder of frames with its flow beside it
        assert source.num_frames == 7
        spec = FlowSpec(method="files", origin="x", short_side=0, encoding="pairs", quantise="dense_flow", with_rgb=True)
        stacks = list(flow_frames_from_files(source, np.arange(7), spec, None, "class/v_1"))
        assert [stack.shape for stack in stacks] == [(30, 40, 5)] * 7
        with pytest.raises(
            SpecError, match="flow was written with bound 20 and quantise dense_flow, but the spec says bound 20 and quantise"
        ):
            list(flow_frames_from_files(source, np.arange(7), replace(spec, quantise="i3d"), None, "class/v_1"))


@pytest.mark.parametrize("layout", list(LAYOUTS))
@pytest.mark.parametrize("encoding", ["image", "pairs"])
@pytest.mark.parametrize("quantise", ["dense_flow", "i3d"])
def test_what_is_written_without_loss_is_read_as_it_was_computed(
    video: Path, tmp_path: Path, layout: str, encoding: str, quantise: str
) -> None:
    flow = {**DIS, "short_side": 48, "bound": 6.0, "quantise": quantise}
    write_one(video, tmp_path / "out", layout=layout, images="png", dtype="float32", flow=flow)
    computed = from_dict(FlowSpec, {**flow, "encoding": encoding})
    from_files = replace(computed, method="files", origin="x", short_side=0)
    wanted = np.array([0, 3, 6])
    with open_source(video, DecodeSpec()) as source:
        direct = np.stack(list(flow_frames(source, wanted, resolve_flow(computed))))
        read = np.stack(list(flow_frames_from_files(source, wanted, from_files, tmp_path / "out", "class/v_1.avi")))
    assert np.array_equal(read[..., :2], direct[..., :2])
    if layout == "npy" or encoding == "pairs":
        assert np.array_equal(read, direct)
    else:  # magnitudes of rounded components
        assert np.abs(read[..., 2].astype(int) - direct[..., 2]).max() <= 2


def test_jpeg_keeps_to_its_quality(video: Path, tmp_path: Path) -> None:
    errors, sizes = [], []
    for quality in (95, 40):
        write_one(video, tmp_path / str(quality), quality=quality, flow={**DIS, "bound": 5.0})
        spec = FlowSpec(method="files", origin="x", short_side=0, encoding="pairs", bound=5.0, quantise="dense_flow")
        with open_source(video, DecodeSpec()) as source:
            read = np.stack(list(flow_frames_from_files(source, np.arange(6), spec, tmp_path / str(quality), "class/v_1.avi")))
        errors.append(np.abs(read - np.rint(255 * (np.clip(true_flows(video), -5, 5) + 5) / 10)).mean())
        sizes.append(sum(path.stat().st_size for path in (tmp_path / str(quality)).rglob("*.jpg")))
    assert errors[0] < 0.5
    assert errors[0] < errors[1] < 1
    assert sizes[0] > 1.5 * sizes[1]


def test_a_video_of_one_frame_has_empty_files(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    still = encode_video(tmp_path / "s.avi", moving(1))
    for layout in LAYOUTS:
        write_one(still, tmp_path / layout, "s.avi", layout=layout)
    assert not list((tmp_path / "tsn/s").iterdir())
    assert [path.name for path in sorted((tmp_path / "folders/s").iterdir())] == ["flow_x", "flow_y"]
    assert (tmp_path / "two-stream/u/s").is_dir()
    assert np.load(tmp_path / "npy/s.npy").shape == (0, 60, 80, 2)
    write_one(still, tmp_path / "rgb", "s.avi", rgb=True)
    assert [path.name for path in (tmp_path / "rgb/s").iterdir()] == ["img_00001.jpg"]


def test_flow_json_says_how_it_was_made(video: Path, tmp_path: Path) -> None:
    write_one(video, tmp_path / "out", flow={**DIS, "bound": 15.0}, decode={"fps": 10.0})
    content = json.loads((tmp_path / "out/flow.json").read_text())
    assert content.pop("written_by").startswith("actioncache ")
    assert content == {
        "layout": "tsn",
        "images": "jpg",
        "quality": 95,
        "rgb": False,
        "decode": {"fps": 10.0, "partial": False},
        "flow": {
            "method": "dis",
            "params": {"preset": 2.0},
            "version": f"opencv-{cv2.__version__}",
            "bound": 15.0,
            "short_side": 0,
            "quantise": "dense_flow",
        },
    }
    arrays = describe(resolve_write({"flow": DIS, "layout": "npy"}))
    assert arrays["dtype"] == "float16"
    assert "quality" not in arrays


# Reading it back


def test_a_spec_that_contradicts_flow_json_is_refused_with_the_flags(video: Path, tmp_path: Path) -> None:
    write_one(video, tmp_path / "out")
    spec = FlowSpec(method="files", origin="x", short_side=0, encoding="pairs", quantise="dense_flow", bound=15.0)

    def read(spec: FlowSpec) -> None:
        with open_source(video, DecodeSpec()) as source:
            list(flow_frames_from_files(source, np.arange(3), spec, tmp_path / "out", "class/v_1.avi"))

    with pytest.raises(
        SpecError,
        match=r"flow.json: this flow was written with bound 20 and quantise dense_flow, but the spec says bound 15 and quantise "
        r"dense_flow; set --flow.bound 20 --flow.quantise dense_flow",
    ):
        read(spec)
    right = replace(spec, bound=20.0)
    read(right)
    file = tmp_path / "out/flow.json"
    for strange in ('{"written_by": "another tool"}', "{}"):
        file.write_text(strange)
        read(spec)  # not ours, so it says nothing
    for broken in ("{", '{"written_by": "actioncache 1", "layout": "tsn"}', "[]"):
        file.write_text(broken)
        with pytest.raises(SpecError, match=r"flow.json cannot be read \("):
            read(right)


def test_arrays_are_pixels_whatever_the_bound(video: Path, tmp_path: Path) -> None:
    write_one(video, tmp_path / "out", layout="npy")
    spec = FlowSpec(method="files", origin="x", short_side=0, encoding="pairs", quantise="i3d", bound=3.0)
    with open_source(video, DecodeSpec()) as source:
        assert len(list(flow_frames_from_files(source, np.arange(3), spec, tmp_path / "out", "class/v_1.avi"))) == 3


# Complete or not at all


def test_a_video_that_fails_leaves_nothing(tmp_path: Path, video: Path) -> None:
    cut = tmp_path / "cut.avi"
    cut.write_bytes(video.read_bytes()[: video.stat().st_size // 2])
    with pytest.raises(StageError, match="cut short"):
        write_one(cut, tmp_path / "out")
    assert [path.name for path in (tmp_path / "out").rglob("*") if path.name != ".a.partial"] == ["flow.json"]


def test_a_method_that_gives_nan_leaves_nothing(tmp_path: Path, video: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Family:
        version = "1"
        defaults: dict[str, float] = {}  # noqa: RUF012 a stand-in

        def __call__(self, params: object) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
            def flow(first: np.ndarray, second: np.ndarray) -> np.ndarray:
                calls.append(1)
                return np.full((*first.shape, 2), np.nan if len(calls) == 4 else 1e9, np.float32)

            return flow

    monkeypatch.setitem(FLOWS._entries, "broken", Family())
    with pytest.raises(StageError, match="flow method broken gives NaN or Inf between frames 3 and 4"):
        write_one(video, tmp_path / "out", flow={"method": "broken"})
    with pytest.raises(StageError, match=r"flow 0 has a displacement of 1e\+09 px, too large for float16; set --dtype float32"):
        write_one(video, tmp_path / "out16", flow={"method": "broken"}, layout="npy")
    assert not [path for path in (tmp_path / "out").rglob("*") if path.suffix in (".jpg", ".npy")]


def test_what_another_process_completed_meanwhile_stays(video: Path, tmp_path: Path) -> None:
    spec = resolve_write({"flow": DIS, "layout": "two-stream"})
    open_folder(tmp_path / "out", spec)
    targets = video_targets(["v.avi"], "two-stream", tmp_path / "out")["v.avi"]
    targets[0].mkdir(parents=True)
    (targets[0] / "theirs").touch()
    write_video(WriteJob(video, targets, tmp_path / "out/.a.partial/0", spec), Quiet())  # type: ignore[arg-type]
    assert [path.name for path in targets[0].iterdir()] == ["theirs"]
    assert len(list(targets[1].iterdir())) == 6


def test_what_is_complete_is_not_computed_again(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_one(video, tmp_path / "out")
    monkeypatch.setattr("extract.flow_layouts.walk_flows", None)
    write_one(video, tmp_path / "out")


def videos(folder: Path, encode: Callable[..., Path], count: int = 3) -> VideoList:
    made = [Video(f"c/{number}.avi", encode(folder / f"{number}.avi", moving(5, seed=number))) for number in range(count)]
    return VideoList(tuple(made), ())


def test_a_list_is_done_once_and_failures_are_recorded(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    listed, out, spec = videos(tmp_path, encode_video), tmp_path / "out", resolve_write({"flow": DIS})
    (tmp_path / "1.avi").rename(tmp_path / "away.avi")
    first = write_list(listed, spec, out, ONE)
    assert (first.done, first.skipped, list(first.failed), first.flows) == (2, 0, ["c/1.avi"], 8)
    assert first.failed["c/1.avi"][0] == "decode"
    assert "no such file" in (out / "failures.jsonl").read_text()
    before = {path: path.stat().st_mtime_ns for path in out.rglob("*.jpg")}
    (tmp_path / "away.avi").rename(tmp_path / "1.avi")
    second = write_list(listed, spec, out, ONE)
    assert (second.done, second.skipped, second.failed) == (1, 2, {})
    assert all(path.stat().st_mtime_ns == changed for path, changed in before.items())
    assert json.loads((out / "failures.jsonl").read_text().splitlines()[-1])["done"] is True
    assert not list(out.glob(".*"))


def test_the_share_that_is_clipped_is_counted(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    summary = write_list(videos(tmp_path, encode_video, 1), resolve_write({"flow": {**DIS, "bound": 1.5}}), tmp_path / "out", ONE)
    assert summary.clipped == pytest.approx((np.abs(true_flows(tmp_path / "0.avi")) > 1.5).mean())
    assert summary.clipped > 0.3


def test_other_settings_and_other_folders_are_refused(tmp_path: Path) -> None:
    spec = resolve_write({"flow": DIS})
    open_folder(tmp_path / "out", spec)
    open_folder(tmp_path / "out", spec)
    with pytest.raises(StoreError, match=r"holds flow of other settings \(flow: bound 20.0 there, 15.0 now\); give another folder"):
        open_folder(tmp_path / "out", resolve_write({"flow": {**DIS, "bound": 15.0}}))
    with pytest.raises(StoreError, match="layout: tsn there, mmaction now"):
        open_folder(tmp_path / "out", resolve_write({"flow": DIS, "layout": "mmaction"}))
    (tmp_path / "full").mkdir()
    (tmp_path / "full/holiday.jpg").touch()
    with pytest.raises(StoreError, match=r"full holds other things and no flow.json"):
        open_folder(tmp_path / "full", spec)
    (tmp_path / "out/flow.json").write_text("[")
    with pytest.raises(StoreError, match=r"flow.json cannot be read"):
        open_folder(tmp_path / "out", spec)


def test_what_dead_processes_left_is_removed_and_what_living_ones_write_is_not(tmp_path: Path) -> None:
    spec = resolve_write({"flow": DIS})
    for name, age in (("old", 25 * 3600), ("new", 3600)):
        (tmp_path / f".{name}.partial/0").mkdir(parents=True)
        os.utime(tmp_path / f".{name}.partial", (0, (tmp_path / f".{name}.partial").stat().st_mtime - age))
    open_folder(tmp_path, spec)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".new.partial", "flow.json"]


def test_stopping_keeps_what_is_complete_and_the_same_command_goes_on(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    listed, out, spec = videos(tmp_path, encode_video, 4), tmp_path / "out", resolve_write({"flow": DIS})
    with pytest.raises(
        Interrupted, match=r"interrupted with [1-4] of 4 videos left; all finished ones are complete in .*; run the command"
    ):
        write_list(listed, spec, out, ONE, stopped=lambda: (out / "c/0").exists())
    assert not list(out.glob(".*"))
    assert all(len(list(folder.iterdir())) == 8 for folder in (out / "c").iterdir())
    assert write_list(listed, spec, out, ONE).failed == {}
    assert len(list(out.rglob("*.jpg"))) == 4 * 8


def test_a_disk_that_refuses_ends_the_run(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    listed, out, spec = videos(tmp_path, encode_video), tmp_path / "out", resolve_write({"flow": DIS})
    open_folder(out, spec)
    (out / "c").write_text("in the way")
    with pytest.raises(StoreError, match="what is complete stays, run the command again when the folder can be written to"):
        write_list(listed, spec, out, ONE)


# Ids


@pytest.mark.parametrize("video_id", ["../v.avi", "/v.avi", "a/../../v.avi", "a//b", ".hidden/v.avi", "a\\b", "x" * 300])
@pytest.mark.parametrize("layout", ["tsn", "npy"])
def test_ids_never_leave_the_folder(tmp_path: Path, video_id: str, layout: str) -> None:
    with pytest.raises(ListError, match="1 of 2 ids cannot be names of flow files, so nothing was written"):
        video_targets(["fine.avi", video_id], layout, tmp_path)


def test_ids_that_would_share_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ListError, match=r"'a/v.avi' and 'a/v.mp4' would both be 'a/v'"):
        video_targets(["a/v.avi", "a/v.mp4"], "npy", tmp_path)
    with pytest.raises(ListError, match=r"'a/flow_x.avi' would be inside 'a.avi'"):
        video_targets(["a.avi", "a/flow_x.avi"], "folders", tmp_path)
    assert video_targets(["a.avi", "a/flow_x.avi"], "npy", tmp_path)["a.avi"] == (tmp_path / "a.npy",)
    with pytest.raises(ListError, match=r"\.\.\. and 2 more"):
        video_targets([f"../{number}" for number in range(7)], "npy", tmp_path)


# Settings


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({}, "no flow method is given; set --flow.method, e.g. dis"),
        ({"flow": {"method": "files"}}, "flow from files is computed already"),
        ({"flow": {"method": "diss"}}, "no flow method is called 'diss'; did you mean dis"),
        ({"flow": DIS, "quality": 101}, "quality is 101; it must be from 1 to 100"),
        (
            {"flow": DIS, "layout": "npy", "rgb": True},
            "layout npy has no place for frames; leave --rgb out, or take layout tsn or mmaction",
        ),
    ],
)
def test_settings_that_cannot_be(settings: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        resolve_write(settings)
    with pytest.raises(SpecError, match="workers is -1"):
        WriteOptions(workers=-1)


def test_bytes_are_dense_flows_unless_told() -> None:
    assert resolve_write({"flow": DIS}).flow.quantise == "dense_flow"
    assert resolve_write({"flow": {**DIS, "quantise": "symmetric"}}).flow.quantise == "symmetric"


# The command


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> object:
    monkeypatch.setattr("sys.argv", ["actioncache", "flow", *map(str, arguments)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    return ended.value.code


def test_the_command_says_how_to_use_what_it_wrote(
    tmp_path: Path, encode_video: Callable[..., Path], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_csv(videos(tmp_path, encode_video, 2), tmp_path / "list.csv")
    out = tmp_path / "out"
    command = ("write", tmp_path / "list.csv", "-o", out, "--flow.method", "dis", "--flow.short-side", "0", "--workers", "1")
    assert run(monkeypatch, *command) == 0
    printed = capsys.readouterr()
    assert "2 done, 0 were there already, 0 failed; 8 flows in" in printed.out
    assert "% of the displacements were beyond 20 px and clipped" in printed.out
    assert re.search(r'--flow.method files --flow-root \S+out --flow.origin "dis opencv-\S+ preset=2, short side as decoded', printed.out)
    assert "--flow.bound 20 --flow.quantise dense_flow" in printed.out
    assert "flow 2/2 videos" in printed.err
    assert run(monkeypatch, *command, "--json", "--part", "1/2") == 0
    assert json.loads(capsys.readouterr().out)["skipped"] == 1
    (tmp_path / "0.avi").write_bytes(b"RIFF")
    assert run(monkeypatch, *command[:3], tmp_path / "other", *command[4:]) == 1
    assert "failed c/0.avi [decode]: " in capsys.readouterr().out
    assert run(monkeypatch, *command, "--layout", "npy") == 2
    assert "holds flow of other settings" in capsys.readouterr().err


def test_sigterm_ends_with_code_3_and_leaves_only_complete_videos(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    listed = VideoList(tuple(Video(str(n), encode_video(tmp_path / f"{n}.avi", moving(12, 200, 240, n))) for n in range(30)), ())
    write_csv(listed, tmp_path / "list.csv")
    out = tmp_path / "out"
    settings = ["--flow.method", "dis", "--flow.short-side", "0", "--workers", "1"]
    command = [sys.executable, str(CLI), "flow", "write", str(tmp_path / "list.csv"), "-o", str(out), *settings]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not (out / "0").exists():
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate()
    assert process.returncode == 3, messages
    assert "run the command again" in messages
    written = [path for path in out.iterdir() if path.is_dir()]
    assert 1 <= len(written) < 30
    assert all(len(list(path.iterdir())) == 22 for path in written)


def test_unforeseen_problems_are_one_videos_failure(video: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise FeatureError("no")

    monkeypatch.setattr("extract.flow_layouts.walk_flows", refuse)
    with pytest.raises(StageError, match="no") as caught:
        write_one(video, tmp_path / "out")
    assert caught.value.stage == "flow"


@pytest.mark.slow
def test_features_from_written_flow_are_those_of_computed_flow(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    """Bit for bit from PNG and float32 arrays, within JPEG's error from JPEG."""
    listed = tmp_path / "list.csv"
    write_csv(videos(tmp_path, encode_video, 2), listed)

    def actioncache(*arguments: str | Path) -> str:
        result = subprocess.run([sys.executable, str(CLI), *map(str, arguments)], capture_output=True, text=True, check=False)
        assert result.returncode == 0, result.stderr
        return result.stdout

    def features(*flags: str) -> FeatureStore:
        settings = (
            "--backbone",
            "i3d_flow",
            "--clips.rule",
            "looped",
            "--clips.length",
            "64",
            "--weights",
            "random:0",
            "--dtype",
            "float32",
        )
        network = (*settings, "--crops.resize", "32", "--crops.size", "32", "--flow.encoding", "pairs", "--workers", "1", "--json")
        return FeatureStore.open(
            Path(json.loads(actioncache("extract", listed, *network, *flags, "--out", tmp_path / "features"))["store"])
        )

    dis = ("--flow.method", "dis", "--flow.short-side", "0", "--flow.bound", "4")
    computed = features(*dis)
    for name, settings in {"png": ("--images", "png"), "npy": ("--layout", "npy", "--dtype", "float32"), "jpg": ()}.items():
        out = tmp_path / name
        actioncache("flow", "write", listed, "-o", out, *dis, "--flow.quantise", "i3d", *settings)
        read = features("--flow.method", "files", "--flow-root", str(out), "--flow.origin", name, "--flow.bound", "4")
        for video_id in computed.ids():
            ours, theirs = (next(iter(store.get(video_id).values.values())) for store in (read, computed))
            if name == "jpg":
                cosine = (ours * theirs).sum() / np.linalg.norm(ours) / np.linalg.norm(theirs)
                assert cosine > 0.999
            else:
                assert np.array_equal(ours, theirs)
