"""Many videos into one array: against reading them one by one, in any order, type and number of threads; never a wrong row."""

import multiprocessing
import pickle
import shutil
from pathlib import Path

import numpy as np
import pytest

from store import Features, FeatureStore
from store.arrays import _maps
from store.bulk import RowReader
from store.bulk_copy import BLOCK_BYTES
from store.errors import DamagedShardError, FeatureError, MissingFeaturesError
from store.testing import SPEC, sample

VIDEOS = sample(videos=60)


def build(root: Path, videos: dict[str, Features], shards: int = 4) -> FeatureStore:
    store, ids = FeatureStore.create(root, "x", SPEC), list(videos)
    for number in range(shards):
        with store.writer(f"part{number}") as writer:
            for video_id in ids[number::shards]:
                writer.add(video_id, videos[video_id])
    return store


def shuffled(ids: list[str], seed: int = 0) -> list[str]:
    return [ids[i] for i in np.random.default_rng(seed).permutation(len(ids))]


@pytest.mark.parametrize("order", ["ids", "storage"])
@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("check", [True, False])
def test_rows_are_those_of_the_videos(tmp_path: Path, order: str, threads: int, check: bool) -> None:
    store = build(tmp_path, VIDEOS)
    ids = shuffled(list(VIDEOS))[:41]
    rows = store.read_rows(ids, check=check, order=order, spans=True, threads=threads)  # type: ignore[arg-type]
    assert rows.frames is not None
    assert rows.times is not None
    assert rows.values.dtype == np.float16
    assert sorted(rows.starts) == np.cumsum([0, *(rows.counts[np.argsort(rows.starts)])]).tolist()[:-1]
    for number, video_id in enumerate(ids):
        span = slice(rows.starts[number], rows.starts[number] + rows.counts[number])
        assert rows.of(number).tobytes() == VIDEOS[video_id].values["high"].tobytes()
        assert rows.frames[span].tobytes() == VIDEOS[video_id].frames.tobytes()
        assert rows.times[span].tobytes() == VIDEOS[video_id].times.tobytes()
    if order == "ids":
        assert np.array_equal(rows.values, np.concatenate([VIDEOS[video_id].values["high"] for video_id in ids]))


def test_a_video_may_be_asked_for_twice_and_none_at_all(tmp_path: Path) -> None:
    store = build(tmp_path, VIDEOS)
    twice = store.read_rows(["a", "ü/日本語/🎬", "a"])
    assert np.array_equal(twice.of(0), twice.of(2))
    assert store.read_rows([]).values.shape == (0, 8)
    assert len(store.read_rows()) == 60


@pytest.mark.parametrize("layout", ["three levels", "numbers"])
def test_every_shape_of_row(tmp_path: Path, layout: str) -> None:
    videos = sample(layout)
    store = build(tmp_path, videos)
    for level in store.levels:
        rows = store.read_rows(level=level)
        assert np.array_equal(rows.values, np.concatenate([videos[video_id].values[level] for video_id in store.ids()]))
    if len(store.levels) > 1:
        with pytest.raises(MissingFeaturesError, match=r"name one level to read; it has High, low, mid.1"):
            store.read_rows()
    with pytest.raises(MissingFeaturesError, match="there is no level 'top'; it has"):
        store.read_rows(level="top")


def test_blocks_larger_and_smaller_than_a_shard(tmp_path: Path) -> None:
    random = np.random.default_rng(1)
    frames = np.stack([np.arange(3000), np.arange(3000) + 1], 1)
    sizes = {"small": 5, "big": 3000, "small too": 7, "second big": 2999}
    videos = {
        name: Features({"x": random.standard_normal((rows, 1024)).astype(np.float16)}, frames[:rows], frames[:rows] / 25)
        for name, rows in sizes.items()
    }
    assert BLOCK_BYTES < 3000 * 2048
    store = build(tmp_path, videos, shards=1)
    for ids in (list(videos), list(videos)[::-1]):
        rows = store.read_rows(ids, threads=2)
        assert np.array_equal(rows.values, np.concatenate([videos[name].values["x"] for name in ids]))


