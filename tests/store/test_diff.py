"""How far apart two stores are: every figure against plain numpy."""

import json
import math
import tracemalloc
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

import store.distance
from store import Features, FeatureStore, SpecError, StoreError
from store.commands import store as command
from store.diff import diff
from store.distance import DistanceSum, distance
from store.shard_writer import Entry, write_shard
from store.testing import Videos, sample


def make(root: Path, videos: Mapping[str, Features], spec: dict[str, object], name: str = "x") -> FeatureStore:
    made = FeatureStore.create(root, name, spec)
    with made.writer() as writer:
        for video_id, features in videos.items():
            writer.add(video_id, features)
    return made


def with_values(features: Features, **values: np.ndarray) -> Features:
    return Features({**features.values, **values}, features.frames, features.times)


def noisy(videos: Videos, level: str, scale: float, dtype: type | None = None) -> Videos:
    """Each video's level with noise of a hundredth, more for later videos, in another type."""
    rng = np.random.default_rng(7)
    found = {}
    for number, (video_id, features) in enumerate(videos.items()):
        array = features.values[level].astype(np.float64)
        changed = array + scale * (number + 1) * rng.standard_normal(array.shape)
        found[video_id] = with_values(features, **{level: changed.astype(dtype or features.values[level].dtype)})
    return found


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(command, ["diff", *map(str, arguments)])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def truth(pairs: list[tuple[np.ndarray, np.ndarray]]) -> dict[str, float]:
    """The measures of many pairs of arrays together, by the textbook."""
    a, b = (np.concatenate([pair[side].astype(np.float64).reshape(len(pair[side]), -1) for pair in pairs]) for side in (0, 1))
    cosines = [float(x @ y / (np.linalg.norm(x) * np.linalg.norm(y))) for x, y in zip(a, b, strict=True)]
    return {
        "rows": len(a),
        "max_abs": float(np.abs(a - b).max()),
        "mean_abs": float(np.abs(a - b).mean()),
        "relative": float(np.linalg.norm(a - b) / np.linalg.norm(b)),
        "cosine_mean": float(np.mean(cosines)),
        "cosine_min": min(cosines),
    }


@pytest.mark.parametrize("types", [("f2", "f2"), ("f4", "f4"), ("f4", "f2"), ("f2", "f4")])
@pytest.mark.parametrize("shape", [(1,), (7,), (7, 64), (5, 3, 4, 2)])
def test_distances_are_those_of_numpy(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], types: tuple[str, str]) -> None:
    rng = np.random.default_rng(0)
    first = rng.standard_normal(shape).astype(types[0])
    second = (first + 0.1 * rng.standard_normal(shape)).astype(types[1])
    wanted = pytest.approx(truth([(first, second)]), rel=1e-12)
    assert vars(distance(first, second)) == wanted
    monkeypatch.setattr(store.distance, "PIECE_VALUES", 20)  # a few rows at a time
    assert vars(distance(first, second)) == wanted


def test_distances_of_awkward_rows() -> None:
    zero, one, inf, nan = (np.full((1, 3), value, np.float32) for value in (0, 1, np.inf, np.nan))
    assert vars(distance(zero, zero)) == vars(distance(one, one)) | {"cosine_mean": 1.0, "cosine_min": 1.0}
    assert distance(one, one).cosine_min == pytest.approx(1, abs=1e-15)
    assert (distance(one, zero).relative, distance(one, zero).cosine_min) == (math.inf, 0)
    assert (distance(zero, one).relative, distance(zero, one).cosine_min) == (1, 0)
    assert distance(one, -one).cosine_min == pytest.approx(-1)
    for strange in (inf, nan):
        found = distance(strange, one)
        assert (found.max_abs, found.mean_abs, found.relative) == (math.inf, math.inf, math.inf)
        assert not math.isnan(found.cosine_mean)
        assert distance(one, strange).relative == math.inf
    largest = np.full((1, 3), 3e38, np.float32)
    assert distance(largest, -largest).relative == pytest.approx(2)
    assert DistanceSum().distance().relative == 0


