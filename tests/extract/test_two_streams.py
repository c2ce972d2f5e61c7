"""Two streams in one pass over the videos: the same stores as by two commands, resumed and failing each by itself."""

import itertools
import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from extract.commands import extract
from extract.decode import ClipPlan, DecodeJob, Stream, _refusal, decode_clips
from extract.flow_frames import resolve_flow
from extract.prepare import prepare_spec
from extract.presets import preset
from extract.run import Prepared, extract_together
from extract.spec import FeatureSpec, FlowSpec, RunOptions
from extract.video import VideoSource
from store.digest import to_plain
from store.errors import Interrupted, SpecError
from store.features import FeatureStore
from store.options import resolve
from store.videos import Video, VideoList

Encode = Callable[..., Path]
RGB, FLOW = ("--preset", "tiny"), ("--preset", "tiny-flow")
BOTH = ("--preset", "tiny", "--and-preset", "tiny-flow")
LENGTHS = {"a.mp4": 40, "b.mp4": 9, "c.mp4": 1, "d.mp4": 70}
BAD = ("empty.mp4", "missing.mp4")


def scene(seed: int, count: int) -> list[np.ndarray]:
    """Blocks of noise that move."""
    noise = np.random.default_rng(seed).integers(0, 256, (12, 16, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    return [np.roll(noise, (seed + 1) * number, 1) for number in range(count)]


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, encode_video: Encode) -> Path:
    """A list of good videos, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    for seed, (name, length) in enumerate(LENGTHS.items()):
        encode_video(folder / name, scene(seed, length))
    (folder / "empty.mp4").touch()
    (folder / "list.txt").write_text("\n".join([*LENGTHS, *BAD]))
    return folder / "list.txt"


def run(listed: Path, out: Path, *arguments: object) -> Result:
    command = [str(listed), "--weights", "random:0", "--out", str(out), "--workers", "1", "--device", "cpu", *map(str, arguments)]
    return CliRunner().invoke(extract, command)


def stores(result: Result) -> list[FeatureStore]:
    told = json.loads(result.stdout)
    return [FeatureStore.open(Path(each["store"])) for each in (told if isinstance(told, list) else [told])]


def same(one: FeatureStore, other: FeatureStore) -> bool:
    assert one.digest == other.digest
    return sorted(one.ids()) == sorted(other.ids()) and all(one.digests(video) == other.digests(video) for video in one.ids())


def reasons(store: FeatureStore) -> dict[str, tuple[str, str]]:
    return {video: (failure.stage, failure.reason) for video, failure in store.failures().items()}


@pytest.fixture(scope="module")
def apart(listed: Path, tmp_path_factory: pytest.TempPathFactory) -> list[FeatureStore]:
    """What two commands make."""
    out = tmp_path_factory.mktemp("apart")
    return [stores(run(listed, out, *preset, "--json"))[0] for preset in (RGB, FLOW)]


def test_both_stores_are_those_of_two_commands(
    listed: Path, apart: list[FeatureStore], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = run(listed, tmp_path, *BOTH, "--json")
    assert result.exit_code == 1
    for mine, theirs in zip(stores(result), apart, strict=True):
        assert same(mine, theirs)
        assert reasons(mine) == reasons(theirs)
    for each in json.loads(result.stdout):
        assert (each["done"], each["skipped"], sorted(each["failed"])) == (4, 0, sorted(BAD))
    lines = run(listed, tmp_path, *BOTH).stdout.splitlines()
    assert lines[1] == "0 done, 4 were there already, 2 failed, of 6"
    assert [line for line in lines if line.startswith("0 done")] == [lines[1]] * 2


def test_each_store_is_resumed_by_itself(listed: Path, apart: list[FeatureStore], tmp_path: Path) -> None:
    run(listed, tmp_path, *RGB, "--part", "1/2")  # a, c, empty
    coming = json.loads(run(listed, tmp_path, *BOTH, "--dry-run", "--json").stdout)
    assert [(each["todo"], each["skipped"], each["failed"]) for each in coming] == [(3, 2, 1), (6, 0, 0)]
    clips = 25  # segments of every video
    assert [each["clips"] for each in coming] == [2 * clips, 4 * clips]
    result = run(listed, tmp_path, *BOTH, "--json")
    assert [(each["done"], each["skipped"]) for each in json.loads(result.stdout)] == [(2, 2), (4, 0)]
    assert all(same(mine, theirs) for mine, theirs in zip(stores(result), apart, strict=True))


def test_parts_and_failures_tried_again(listed: Path, apart: list[FeatureStore], tmp_path: Path) -> None:
    for part in ("1/2", "2/2"):
        result = run(listed, tmp_path, *BOTH, "--part", part, "--json")
        assert [len(each["failed"]) for each in json.loads(result.stdout)] == [1, 1]
    assert all(same(mine, theirs) for mine, theirs in zip(stores(result), apart, strict=True))
    before = [store.failures()["empty.mp4"].time for store in stores(result)]
    again = run(listed, tmp_path, *BOTH, "--retry-failed", "--json")
    assert all(store.failures()["empty.mp4"].time > time for store, time in zip(stores(again), before, strict=True))


def test_a_dry_run_in_words_names_both_stores(listed: Path, tmp_path: Path) -> None:
    result = run(listed, tmp_path, *BOTH, "--dry-run")
    lines = result.stdout.splitlines()
    assert result.exit_code == 1
    assert [line.endswith("(not there yet)") for line in (lines[0], lines[3])] == [True, True]
    assert " for both on this machine, going by " in lines[6]
    assert [line.split(":")[0] for line in lines[7:9]] == ["unreadable empty.mp4", "unreadable missing.mp4"]
    assert not list(tmp_path.iterdir())


def test_a_video_is_decoded_once(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read: list[int] = []
    frames = VideoSource.frames
    monkeypatch.setattr(VideoSource, "frames", lambda self, indices: read.append(len(indices)) or frames(self, indices))
    sent: dict[int, list[np.ndarray]] = {0: [], 1: []}
    emitter = SimpleNamespace(
        header=lambda plan, stream: None, alive=lambda: None, block=lambda images, stream: sent[stream].extend(images)
    )
    rgb, flow = (resolve(FeatureSpec, preset(name)) for name in ("tiny", "tiny-flow"))
    flow = FeatureSpec(flow=resolve_flow(flow.flow), clips=flow.clips)
    plans = decode_clips(DecodeJob(listed.with_name("d.mp4"), {0: Stream(rgb), 1: Stream(flow)}), emitter)  # type: ignore[arg-type]
    assert isinstance(plans[0], ClipPlan)
    wanted = plans[0].wanted
    assert read == [len(np.union1d(wanted, wanted + 1))]
    assert {number: len(images) for number, images in sent.items()} == {0: 25, 1: 25}


def test_flow_that_is_not_there_fails_its_stream_alone(listed: Path, apart: list[FeatureStore], tmp_path: Path) -> None:
    (tmp_path / "second.toml").write_text('[flow]\nmethod = "files"\norigin = "nowhere"\n')
    result = run(
        listed, tmp_path / "out", *RGB, "--and-preset", "tiny", "--and-config", tmp_path / "second.toml", "--flow-root", tmp_path, "--json"
    )
    rgb, flow = stores(result)
    assert same(rgb, apart[0])
    assert sorted(rgb.failures()) == sorted(BAD)
    assert len(flow) == 1  # one frame has no flow, so no file
    assert {flow.failures()[name].stage for name in ("a.mp4", "b.mp4", "d.mp4")} == {"flow"}


def test_a_video_that_changes_its_size_fails_in_both(tmp_path: Path) -> None:
    (tmp_path / "f").mkdir()
    for number in range(4):
        cv2.imwrite(str(tmp_path / "f" / f"{number:03}.png"), np.full((64, 64 + 16 * (number == 3), 3), 50 * number, np.uint8))
    (tmp_path / "list.csv").write_text("id,path\nf,f\n")
    result = run(tmp_path / "list.csv", tmp_path / "out", *BOTH, "--json")
    assert result.exit_code == 1
    reasons = [store.failures()["f"] for store in stores(result)]
    assert [failure.stage for failure in reasons] == ["decode", "decode"]
    assert "frame size changes from 64x64 to 80x64" in reasons[0].reason


def test_what_is_stopped_goes_on_and_ends_the_same(listed: Path, apart: list[FeatureStore], tmp_path: Path) -> None:
    videos = VideoList(tuple(Video(name, listed.with_name(name)) for name in LENGTHS), ())
    prepared = [(*prepare_spec(name, {}, "random:0", torch.device("cpu")), name) for name in ("tiny", "tiny-flow")]
    options = RunOptions(device="cpu", workers=1, publish_seconds=0)
    for patience in (5, 12, 1000):  # looks at the flag until it says stop
        streams = [Prepared(spec, net, FeatureStore.create(tmp_path, name, to_plain(spec))) for spec, net, name in prepared]
        looks = itertools.count()
        ending = pytest.raises(Interrupted, match=r"interrupted with .* finished ones are in .* and ") if patience < 1000 else nullcontext()
        with ending:
            extract_together(videos, streams, options, stopped=lambda looks=looks, patience=patience: next(looks) > patience)
    assert all(same(FeatureStore.open(stream.store.path), theirs) for stream, theirs in zip(streams, apart, strict=True))


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((*RGB, "--and-preset", "tiny"), "one and the same spec"),
        ((*RGB, "--and-weights", "random:1"), "--and-weights is given but no second stream"),
        ((*RGB, "--and-name", "x"), "--and-name is given but no second stream"),
        ((*RGB, "--and-preset", "tiny-clips", "--flow.bound", "10"), "neither stream has flow"),
        ((*RGB, "--and-preset", "i3d-flow"), "one pass over a video decodes it in one way"),
        ((*RGB, "--and-preset", "tiny-flo"), "did you mean tiny-flow"),
    ],
)
def test_what_cannot_be_two_streams(listed: Path, tmp_path: Path, arguments: tuple[str, ...], words: str) -> None:
    result = run(listed, tmp_path, *arguments)
    assert isinstance(result.exception, SpecError)
    assert words in str(result.exception)
    assert not list(tmp_path.iterdir())


def test_flags_go_for_both_and_flow_flags_for_flow(listed: Path, tmp_path: Path) -> None:
    flags = ("--clips.segments", "4", "--flow.bound", "10", "--and-name", "motion", "--and-weights", "random:7", "--json")
    rgb, flow = stores(run(listed, tmp_path, *BOTH, *flags))
    assert [store.spec["clips"]["segments"] for store in (rgb, flow)] == [4, 4]
    assert [store.spec["flow"]["bound"] for store in (rgb, flow)] == [20, 10]
    assert (rgb.spec["flow"]["method"], flow.spec["flow"]["method"]) == ("", "dis")
    assert (rgb.name.rsplit("-", 1)[0], flow.name.rsplit("-", 1)[0]) == ("tiny", "motion")
    assert [store.spec["weights"].split(":")[1] for store in (rgb, flow)] == ["0", "7"]


def test_flow_images_of_two_sizes_fail_their_stream_alone(listed: Path, apart: list[FeatureStore], tmp_path: Path) -> None:
    for name, length in LENGTHS.items():
        (tmp_path / "flow" / Path(name).stem).mkdir(parents=True)
        for number, series in itertools.product(range(length - 1), "xy"):
            side = 96 if (name, number) == ("d.mp4", 60) else 64
            cv2.imwrite(str(tmp_path / "flow" / Path(name).stem / f"flow_{series}_{number:05}.png"), np.full((64, side), 128, np.uint8))
    (tmp_path / "second.toml").write_text('[flow]\nmethod = "files"\norigin = "by hand"\n')
    flow_root = ("--flow-root", tmp_path / "flow")
    second = ("--and-preset", "tiny", "--and-config", tmp_path / "second.toml", *flow_root)
    rgb, flow = stores(run(listed, tmp_path / "out", *RGB, *second, "--json"))
    assert same(rgb, apart[0])
    assert sorted(flow.ids()) == sorted({*LENGTHS} - {"d.mp4"})
    failure = flow.failures()["d.mp4"]
    assert failure.stage == "flow"
    assert "flow 60 is 96x64 but flow 1 64x64; all flow of a video needs one size" in failure.reason


@pytest.mark.parametrize("where", ["find", "block"])
def test_whatever_happens_to_flow_leaves_rgb_alone(listed: Path, where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    def block(images: list[np.ndarray], stream: int) -> None:
        if stream == 1:
            refuse()
        sent.extend(images)

    sent: list[np.ndarray] = []
    emitter = SimpleNamespace(header=lambda plan, stream: None, alive=lambda: None, block=block)
    rgb = resolve(FeatureSpec, preset("tiny"))
    flow = FeatureSpec(flow=resolve_flow(resolve(FeatureSpec, preset("tiny-flow")).flow), clips=rgb.clips)
    if where == "find":
        monkeypatch.setattr("extract.flow_frames.find_flow", refuse)
        flow = FeatureSpec(flow=FlowSpec(method="files", origin="by hand"), clips=rgb.clips)
    ended = decode_clips(DecodeJob(listed.with_name("b.mp4"), {0: Stream(rgb), 1: Stream(flow)}), emitter)  # type: ignore[arg-type]
    assert isinstance(ended[0], ClipPlan)
    assert ended[1] == ("flow", "PermissionError: [Errno 13] Permission denied")
    assert len(sent) == len(ended[0].wanted)


def test_what_happens_to_rgb_is_told_of_rgb() -> None:
    """A stream without flow that fails beside another one fails at decoding."""
    rgb = Stream(resolve(FeatureSpec, preset("tiny")))
    assert _refusal(OSError(28, "No space left on device"), rgb) == ("decode", "OSError: [Errno 28] No space left on device")
