"""Stage one as a whole: features against a direct computation, resuming, bit-identity, recorded failures."""

import multiprocessing
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import av
import numpy as np
import pytest
import torch
from torchvision.transforms import v2

from extract.backbones import Backbone
from extract.clips import clip_indices, frame_spans
from extract.decode import ClipPlan, DecodeJob, Stream, _Sender, decode_clips
from extract.device import resolve_device
from extract.engine import Extraction, make_network
from extract.network import Network
from extract.pool import Block, Finished, Opened
from extract.prepare import prepare_spec
from extract.run import Summary, extract_features
from extract.spec import ClipSpec, FeatureSpec, RunOptions
from store.digest import to_plain
from store.errors import Interrupted, PipelineError, SpecError, StoreError, WeightsError
from store.features import Features, FeatureStore
from store.videos import Video, VideoList

ONE_WORKER = RunOptions(device="cpu", workers=1)
Encode = Callable[..., Path]


def moving_square(seed: int, num_frames: int, height: int = 72, width: int = 96) -> np.ndarray:
    """A noisy scene with a square that moves: uint8 [K, H, W, 3]."""
    random = np.random.default_rng(seed)
    frames = random.integers(0, 90, (1, height, width, 3), np.uint8).repeat(num_frames, 0)
    colour = random.integers(120, 256, 3, np.uint8)
    for number, frame in enumerate(frames):
        left = (5 + 2 * number * (1 + seed % 2)) % (width - 20)
        frame[20:40, left : left + 20] = colour
    return frames


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Encode) -> VideoList:
    folder = tmp_path_factory.mktemp("videos")
    lengths = {"a/one.mp4": 40, "a/two.mp4": 9, "b/one.mp4": 33, "b/three.mp4": 1}
    for seed, (name, length) in enumerate(lengths.items()):
        (folder / name).parent.mkdir(exist_ok=True)
        encode_video(folder / name, moving_square(seed, length))
    return VideoList(tuple(Video(name, folder / name, label=name[0]) for name in lengths), ("a", "b"))


def run(
    root: Path, videos: VideoList, preset: str = "tiny", options: RunOptions = ONE_WORKER, part: str = "main", **settings: object
) -> tuple[FeatureStore, Summary]:
    spec, backbone = prepare_spec(preset, settings, "random:0", torch.device("cpu"))
    store = FeatureStore.create(root, preset, to_plain(spec))
    summary = extract_features(videos, spec, store, backbone, options, part)
    return FeatureStore.open(store.path), summary


def same(one: FeatureStore, other: FeatureStore) -> bool:
    def equal(left: Features, right: Features) -> bool:
        return (
            left.values.keys() == right.values.keys()
            and all(left.values[level].tobytes() == right.values[level].tobytes() for level in left.values)
            and np.array_equal(left.frames, right.frames)
            and np.array_equal(left.times, right.times)
        )

    return sorted(one.ids()) == sorted(other.ids()) and all(equal(one.get(video), other.get(video)) for video in one.ids())


def decoded(path: Path) -> torch.Tensor:
    """All frames by PyAV directly: uint8 [K, 3, H, W]."""
    with av.open(str(path)) as container:
        return torch.from_numpy(np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])).permute(0, 3, 1, 2)


def directly(path: Path, indices: list[int], backbone: Backbone, resize: int, size: int) -> np.ndarray:
    """Centre-crop features of single frames as torchvision's own transforms make them: float32 [N, D] of the last level."""
    info = backbone.info
    transform = v2.Compose(
        [v2.Resize(resize, antialias=True), v2.CenterCrop(size), v2.ToDtype(torch.float32, scale=True), v2.Normalize(info.mean, info.std)]
    )
    with torch.inference_mode():
        features = backbone(torch.stack([transform(frame) for frame in decoded(path)[indices]]))
    return next(reversed(features.values())).numpy()


def test_features_are_those_of_a_direct_computation(tmp_path: Path, videos: VideoList) -> None:
    store, summary = run(tmp_path, videos)
    assert (summary.done, summary.skipped, summary.failed) == (4, 0, {})
    _, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    centres = [int((40 / 25) * (i + 0.5)) for i in range(25)]  # TSN: the centre of each of 25 segments of 40 frames
    found = store.get("a/one.mp4")
    expected = directly(videos.videos[0].path, centres, backbone, 64, 56)
    np.testing.assert_allclose(found.values[store.levels[-1]].astype(np.float32), expected, rtol=2e-3, atol=2e-3)
    assert found.frames.tolist() == [[index, index + 1] for index in centres]
    np.testing.assert_allclose(found.times[:, 0], np.array(centres) / 25, atol=1e-3)