def test_equal_stores_are_identical_and_no_row_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = sample("three levels", 20)
    first = make(tmp_path, videos, {"version": 1})
    second = make(tmp_path, dict(reversed(videos.items())), {"version": 2, "more": None})
    monkeypatch.delattr(FeatureStore, "get")
    found = diff(first, second)
    assert (found.identical, found.equal, found.different, found.same, found.worst) == (20, 0, 0, True, [])
    assert found.specs == {"more": ("unset", "None"), "version": ("1", "2")}
    assert diff(first, first).specs == {}


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_every_measure_of_a_level(tmp_path: Path, dtype: type) -> None:
    videos = sample("three levels", 12)
    other = noisy(videos, "mid.1", 0.01, dtype)
    first, second = make(tmp_path, videos, {"precision": "fp32"}), make(tmp_path, other, {"precision": "bf16"})
    found = diff(first, second, worst=3)
    pairs = {video_id: (videos[video_id].values["mid.1"], other[video_id].values["mid.1"]) for video_id in videos}
    assert (found.identical, found.different, found.other_rows, found.other_spans) == (0, 12, 0, 0)
    assert {name: level.videos for name, level in found.levels.items()} == {"High": 0, "low": 0, "mid.1": 12}
    level = found.levels["mid.1"]
    assert vars(level.distance()) == pytest.approx(truth(list(pairs.values())), rel=1e-12)
    each = {video_id: truth([pair]) for video_id, pair in pairs.items()}
    assert level.worst == {
        "max_abs": max(each, key=lambda video_id: each[video_id]["max_abs"]),
        "relative": max(each, key=lambda video_id: each[video_id]["relative"]),
        "cosine": min(each, key=lambda video_id: each[video_id]["cosine_min"]),
    }
    farthest = sorted(each, key=lambda video_id: -each[video_id]["relative"])[:3]
    assert [one.id for one in found.worst] == farthest
    assert level.relative_max == pytest.approx(each[farthest[0]]["relative"])
    for one in found.worst:
        assert vars(one.levels["mid.1"]) == pytest.approx(each[one.id], rel=1e-12)


def test_the_tolerance_decides_what_is_different(tmp_path: Path) -> None:
    videos = sample(videos=12)
    other = noisy(videos, "high", 0.01)
    relatives = {name: truth([(videos[name].values["high"], other[name].values["high"])])["relative"] for name in videos}
    limit = sorted(relatives.values())[7]
    found = diff(make(tmp_path, videos, {"a": 1}), make(tmp_path, other, {"a": 2}), tolerance=limit + 1e-9, worst=12)
    assert (found.equal, found.different, found.same) == (8, 4, False)
    assert [one.id for one in found.worst] == sorted(relatives, key=lambda name: -relatives[name])
    assert diff(*found.stores, tolerance=max(relatives.values()) + 1e-9).same
    with pytest.raises(SpecError, match="tolerance is -1; it must be 0 or more"):
        diff(*found.stores, tolerance=-1)


def test_the_same_values_in_another_type_are_equal_but_not_identical(tmp_path: Path) -> None:
    videos = sample(videos=6)
    wide = {name: with_values(one, high=one.values["high"].astype(np.float32)) for name, one in videos.items()}
    found = diff(make(tmp_path, videos, {"dtype": "float16"}), make(tmp_path, wide, {"dtype": "float32"}))
    assert (found.identical, found.equal, found.different, found.same) == (0, 6, 0, True)
    assert [str(side) for side in (found.levels["high"].first, found.levels["high"].second)] == [
        "high float16 [N, 8]",
        "high float32 [N, 8]",
    ]