@pytest.mark.parametrize("torch_is_there", [True, False])
def test_types_are_cast_as_numpy_casts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, torch_is_there: bool) -> None:
    if torch_is_there:
        pytest.importorskip("torch")
    else:
        monkeypatch.delitem(__import__("sys").modules, "torch", raising=False)
    videos = sample("three levels")
    store = build(tmp_path, videos)
    up = store.read_rows(level="low", dtype="float32")
    assert up.values.dtype == np.float32
    assert np.array_equal(up.values, store.read_rows(level="low").values.astype(np.float32))
    down = store.read_rows(level="mid.1", dtype="float16")
    assert np.array_equal(down.values, store.read_rows(level="mid.1").values.astype(np.float16))
    double = store.read_rows(level="mid.1", out=np.empty(down.values.shape, np.float64))
    assert np.array_equal(double.values, store.read_rows(level="mid.1").values)


def test_values_that_the_type_cannot_hold_are_named(tmp_path: Path) -> None:
    frames = np.array([[0, 1], [1, 2]])
    values = np.ones((2, 3), np.float32)
    large = values.copy()
    large[1, 2] = 70000
    videos = {name: Features({"x": array}, frames, frames / 25) for name, array in {"a": values, "b": large, "c": values}.items()}
    store = build(tmp_path, videos, shards=1)
    with pytest.raises(FeatureError, match="1 videos have values beyond float16: 'b'"):
        store.read_rows(dtype="float16")


def test_an_array_can_be_given(tmp_path: Path) -> None:
    store = build(tmp_path, VIDEOS)
    ids = list(VIDEOS)
    total = sum(len(VIDEOS[video_id]) for video_id in ids)
    out = np.zeros((total, 8), np.float32)
    rows = store.read_rows(ids, out=out)
    assert rows.values is out
    assert np.array_equal(out, np.concatenate([VIDEOS[video_id].values["high"] for video_id in ids]))
    read_only = np.zeros((total, 8), np.float16)
    read_only.flags.writeable = False
    for wrong, words in (
        (np.zeros((total + 1, 8), np.float16), rf"out is float16 \[{total + 1}, 8\]; it must be .* \[{total}, 8\]"),
        (np.zeros((total, 8), np.int16), "out is int16"),
        (np.zeros((8, total), np.float16).T, "C-contiguous"),
        (read_only, "writable"),
        ([0.0], "out is a list"),
    ):
        with pytest.raises(FeatureError, match=words):
            store.read_rows(ids, out=wrong)  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match="give one of them"):
        store.read_rows(ids, out=out, dtype="float16")
    with pytest.raises(FeatureError, match="cannot be read as int8"):
        store.read_rows(ids, dtype="int8")


def test_missing_videos_are_counted_and_named(tmp_path: Path) -> None:
    store = build(tmp_path, VIDEOS)
    with pytest.raises(MissingFeaturesError, match=r"no features of 7 of the 8 videos asked for: '0', '1', '2', '3', '4', \.\.\."):
        store.read_rows(["a", *map(str, range(7))])
    with pytest.raises(MissingFeaturesError, match=r"no features of 'class one/v_2.avi'; did you mean 'class one/v_1.avi'\?"):
        store.read_rows(["class one/v_2.avi"])
    with pytest.raises(MissingFeaturesError, match="it holds no features yet"):
        FeatureStore.create(tmp_path / "empty", "x", SPEC).read_rows([])


@pytest.mark.parametrize("where", ["values", "frames", "times"])
@pytest.mark.parametrize("dtype", [None, "float32"])
def test_every_damaged_video_is_named(tmp_path: Path, where: str, dtype: str | None) -> None:
    store = build(tmp_path, VIDEOS)
    hurt = []
    for shard in store.shards[:2]:
        place = shard.structure.values["high"] if where == "values" else getattr(shard.structure, where)
        with shard.path.open("r+b") as file:
            file.seek(place.offset)
            byte = file.read(1)
            file.seek(place.offset)
            file.write(bytes([byte[0] ^ 1]))
        hurt.append(shard.ids[0])
    for threads in (1, 2):
        with pytest.raises(DamagedShardError) as caught:
            FeatureStore.open(store.path).read_rows(dtype=dtype, spans=threads == 1, threads=threads)
        assert all(repr(video_id) in str(caught.value) for video_id in hurt)
        assert "run `actioncache store repair`" in str(caught.value)
    good = [video_id for video_id in VIDEOS if video_id not in hurt]
    rows = store.read_rows(good)
    assert np.array_equal(rows.values, np.concatenate([VIDEOS[video_id].values["high"] for video_id in good]))
    store.read_rows(check=False)
    reader = RowReader(store, hurt)
    with pytest.raises(DamagedShardError):
        reader.one(0)
    reader.one(0, check=False)