def test_a_second_run_does_only_what_is_missing(tmp_path: Path, videos: VideoList) -> None:
    run(tmp_path, videos.subset(["a/one.mp4", "b/one.mp4"]))
    store, summary = run(tmp_path, videos)
    assert (summary.done, summary.skipped, summary.failed) == (2, 2, {})
    shards = sorted(path.name for path in (store.path / "shards").iterdir())
    store, summary = run(tmp_path, videos)
    assert (summary.done, summary.skipped, summary.failed) == (0, 4, {})
    assert sorted(path.name for path in (store.path / "shards").iterdir()) == shards


def test_a_damaged_shard_is_told_and_its_videos_are_done_again(tmp_path: Path, videos: VideoList) -> None:
    store, whole = run(tmp_path, videos)
    (shard,) = (store.path / "shards").iterdir()
    shard.chmod(0o644)
    shard.write_bytes(shard.read_bytes()[:1000])
    store, summary = run(tmp_path, videos)
    assert whole.damaged == {}
    assert (summary.done, list(summary.damaged)) == (4, [shard.name])
    assert "is not a usable shard" in summary.damaged[shard.name]


@pytest.mark.parametrize("device", ["meta", "tpu", "cuda:99"])
def test_a_device_that_cannot_compute_is_named(device: str) -> None:
    with pytest.raises(PipelineError, match=f"device '{device}' cannot be used here"):
        resolve_device(device)


def test_another_spec_never_lands_in_the_same_store(tmp_path: Path, videos: VideoList) -> None:
    first, _ = run(tmp_path, videos.subset(["a/two.mp4"]))
    second, _ = run(tmp_path, videos.subset(["a/two.mp4"]), clips={"segments": 24})
    assert first.path != second.path


@pytest.mark.parametrize("mixed", ["no", "yes"])
@pytest.mark.parametrize("preset", ["tiny", "tiny-flow", "tiny-clips"])
def test_features_are_bit_identical_whatever_runs_beside_them(tmp_path: Path, videos: VideoList, preset: str, mixed: str) -> None:
    options = replace(ONE_WORKER, mixed=mixed, batch_size=7)  # no multiple of any video's clips
    whole, _ = run(tmp_path / "whole", videos, preset, options)
    for index in (2, 1):
        parts, _ = run(tmp_path / "parts", videos.part(index, 2), preset, replace(options, workers=2), part=f"{index}of2")
    assert same(whole, parts)