def test_frames_times_and_rows_are_told(tmp_path: Path) -> None:
    videos = sample(videos=8)
    names = [name for name, one in videos.items() if len(one) > 1][:4]
    other = dict(videos)
    one, two, three, four = (videos[name] for name in names)
    other[names[0]] = Features(one.values, one.frames + 1, one.times)
    other[names[1]] = Features(two.values, two.frames, two.times + 0.5)
    other[names[2]] = Features(three.values, three.frames, three.times + 1e-9)
    other[names[3]] = Features({"high": four.values["high"][1:]}, four.frames[1:], four.times[1:])
    found = diff(make(tmp_path, videos, {"a": 1}), make(tmp_path, other, {"a": 2}))
    assert (found.identical, found.equal, found.different, found.other_rows, found.other_spans) == (4, 1, 3, 1, 2)
    told = {difference.id: difference for difference in found.worst}
    assert found.worst[0].id == names[3]
    assert told[names[3]].rows == (len(four), len(four) - 1)
    assert (told[names[0]].frames, told[names[0]].seconds) == (True, 0)
    assert (told[names[1]].frames, told[names[1]].seconds) == (False, 0.5)
    assert [difference.id for difference in found.worst][-1] == names[2]
    text = run(*(side.path for side in found.stores)).output
    assert f"{names[3]}: {len(four)} rows in A, {len(four) - 1} in B" in text
    assert f"{names[0]}: high max 0, relative 0, cosine min" in text
    assert "; other frames" in text
    assert "; times 0.5 s apart" in text
    assert "4 videos identical, 1 equal within tolerance 0, 3 different (1 in the number of rows, 2 in frames or times)" in text


def test_videos_and_levels_of_one_store_alone(tmp_path: Path) -> None:
    videos = sample("three levels", 12)
    ids = list(videos)
    fewer = {name: Features({"low": one.values["low"]}, one.frames, one.times) for name, one in videos.items()}
    first = make(tmp_path, {name: videos[name] for name in ids[:9]}, {"a": 1})
    second = make(tmp_path, {name: fewer[name] for name in ids[6:]}, {"a": 2})
    found = diff(first, second)
    assert found.videos_only == (ids[:6], ids[9:])
    assert found.levels_only == (["High", "mid.1"], [])
    assert (found.identical, found.same) == (3, False)
    assert diff(first, second, common=True).same
    assert diff(first, second, levels=["low"]).levels_only == ([], [])
    result = run(first.path, second.path, "--videos", "2")
    assert result.exit_code == 1
    assert f"only in A: level mid.1\nonly in A: 6 videos: {ids[0]}, {ids[1]}, 4 more\nonly in B: 3 videos:" in result.output
    assert run(first.path, second.path, "--common").exit_code == 0


def test_levels_of_other_names_and_shapes(tmp_path: Path) -> None:
    videos = sample("three levels", 5)
    other = noisy({name: Features({"theirs": one.values["mid.1"]}, one.frames, one.times) for name, one in videos.items()}, "theirs", 0.1)
    first, second = make(tmp_path, videos, {"a": 1}), make(tmp_path, other, {"a": 2})
    found = diff(first, second, levels=["mid.1:theirs", "low:theirs"])
    pairs = [(videos[name].values["mid.1"], other[name].values["theirs"]) for name in videos]
    assert vars(found.levels["mid.1:theirs"].distance()) == pytest.approx(truth(pairs), rel=1e-12)
    assert found.row_shapes == {"low:theirs": ("low float16 [N, 4]", "theirs float32 [N, 3, 5]")}
    assert not found.same
    nothing = diff(first, second)  # no name in common
    assert (nothing.identical, nothing.different, nothing.same) == (0, 5, False)
    assert "level low:theirs cannot be compared: low float16 [N, 4] in A" in run(first.path, second.path, "--level", "low:theirs").output
    with pytest.raises(StoreError, match=r"no level 'mid\.1' in .*x-\w+; it has theirs"):
        diff(first, second, levels=["mid.1"])
    with pytest.raises(StoreError, match=r"no level 'tehirs' in .*; it has theirs"):
        diff(first, second, levels=["low:tehirs"])