def test_reading_goes_on_after_a_compaction(tmp_path: Path) -> None:
    store = build(tmp_path, VIDEOS)
    other = FeatureStore.open(store.path)
    reader = RowReader(store, list(VIDEOS))
    other.compact()
    assert len(other.shards) == 1
    _maps.clear()  # what another process would find
    assert np.array_equal(reader.one(3), list(VIDEOS.values())[3].values["high"])
    rows = FeatureStore.read_rows(store, list(VIDEOS))
    assert np.array_equal(rows.values, np.concatenate([video.values["high"] for video in VIDEOS.values()]))
    assert np.array_equal(RowReader(store, ["a"]).one(0), VIDEOS["a"].values["high"])
    again = RowReader(other, list(VIDEOS))
    shutil.rmtree(store.path / "shards")
    _maps.clear()
    with pytest.raises(MissingFeaturesError, match="no features of 60 of the 60 videos"):
        again.read()


def test_positions_outside_the_list_are_refused(tmp_path: Path) -> None:
    reader = RowReader(build(tmp_path, VIDEOS), ["a", "-"])
    for wrong in ([2], [-1, 0]):
        with pytest.raises(IndexError, match="of a list of 2 videos"):
            reader.read(wrong)
        with pytest.raises(IndexError, match="of a list of 2 videos"):
            reader.one(wrong[0])


def test_what_is_no_position_is_refused(tmp_path: Path) -> None:
    reader = build(tmp_path, VIDEOS).reader(list(VIDEOS))
    mask = np.zeros(len(VIDEOS), bool)
    mask[[5, 9]] = True
    with pytest.raises(FeatureError, match=r"chosen is bool \[60\]; give positions in the list, whole numbers \(a mask: np.flat"):
        reader.read(mask)
    assert np.array_equal(reader.read(np.flatnonzero(mask)).values, reader.read([5, 9]).values)
    for chosen in ([0.5], [[0, 1], [2, 3]]):
        with pytest.raises(FeatureError, match="give positions in the list"):
            reader.read(chosen)  # type: ignore[arg-type]
    for wrong in ({"order": "disk"}, {"threads": -1}):
        with pytest.raises(FeatureError, match=r"order is 'ids' or 'storage', threads 0 or more"):
            reader.read(**wrong)  # type: ignore[arg-type]


def test_one_id_is_no_list_of_ids(tmp_path: Path) -> None:
    store = build(tmp_path, dict(zip("abcd", VIDEOS.values(), strict=False)))
    with pytest.raises(MissingFeaturesError, match="ids is the text 'abc'; give a list of ids"):
        store.read_rows("abc")
    with pytest.raises(MissingFeaturesError, match="no features of 3"):
        store.read_rows([3])  # type: ignore[list-item]


def test_a_reader_reads_some_and_travels(tmp_path: Path) -> None:
    store = build(tmp_path, VIDEOS)
    ids = shuffled(list(VIDEOS))
    reader = pickle.loads(pickle.dumps(RowReader(store, ids)))
    some = reader.read([5, 3, 40])
    assert some.frames is None
    assert np.array_equal(some.values, np.concatenate([VIDEOS[ids[number]].values["high"] for number in (5, 3, 40)]))
    for number, video_id in enumerate(ids):
        assert reader.id(number) == video_id
        assert np.array_equal(reader.one(number), VIDEOS[video_id].values["high"])


def _sum(reader: RowReader, chosen: list[int]) -> float:
    return float(reader.read(chosen, dtype="float32").values.sum())


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_work_in_other_processes(tmp_path: Path, method: str) -> None:
    store = build(tmp_path, VIDEOS)
    reader = RowReader(store, list(VIDEOS))
    reader.read()
    parts = [list(range(start, 60, 3)) for start in range(3)]
    with multiprocessing.get_context(method).Pool(2) as pool:
        sums = pool.starmap(_sum, [(reader, part) for part in parts])
    assert sums == [_sum(reader, part) for part in parts]


def test_rows_as_tensors_share_their_memory(tmp_path: Path) -> None:
    pytest.importorskip("torch")
    rows = build(tmp_path, VIDEOS).read_rows()
    tensor = rows.tensor()
    tensor[0, 0] = 7
    assert rows.values[0, 0] == 7
