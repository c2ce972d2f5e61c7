"""``predict --video``: from files to classes with a trained run, through the very settings that its features were made by."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import cli
from extract.prepare import extract_list
from extract.spec import RunOptions
from extract.wishes import Wish
from store.errors import SpecError, SpecMismatchError, WeightsError
from store.features import FeatureStore
from store.scores import ScoreTable
from store.videos import Video, VideoList
from temporal.experiment import train_list
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

SPEC = RunSpec(SequenceSpec(steps=5), HeadSpec(name="mean", dropout=0.0), TrainSpec(epochs=2, validation=0.0))


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> VideoList:
    """Six short videos of noise, dark or bright; four train, two test."""
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    made = []
    for number in range(6):
        frames = random.integers(128 * (number % 2), 128 * (number % 2) + 100, (12, 48, 64, 3), np.uint8)
        path = encode_video(folder / f"{number}.mp4", list(frames))
        made.append(Video(str(path), path, ("dark", "bright")[number % 2], "train" if number < 4 else "test", f"g{number}"))
    return VideoList(tuple(made), ("bright", "dark"))


@pytest.fixture(scope="module")
def features(videos: VideoList, tmp_path_factory: pytest.TempPathFactory) -> dict[str, FeatureStore]:
    """Their features in RGB and flow, of the tiny network."""
    folder = tmp_path_factory.mktemp("features")
    options = RunOptions(workers=1)
    wishes = [Wish(preset, {}, "random:0") for preset in ("tiny", "tiny-flow")]
    return {wish.preset or "": FeatureStore.open(extract_list(videos, [wish], options, folder)[0][0]) for wish in wishes}


def _invoke(*arguments: object, code: int = 0) -> Result:
    result = CliRunner().invoke(cli.cli, ["predict", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


def test_a_video_file_gets_the_scores_of_its_stored_features(videos, features, tmp_path):
    run = train_list([features["tiny"]], videos, SPEC, tmp_path / "one").runs[0]
    test = [video.path for video in videos if video.split == "test"]
    told = _invoke(run.path, "--video", test[0], "--video", test[1], "-o", tmp_path / "scores.npz", "--picture", tmp_path / "picture.png")
    table = ScoreTable.load(tmp_path / "scores.npz")
    assert table.ids == tuple(map(str, test))
    np.testing.assert_allclose(table.values, run.scores().rows(table.ids).values, rtol=1e-5, atol=1e-6)
    highest = table.classes[int(table.values[0].argmax())]
    lines = told.stdout.splitlines()
    assert lines[0] == str(test[0])
    assert lines[1].split()[-1] == highest
    shares = [float(line.split()[0]) for line in lines[1:3]]
    assert sum(shares) == pytest.approx(100, abs=0.2)
    assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    lists = _invoke(run.path, "--video", test[0], "--json", "--top", 1).stdout
    assert json.loads(lists)["top"][0]["class"] == highest
    assert json.loads(lists)["part"] == "unknown"  # a path is no id of the list that the run was trained on


def test_mid_fusion_needs_both_streams_and_makes_them(videos, features, tmp_path):
    spec = replace(SPEC, sequence=replace(SPEC.sequence, mid="sum"))
    run = train_list([features["tiny"], features["tiny-flow"]], videos, spec, tmp_path / "mid").runs[0]
    test = next(video.path for video in videos if video.split == "test")
    _invoke(run.path, "--video", test, "-o", tmp_path / "mid.npz", "--keep-features", tmp_path / "kept")
    assert sorted(path.name for path in (tmp_path / "kept").iterdir()) == sorted(store.name for store in features.values())
    table = ScoreTable.load(tmp_path / "mid.npz")
    np.testing.assert_allclose(table.values, run.scores().rows(table.ids).values, rtol=1e-5, atol=1e-6)


def test_a_video_that_does_not_decode_is_left_out_with_its_reason(videos, features, tmp_path):
    run = train_list([features["tiny"]], videos, SPEC, tmp_path / "one").runs[0]
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(b"no video")
    told = _invoke(run.path, "--video", broken, "--video", videos.videos[4].path, code=1)
    assert f"failed {broken} [decode]" in told.stderr
    assert str(videos.videos[4].path) in told.stdout


def test_what_cannot_be_made_alike_is_refused(videos, features, tmp_path):
    from extract.again import extract_again, find_weights
    from extract.backbones import backbone_info

    one = videos.subset([videos.videos[0].id])
    with pytest.raises(SpecError, match="were not made by `actioncache extract` of this version"):
        extract_again(one, {"imported": "from elsewhere"}, [], tmp_path, "imported")
    other = {**features["tiny"].spec, "weights": "random:1:" + features["tiny"].spec["weights"].rpartition(":")[2]}
    with pytest.raises(SpecMismatchError, match="would not make features like tiny: weights is"):
        extract_again(one, other, [], tmp_path, "tiny")
    digits, file = "ab" * 32, tmp_path / "mine.pth"
    file.write_bytes(b"weights")
    with pytest.raises(WeightsError, match=f"weights of tiny with the SHA-256 {digits}; give their file with --weights\n  .*mine.pth has"):
        find_weights(backbone_info("tiny"), f"sha256:{digits}", [file])
    published = backbone_info("resnet34")
    name, weights = next(iter(published.published.items()))
    digits = weights.sha256 or weights.url.rpartition("-")[2].partition(".")[0]
    assert find_weights(published, f"sha256:{digits:0<64}", []) == f"published:{name}"
    assert not list(tmp_path.glob("tiny-*"))


def test_wrong_usage_is_told(videos, features, tmp_path):
    run = train_list([features["tiny"]], videos, SPEC, tmp_path / "one").runs[0]
    assert "give a LIST or --video FILE" in _invoke(run.path, code=2).output


def test_no_code_of_a_foreign_run_is_run_unless_it_is_allowed(videos, features, tmp_path, monkeypatch):
    from extract.again import extract_again

    (tmp_path / "not_asked_for.py").write_text("raise RuntimeError('it ran')\n")
    monkeypatch.chdir(tmp_path)
    one, spec = videos.subset([videos.videos[0].id]), {**features["tiny"].spec, "backbone": "not_asked_for:Net"}
    with pytest.raises(SpecError, match=r"made by the network 'not_asked_for:Net', .*add --allow-backbone not_asked_for:Net"):
        extract_again(one, spec, [], tmp_path, "tiny")
    with pytest.raises(SpecError, match="it ran"):
        extract_again(one, spec, [], tmp_path, "tiny", allowed=["not_asked_for:Net"])


def test_published_weights_without_stated_digits_are_found_in_the_cache_by_its_record(tmp_path, monkeypatch):
    from extract.again import find_weights
    from extract.backbones import backbone_info
    from extract.downloads import cached_path, record_path

    monkeypatch.setenv("ACTIONCACHE_HOME", str(tmp_path))
    info = backbone_info("c3d")
    path = cached_path(info.published["sports1m"].url)
    path.parent.mkdir()
    record_path(path).write_text(f"{'ab' * 32}  {path.name}\n")
    assert find_weights(info, f"sha256:{'ab' * 32}", []) == "published:sports1m"