def test_damage_is_named_and_the_rest_compared(tmp_path: Path) -> None:
    videos = sample(videos=8)
    ids = list(videos)
    first, second = make(tmp_path, videos, {"a": 1}), make(tmp_path, noisy(videos, "high", 0.1), {"a": 2})
    (shard,) = second.shards
    data = bytearray(shard.path.read_bytes())
    data[shard.structure.values["high"].offset] ^= 1
    shard.path.unlink()
    shard.path.write_bytes(data)
    found = diff(first, FeatureStore.open(second.path))
    assert list(found.unreadable) == [ids[0]]
    assert f"B: {shard.path}: video {ids[0]!r}, level high: the bytes are not" in found.unreadable[ids[0]]
    assert (found.different, found.same) == (7, False)
    result = run(first.path, second.path, "--tolerance", "100")
    assert result.exit_code == 1
    assert f"unreadable {ids[0]}: B: {shard.path}" in result.output
    assert "1 unreadable (run `actioncache store repair`)" in result.output
    shard.path.write_bytes(b"junk")
    result = run(first.path, second.path)
    assert f"warning: {shard.name} cannot be used, its videos count as missing" in result.stderr
    assert "only in A: 8 videos" in result.output


def test_values_that_are_not_finite_are_different(tmp_path: Path) -> None:
    """No writer of ours stores them; a foreign one may."""
    videos = sample(videos=3)
    first = make(tmp_path, videos, {"a": 1})
    second = FeatureStore.create(tmp_path, "x", {"a": 2})
    strange = {
        name: with_values(one, high=np.where(np.eye(len(one), 8) > 0, np.float16("nan"), one.values["high"]))
        for name, one in videos.items()
    }
    write_shard(second.path / "shards" / "a.h5", second.digest, [Entry.of(name, one) for name, one in strange.items()])
    result = run(first.path, second.path, "--json", "--tolerance", "1e9")
    assert result.exit_code == 1
    found = json.loads(result.stdout, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert (found["different"], found["levels"]["high"]["relative"]) == (3, None)


def test_empty_stores(tmp_path: Path) -> None:
    empty, full = FeatureStore.create(tmp_path, "x", {"a": 1}), make(tmp_path, sample(videos=2), {"a": 2})
    assert diff(empty, empty).same
    found = diff(empty, full, levels=["high"])
    assert (found.videos_only[1], found.same) == (full.ids(), False)
    assert "0 videos identical, 0 different" in run(empty.path, full.path).output


def test_json_has_every_figure(tmp_path: Path) -> None:
    videos = sample(videos=6)
    first, second = make(tmp_path, videos, {"a": 1}, "first"), make(tmp_path, noisy(videos, "high", 0.1), {"a": 2}, "second")
    result = run(tmp_path / "first", tmp_path / "second", "--json", "--videos", "2")
    found = json.loads(result.stdout)
    assert result.exit_code == 1
    assert "compare 6/6 videos" in result.stderr
    assert (found["same"], found["different"], found["identical"], found["specs"]) == (False, 6, 0, {"a": ["1", "2"]})
    assert found["a"] == {"path": str(first.path), "digest": first.digest, "videos": 6, "levels_only": [], "videos_only": []}
    assert found["levels"]["high"]["types"] == ["high float16 [N, 8]"] * 2
    assert found["levels"]["high"]["max_abs"] == diff(first, second).levels["high"].distance().max_abs
    assert len(found["worst"]) == 2
    assert found["worst"][0]["levels"]["high"]["relative"] == found["levels"]["high"]["relative_max"]


def test_memory_holds_one_video_at_a_time(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    spans = np.stack([np.arange(64), np.arange(64) + 1], 1)
    values = {f"v{n}": rng.standard_normal((64, 4096)).astype(np.float32) for n in range(24)}  # 1 MB each
    stores = []
    for add in (0, 1):
        videos = {name: Features({"x": array + np.float32(add)}, spans, spans / 25) for name, array in values.items()}
        stores.append(make(tmp_path, videos, {"add": add}))
    stores = [FeatureStore.open(one.path) for one in stores]
    tracemalloc.start()
    try:
        assert diff(*stores).different == 24
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 16 * 2**20  # two videos as they are, and a few such in float64