@pytest.mark.parametrize("preset", ["tiny", "tiny-clips"])
def test_mixed_passes_are_full_but_the_last(tmp_path: Path, videos: VideoList, preset: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    features = Network.features

    def counting(self: Network, units: torch.Tensor) -> dict[str, torch.Tensor]:
        sizes.append(len(units))
        return features(self, units)

    monkeypatch.setattr(Network, "features", counting)
    alone, _ = run(tmp_path / "alone", videos, preset, replace(ONE_WORKER, batch_size=8))
    units = {"tiny": (25, 9, 25, 1), "tiny-clips": (9, 1, 7, 1)}[preset]  # of the videos; frames that several clips share count once
    assert sorted(sizes) == sorted(size for count in units for size in [8] * (count // 8) + [count % 8] * (count % 8 > 0))
    sizes.clear()
    mixed, _ = run(tmp_path / "mixed", videos, preset, replace(ONE_WORKER, batch_size=8, mixed="yes"))
    assert sizes == [8] * (1 + -(-sum(units) // 8))  # the first sees whether places matter; the last is filled up
    level = mixed.levels[-1]
    for video in videos:
        np.testing.assert_allclose(mixed.get(video.id).values[level], alone.get(video.id).values[level], rtol=2e-3, atol=2e-3)


def test_where_places_matter_videos_are_not_mixed(videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    monkeypatch.setattr(Network, "rows_agree", lambda self: False)
    with pytest.raises(PipelineError, match="on cpu features of tiny depend on their place in a pass; set --mixed no"):
        make_network(backbone, spec, replace(ONE_WORKER, mixed="yes"))
    monkeypatch.undo()
    stages = type(backbone).stages

    def uneven(self: Backbone, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        for level, output in stages(self, frames):
            yield level, output + torch.linspace(0, 1e-5, len(output)).view(-1, *[1] * (output.dim() - 1))

    monkeypatch.setattr(type(backbone), "stages", uneven)
    assert not Network(backbone, spec, torch.device("cpu"), mixed=True).rows_agree()
    assert not make_network(backbone, spec, ONE_WORKER).mixed


def test_a_video_whose_draft_was_wrong_is_sent_again(
    tmp_path: Path, encode_video: Encode, numbered_frames: Callable[..., list[np.ndarray]], monkeypatch: pytest.MonkeyPatch
) -> None:
    path = encode_video(tmp_path / "a.mov", numbered_frames(60), codec="png", pix_fmt="rgb24")
    data = bytearray(path.read_bytes())
    starts = [index for index in range(len(data)) if data[index : index + 8] == b"\x89PNG\r\n\x1a\n"]
    data[starts[20]] = data[starts[21]] = 0  # 60 packets, 58 frames
    path.write_bytes(data)
    sent: list[tuple[str, int]] = []
    emitter = SimpleNamespace(
        header=lambda plan, stream: sent.append(("plan", plan.indices[-1, 0])),
        block=lambda frames, stream: sent.append(("frames", len(frames))),
        alive=lambda: None,
    )
    job = DecodeJob(path, {0: Stream(FeatureSpec(clips=ClipSpec(segments=10)))})
    plan = decode_clips(job, emitter)[0]  # type: ignore[arg-type]
    assert isinstance(plan, ClipPlan)
    assert sent == [("plan", 55), ("frames", 10)]  # held back until it was certain
    assert plan.indices[:, 0].tolist() == [(2 * i + 1) * 58 // 20 for i in range(10)]
    np.testing.assert_allclose(plan.times[:, 0], [(index + 2 * (index >= 20)) / 25 for index in plan.indices[:, 0]])
    sent.clear()
    monkeypatch.setattr("extract.decode.HELD_BYTES", 0)
    monkeypatch.setattr("extract.decode.BLOCK_FRAMES", 5)
    decode_clips(job, emitter)  # type: ignore[arg-type]
    assert sent == [("plan", 57), ("frames", 5), ("frames", 5), ("plan", 55), ("frames", 5), ("frames", 5)]


@pytest.mark.parametrize("kind", ["frames", "clips"])
def test_what_a_second_header_takes_back_leaves_no_trace(kind: str) -> None:
    preset = {"frames": "tiny", "clips": "tiny-clips"}[kind]
    spec, backbone = prepare_spec(preset, {"dtype": "float32"}, "random:0", torch.device("cpu"))
    frames = moving_square(1, 40)
    given: dict[str, Features] = {}
    sink = SimpleNamespace(add=given.__setitem__, fail=lambda *problem: pytest.fail(str(problem)), refused=lambda wait=False: [])
    job = Extraction(Network(backbone, spec, torch.device("cpu"), 6, mixed=True), sink)  # type: ignore[arg-type]
    right, wrong = (ClipPlan(indices, frame_spans(indices), frame_spans(indices) / 25) for indices in clips_of(spec, 40, 30))
    for key, plans in (("once", [right]), ("twice", [wrong, right])):
        for plan in plans:
            job.handle(Opened(key, plan))
            job.handle(Block(key, frames[plan.wanted]))
        job.handle(Finished(key, right))
    job.network.finish()
    job._hand_over()
    level = next(iter(given["once"].values))
    assert np.array_equal(given["once"].values[level], given["twice"].values[level])


def clips_of(spec: FeatureSpec, *lengths: int) -> Iterator[np.ndarray]:
    return (clip_indices(length, spec.clips) for length in lengths)


@pytest.mark.parametrize(("shape", "count", "expected"), [((8, 8, 3), 150, [64, 64, 22]), ((1500, 2000, 3), 2, [1, 1])])
def test_blocks_of_small_frames_stay_small(shape: tuple[int, ...], count: int, expected: list[int]) -> None:
    sent: list[int] = []  # ten 224-crops of one 8 x 8 frame are 8,000 times its bytes
    emitter = SimpleNamespace(header=lambda plan, stream: None, block=lambda frames, stream: sent.append(len(frames)))
    sender = _Sender(ClipPlan(*[np.zeros((1, 2))] * 3), emitter, 0)  # type: ignore[arg-type]
    for _ in range(count):
        sender.frame(np.zeros(shape, np.uint8), held=False)
    sender.release()
    assert sent == expected


def test_ten_crops_are_averaged_in_float32_or_kept(tmp_path: Path, videos: VideoList) -> None:
    one = videos.subset(["a/one.mp4"])
    mean, _ = run(tmp_path, one, crops={"count": 10}, dtype="float32")
    kept, _ = run(tmp_path, one, crops={"count": 10, "keep": True}, dtype="float32")
    centre, _ = run(tmp_path, one, dtype="float32")
    level = mean.levels[-1]
    crops = kept.get("a/one.mp4").values[level]
    assert crops.shape[:2] == (25, 10)
    np.testing.assert_allclose(mean.get("a/one.mp4").values[level], crops.mean(1), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(centre.get("a/one.mp4").values[level], crops[:, 4], rtol=1e-4, atol=1e-5)


def test_overlapping_clips_compute_a_shared_frame_once(tmp_path: Path, videos: VideoList, monkeypatch: pytest.MonkeyPatch) -> None:
    images = []
    stages = type(prepare_spec("tiny", {}, "random:0", torch.device("cpu"))[1]).stages

    def counting(self: Backbone, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        images.append(len(frames))
        return stages(self, frames)

    monkeypatch.setattr(type(prepare_spec("tiny", {}, "random:0", torch.device("cpu"))[1]), "stages", counting)
    clips = {"rule": "looped", "length": 30, "stride": 8, "max_clips": 20, "pool": "none"}
    kept, _ = run(tmp_path, videos, clips=clips, dtype="float32")
    assert sum(images) == 38 + 9 + 30 + 1  # of 40 frames two clips cover 38, of 33 one covers 30; short videos are looped
    level = kept.levels[-1]
    assert [kept.get(video.id).values[level].shape[:2] for video in videos] == [(2, 30), (1, 30), (1, 30), (1, 30)]
    values = kept.get("a/one.mp4").values[level]
    assert np.array_equal(values[0, 8:], values[1, :22])
    short = kept.get("a/two.mp4").values[level][0]
    assert np.array_equal(short, short[np.arange(30) % 9])
    pooled, _ = run(tmp_path, videos, clips={**clips, "pool": "mean"}, dtype="float32")
    np.testing.assert_allclose(pooled.get("a/one.mp4").values[level], values.mean(1), rtol=1e-5, atol=1e-6)


def test_a_clip_network_sees_its_clips(tmp_path: Path, videos: VideoList) -> None:
    store, _ = run(tmp_path, videos.subset(["a/one.mp4"]), "tiny-clips", dtype="float32")
    spec, backbone = prepare_spec("tiny-clips", {}, "random:0", torch.device("cpu"))
    info = backbone.info
    frames = v2.CenterCrop(spec.crops.size)(v2.Resize(list(spec.crops.resize), antialias=True)(decoded(videos.videos[0].path)))
    normal = v2.Normalize(info.mean, info.std)(frames.float() / 255)
    starts = range(0, 40 - 8 + 1, 4)
    with torch.inference_mode():
        expected = backbone(torch.stack([normal[start : start + 8].transpose(0, 1) for start in starts]))
    level = store.levels[-1]
    np.testing.assert_allclose(store.get("a/one.mp4").values[level], expected[level].numpy(), rtol=1e-3, atol=1e-4)
    assert store.get("a/one.mp4").frames.tolist() == [[start, start + 8] for start in starts]


def test_maps_are_stored_whole_and_their_means_are_the_level(tmp_path: Path, videos: VideoList) -> None:
    one = videos.subset(["a/one.mp4"])
    store, _ = run(tmp_path, one, levels=["block2.map", "block3", "block3.map"], dtype="float32")
    values = store.get("a/one.mp4").values
    assert {name: level.shape[1:] for name, level in values.items()} == {
        "block2.map": (32, 14, 14),
        "block3": (64,),
        "block3.map": (64, 7, 7),
    }
    np.testing.assert_allclose(values["block3.map"].mean((2, 3)), values["block3"], rtol=1e-5, atol=1e-6)
    looped = {"rule": "looped", "length": 30, "stride": 8}
    pooled, _ = run(tmp_path, one, levels=["block3.map"], clips=looped, dtype="float32")
    kept, _ = run(tmp_path, one, levels=["block3.map"], clips={**looped, "pool": "none"}, dtype="float32")
    whole = kept.get("a/one.mp4").values["block3.map"]
    assert whole.shape == (2, 30, 64, 7, 7)
    np.testing.assert_allclose(pooled.get("a/one.mp4").values["block3.map"], whole.mean(1), rtol=1e-5, atol=1e-6)
    clips, _ = run(tmp_path, one, "tiny-clips", levels=["block3.map"], crops={"count": 10, "keep": True})
    assert clips.get("a/one.mp4").values["block3.map"].shape == (9, 10, 64, 8, 7, 7)


def test_bad_videos_are_recorded_with_their_reasons_and_the_rest_is_done(tmp_path: Path, videos: VideoList) -> None:
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "text.mp4").write_text("this is no video\n" * 100)
    bad = tuple(Video(name, tmp_path / name) for name in ("missing.mp4", "empty.mp4", "text.mp4"))
    both = VideoList(videos.videos[:2] + bad, ("a", "b"))
    store, summary = run(tmp_path / "out", both)
    assert (summary.done, summary.asked) == (2, 5)
    assert "no such file" in summary.failed["missing.mp4"][1]
    assert "empty (0 bytes)" in summary.failed["empty.mp4"][1]
    assert "not a video" in summary.failed["text.mp4"][1]
    assert {failure.id for failure in store.failures().values()} == {"missing.mp4", "empty.mp4", "text.mp4"}
    _, again = run(tmp_path / "out", both)
    assert (again.done, again.skipped, again.failed) == (0, 2, summary.failed)


def test_a_failed_video_is_tried_again_once_its_file_changes(tmp_path: Path, videos: VideoList) -> None:
    (tmp_path / "late.mp4").touch()
    late = VideoList((Video("late.mp4", tmp_path / "late.mp4"),), ())
    assert run(tmp_path / "out", late)[1].failed
    (tmp_path / "late.mp4").write_bytes(videos.videos[0].path.read_bytes())
    store, summary = run(tmp_path / "out", late)
    assert (summary.done, summary.failed, store.failures()) == (1, {}, {})


def test_nan_from_a_network_is_a_recorded_failure(tmp_path: Path, videos: VideoList) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    next(reversed(list(backbone.parameters()))).data.fill_(float("nan"))
    store = FeatureStore.create(tmp_path, "nan", to_plain(spec))
    summary = extract_features(videos, spec, store, backbone, ONE_WORKER)
    assert summary.done == 0
    assert all(stage == "features" and "NaN or Inf" in reason for stage, reason in summary.failed.values())
    assert len(FeatureStore.open(store.path)) == 0


def test_what_float16_cannot_hold_is_a_recorded_failure(tmp_path: Path, videos: VideoList) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    for parameter in backbone.parameters():
        parameter.data.mul_(1000)
    summary = extract_features(videos, spec, FeatureStore.create(tmp_path, "big", to_plain(spec)), backbone, ONE_WORKER)
    assert all("beyond float16's 65504; store it with --dtype float32" in reason for _, reason in summary.failed.values())
    assert len(summary.failed) == 4


def test_an_interrupted_run_publishes_what_is_complete(tmp_path: Path, videos: VideoList) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    store = FeatureStore.create(tmp_path, "tiny", to_plain(spec))
    options = replace(ONE_WORKER, publish_seconds=0)
    with pytest.raises(Interrupted, match=r"of 4 videos left; .* run the command again"):
        extract_features(videos, spec, store, backbone, options, stopped=lambda: any((store.path / "shards").glob("*.h5")))
    assert 1 <= len(FeatureStore.open(store.path)) < 4
    resumed, _ = run(tmp_path, videos)
    whole, _ = run(tmp_path / "whole", videos)
    assert same(resumed, whole)


def test_a_store_that_refuses_ends_the_job_and_its_workers(tmp_path: Path, videos: VideoList) -> None:
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    store = FeatureStore.create(tmp_path, "tiny", to_plain(spec))

    def stopped() -> bool:
        store.spec_file.unlink(missing_ok=True)
        return False

    with pytest.raises(StoreError, match="has vanished") as caught:
        extract_features(videos, spec, store, backbone, replace(ONE_WORKER, publish_seconds=0), stopped=stopped)
    assert caught.traceback
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize(
    ("preset", "settings", "words"),
    [
        ("tiny-clips", {"clips": {"length": 4}}, "clips.length is 4 but tiny3d takes clips of 8 frames"),
        ("tiny", {"flow": {"params": {"preset": 1}}}, "no flow.method is set"),
        ("tiny", {"crops": {"size": 100}}, "a crop must fit into the resized frame"),
    ],
)
def test_a_spec_that_cannot_work_is_refused_before_any_video(preset: str, settings: dict[str, object], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        prepare_spec(preset, settings, "random:0", torch.device("cpu"))


def test_weights_are_never_random_by_accident() -> None:
    with pytest.raises(WeightsError, match="no weights were given"):
        prepare_spec("tiny", {}, None, torch.device("cpu"))


def test_specs_say_what_they_are() -> None:
    spec, _ = prepare_spec("tiny-flow", {}, "random:0", torch.device("cpu"))
    assert spec.weights.startswith("random:0:")
    assert spec.flow.version.startswith("opencv")
    assert spec.flow.params
    assert isinstance(spec, FeatureSpec)
