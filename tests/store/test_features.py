"""FeatureStore: create, open, write, get, missing, failures."""

import json
import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from store import FeatureError, Features, FeatureStore, MissingFeaturesError, SpecMismatchError, StoreError
from store.failures import append, new_failure
from store.layout import all_finite
from store.spec_file import differences
from store.testing import SPEC, same, sample


def make(root: Path, spec: dict[str, object] | None = None) -> FeatureStore:
    return FeatureStore.create(root, "features", spec or SPEC)


def one(rows: int = 2, width: int = 3, dtype: str = "float16") -> Features:
    frames = np.stack([np.arange(rows), np.arange(rows) + 1], 1)
    return Features({"high": np.ones((rows, width), dtype)}, frames, frames / 25)


@pytest.mark.parametrize("layout", ["one level", "three levels", "numbers"])
def test_what_is_written_is_read(tmp_path: Path, layout: str) -> None:
    videos, store = sample(layout, 20), make(tmp_path)
    with store.writer() as writer:
        for video_id, features in videos.items():
            writer.add(video_id, features)
    for seen in (store, FeatureStore.open(store.path), pickle.loads(pickle.dumps(store))):
        assert seen.ids() == list(videos)
        assert len(seen) == 20
        assert seen.levels == tuple(sorted(videos["a"].values))
        assert all(same(seen.get(video_id), features) for video_id, features in videos.items())
        assert seen.num_rows() == {video_id: len(features) for video_id, features in videos.items()}


def test_some_levels_can_be_asked_for(tmp_path: Path) -> None:
    videos, store = sample("three levels"), make(tmp_path)
    with store.writer() as writer:
        writer.add("a", videos["a"])
    assert list(store.get("a", ["mid.1"]).values) == ["mid.1"]
    with pytest.raises(MissingFeaturesError, match=r"no level 'top' in .*; it has High, low, mid\.1"):
        store.get("a", ["top"])


def test_what_get_returns_belongs_to_the_caller(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        writer.add("a", one())
    store.get("a").values["high"][:] = 0
    assert store.get("a").values["high"].min() == 1


def test_changing_an_array_after_add_changes_nothing(tmp_path: Path) -> None:
    store, features = make(tmp_path), one()
    with store.writer() as writer:
        writer.add("a", features)
        features.values["high"][:] = 7
        features.frames[:] = 7
    assert same(store.get("a"), one())


def test_other_memory_layouts_and_byte_orders_are_the_same_features(tmp_path: Path) -> None:
    store, features = make(tmp_path), sample()["a"]
    odd = {"high": np.asfortranarray(features.values["high"]).astype(">f2")}
    with store.writer() as writer:
        writer.add("a", Features(odd, np.asfortranarray(features.frames), features.times[::-1][::-1]))
    assert same(store.get("a"), features)


def test_an_unknown_video_is_named_with_its_nearest(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        writer.add("walk/v_01.avi", one())
    with pytest.raises(MissingFeaturesError, match=r"has no features of 'walk/v_1\.avi'; did you mean 'walk/v_01\.avi'\?"):
        store.get("walk/v_1.avi")
    assert store.missing(["x", "walk/v_01.avi", "y"]) == ["x", "y"]
    assert "walk/v_01.avi" in store
    assert "x" not in store


def test_the_spec_names_the_store(tmp_path: Path) -> None:
    first, second, again = make(tmp_path, {"a": 1}), make(tmp_path, {"a": 2}), make(tmp_path, {"a": 1})
    assert first.path == again.path != second.path
    assert first.path.name == f"features-{first.digest[:12]}"


def test_another_spec_is_refused_with_the_difference(tmp_path: Path) -> None:
    store = make(tmp_path, {"clips": {"length": 16}, "dtype": "float16"})
    with pytest.raises(SpecMismatchError, match=r"made from another spec: clips\.length is 16, wanted 8; net is unset, wanted 'x'"):
        FeatureStore.open(store.path, {"clips": {"length": 8}, "dtype": "float16", "net": "x"})


def test_differences_of_specs_are_those_of_their_digests() -> None:
    first = {"a": {"x": 1, "y": True}, "same": [1, {"k": 2}], "gone": {}, "text": "unset"}
    second = {"a": {"x": 1.0, "y": True}, "same": [1, {"k": 2}], "text": None}
    assert differences(first, second) == {"a.x": ("1", "1.0"), "gone": ("{}", "unset"), "text": ("'unset'", "None")}
    assert differences(first, first) == differences({}, {}) == {}
    assert differences({}, {"a": 1}) == {"a": ("unset", "1")}


def test_digests_say_which_features_are_equal(tmp_path: Path) -> None:
    first, second = make(tmp_path, {"a": 1}), make(tmp_path, {"a": 2})
    videos = sample("three levels", 3)
    for store in (first, second):
        with store.writer() as writer:
            for video_id, features in videos.items():
                changed = {**features.values, "low": features.values["low"] + 1} if store is second else features.values
                writer.add(video_id, Features(changed, features.frames, features.times))
    ours, theirs = first.digests("a"), second.digests("a")
    assert {level for level in ours if ours[level] == theirs[level]} == {"mid.1", "High"}
    with pytest.raises(MissingFeaturesError, match="no features of 'nobody'"):
        first.digests("nobody")


def test_a_changed_spec_file_is_refused(tmp_path: Path) -> None:
    store = make(tmp_path, {"stride": 16})
    text = store.spec_file.read_text()
    store.spec_file.write_text(text.replace("16", "8"))
    with pytest.raises(SpecMismatchError, match=r"spec\.json was changed: its spec has digest"):
        FeatureStore.open(store.path)
    with pytest.raises(SpecMismatchError, match="was changed"):
        make(tmp_path, {"stride": 16})


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{", "is damaged"),
        ("[" * 100_000, "is damaged"),
        ("[]", "it has no digest, spec and format"),
        ('{"digest": 1, "spec": 2, "format": 1}', "it has no digest, spec and format"),
        ('{"digest": "", "spec": {}, "format": 2}', "has store format 2; .* reads format 1"),
        ("\udcff", "is damaged"),
    ],
)
def test_a_damaged_spec_file_is_refused(tmp_path: Path, content: str, words: str) -> None:
    (tmp_path / "spec.json").write_bytes(content.encode("utf-8", "surrogateescape"))
    with pytest.raises(StoreError, match=words):
        FeatureStore.open(tmp_path)


def test_a_folder_that_is_no_store_names_those_inside(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(StoreError, match=rf"is not a feature store .*there are stores in it: .*{store.name}"):
        FeatureStore.open(tmp_path)
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(tmp_path / "nowhere")


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".hidden", "x" * 200])
def test_names_that_are_no_file_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(StoreError, match=r"store name .* cannot be a file name"):
        FeatureStore.create(tmp_path, name, SPEC)
    with pytest.raises(StoreError, match=r"part .* cannot be a file name"):
        make(tmp_path).writer(name)


def bad(**changes: object) -> Features:
    good = one()
    parts = {"values": good.values, "frames": good.frames, "times": good.times, **changes}
    return Features(**parts)  # type: ignore[arg-type]


ONES = np.ones((2, 3), np.float16)


@pytest.mark.parametrize(
    ("features", "words"),
    [
        (bad(values={}), "0 levels"),
        (bad(values={"a/b": ONES}), "level 'a/b' cannot be a file name"),
        (bad(values={"high": ONES.astype(np.float64)}), r"level high: float64 \[2, 3\]; features are arrays .* float16 or float32"),
        (bad(values={"high": ONES.tolist()}), "level high: a list"),
        (bad(values={"high": np.float16(1)}), "level high: a float16"),
        (bad(values={"high": ONES[:1]}), "level high: 1 rows, but frames and times have 2"),
        (bad(values={"high": ONES[:, :0]}), r"level high: shape \[2, 0\]"),
        (bad(values={"high": np.array([[1, 1], [1, np.nan]], np.float16)}), "v, level high, row 1: nan among 1 values that are not finite"),
        (bad(values={"high": np.array([[1, np.inf], [1, -np.inf]], np.float32)}), "v, level high, row 0: inf among 2 values"),
        (bad(frames=np.zeros((2, 2), np.int32)), r"frames is int32 \[2, 2\]; it must be int64 \[N, 2\]"),
        (bad(frames=np.array([[0, 1], [5, 4]])), r"frames of row 1 are \[5, 4\]"),
        (bad(frames=np.array([[-1, 1], [0, 1]])), r"frames of row 0 are \[-1, 1\]"),
        (bad(times=np.zeros((3, 2))), "2 rows of frames and 3 of times"),
        (bad(times=np.array([[0, 1], [np.nan, 1]])), "times of row 1 are NaN or Inf"),
        (bad(values={"high": ONES[:0]}, frames=np.zeros((0, 2), np.int64), times=np.zeros((0, 2))), "0 rows of frames"),
    ],
)
def test_features_that_must_not_be_stored_are_refused(tmp_path: Path, features: Features, words: str) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        with pytest.raises((FeatureError, StoreError), match=words):
            writer.add("v", features)
        writer.add("v", one())
    assert store.ids() == ["v"]


@pytest.mark.parametrize(
    ("video_id", "words"),
    [("", "has 0 bytes"), ("a\0b", "none of them NUL"), ("é" * 2049, "has 4098 bytes"), ("\udcff", "not valid Unicode")],
)
def test_ids_that_no_shard_can_hold_are_refused(tmp_path: Path, video_id: str, words: str) -> None:
    with make(tmp_path).writer() as writer, pytest.raises(FeatureError, match=words):
        writer.add(video_id, one())


def test_the_fast_check_for_finite_values_agrees_with_numpy_on_every_float16() -> None:
    every = np.arange(2**16, dtype=np.uint16).view(np.float16)
    assert [all_finite(value) for value in every.reshape(-1, 1)] == np.isfinite(every).tolist()


def test_an_id_is_added_once(tmp_path: Path) -> None:
    with make(tmp_path).writer() as writer:
        writer.add("v", one())
        with pytest.raises(FeatureError, match="v: added twice to part 'main'"):
            writer.add("v", one())


def test_levels_never_change_within_a_store(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        writer.add("v", one())
    with FeatureStore.open(store.path).writer() as writer:
        with pytest.raises(FeatureError, match=r"w: levels are high float16 \[N, 4\]; this store holds high float16 \[N, 3\]"):
            writer.add("w", one(width=4))
        with pytest.raises(FeatureError, match="levels are high float32"):
            writer.add("w", one(dtype="float32"))


def test_a_writer_publishes_when_enough_has_come_together(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer(max_bytes=300) as writer:  # one video: 12 bytes of values, 32 of frames, 32 of times
        for number in range(9):
            writer.add(f"v{number}", one())
        assert [len(store), writer.pending] == [8, 1]
        assert FeatureStore.open(store.path).ids() == [f"v{number}" for number in range(8)]
    assert len(store.shards) == 3
    with store.writer("slow", max_seconds=0) as writer:
        writer.add("w", one())
        assert "w" in store


def test_leaving_by_an_error_publishes_what_is_complete(tmp_path: Path) -> None:
    store = make(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.writer() as writer:
        writer.add("v", one())
        raise KeyboardInterrupt
    assert FeatureStore.open(store.path).ids() == ["v"]


def test_serials_go_on_and_parts_do_not_mix(tmp_path: Path) -> None:
    store = make(tmp_path)
    for part, video_id in (("a", "1"), ("a", "2"), ("a-000005", "3"), ("a", "4")):
        with store.writer(part) as writer:
            writer.add(video_id, one())
    assert [shard.name.rsplit("-", 1)[0] for shard in store.shards] == [
        "a-000000",
        "a-000001",
        "a-000002",
        "a-000005-000000",
    ]


def test_refresh_sees_what_others_published(tmp_path: Path) -> None:
    store = make(tmp_path)
    other = FeatureStore.open(store.path)
    for part in ("m", "z", "a"):
        with other.writer(part) as writer:
            writer.add(part, one())
        assert part not in store
        store.refresh()
        assert part in store
    assert store.ids() == ["a", "m", "z"] == FeatureStore.open(store.path).ids()


def test_failures_are_remembered_until_there_are_features(tmp_path: Path) -> None:
    store = make(tmp_path)
    video = tmp_path / "video.avi"
    video.write_bytes(b"garbage")
    with store.writer("p") as writer:
        writer.fail("v", "decode", "no frame", video)
        writer.fail("v", "decode", "still no frame", video)
        writer.fail("w", "features", "NaN")
        writer.add("x", one())
    failures = FeatureStore.open(store.path).failures()
    assert {key: (one.stage, one.reason) for key, one in failures.items()} == {
        "v": ("decode", "still no frame"),
        "w": ("features", "NaN"),
    }
    assert failures["v"].is_current()
    assert failures["w"].is_current(video)
    video.write_bytes(b"another garbage")
    assert not failures["v"].is_current()
    assert not failures["v"].is_current(tmp_path / "gone.avi")
    with store.writer("q") as writer:
        writer.add("v", one())
    assert list(store.failures()) == ["w"]


def test_an_old_failure_never_speaks_again_after_success(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        writer.fail("v", "decode", "time-out")
    with store.writer() as writer:
        writer.add("v", one())
    (shard,) = (store.path / "shards").iterdir()
    shard.unlink()  # as after a repair: the video has to be done again, and its old failure must not prevent that
    store.refresh()
    assert store.missing(["v"]) == ["v"]
    assert store.failures() == {}


def test_torn_lines_of_failures_are_skipped(tmp_path: Path) -> None:
    store = make(tmp_path)
    file = store.path / "failures" / "p.jsonl"
    file.write_bytes(b'{"id": "a", "stage": "decode", "reason": "x", "time": 1}\n[1]\n{"id": 3}\n\xff\n{"id": "b", "sta')
    append(file, new_failure("c", "decode", "y\nz \udcff", None))
    assert {key: one.reason for key, one in store.failures().items()} == {"a": "x", "c": "y\nz \udcff"}
    assert file.read_bytes().count(b"\n") == 6


def test_writers_of_one_part_write_failures_to_files_of_their_own(tmp_path: Path) -> None:
    """A network disk appends in one piece for the processes of one machine only."""
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer("p") as first, store.writer("p") as second:
        first.fail("v", "decode", "one")
        second.fail("w", "decode", "two")
        second.fail("x", "decode", "three")
    assert sorted(len(file.read_text().splitlines()) for file in (store.path / "failures").iterdir()) == [1, 2]
    assert {key: failure.reason for key, failure in store.failures().items()} == {"v": "one", "w": "two", "x": "three"}


@pytest.mark.parametrize("time", ["1" + "0" * 400, "NaN", "[]"])
def test_lines_of_failures_with_an_absurd_time_do_not_stop_the_store(tmp_path: Path, time: str) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer() as writer:
        writer.fail("v", "decode", "no frame")
    (written,) = (store.path / "failures").iterdir()
    with written.open("a") as file:
        file.write(f'{{"id": "v", "stage": "x", "reason": "forged", "time": {time}}}\n')
    assert store.failures()["v"].reason == "no frame"
    assert store.writer().pending == 0


def test_info_is_json(tmp_path: Path) -> None:
    store = make(tmp_path)
    with store.writer() as writer:
        writer.add("v", one())
        writer.fail("w", "decode", "no")
    facts = json.loads(json.dumps(store.info()))
    assert (facts["videos"], facts["rows"], facts["shards"], facts["failures"], facts["damaged"]) == (1, 2, 1, 1, {})
    assert facts["levels"] == {"high": {"dtype": "float16", "row_shape": [3]}}
    assert facts["bytes"] == store.shards[0].path.stat().st_size


def test_importing_the_vocabulary_loads_neither_hdf5_nor_torch() -> None:
    code = "import sys, store; store.SpecError, store.read_list; print(sorted({'h5py', 'torch', 'xxhash'} & set(sys.modules)))"
    root = Path(__file__).resolve().parents[2]
    assert subprocess.run([sys.executable, "-c", code], cwd=root, check=True, capture_output=True, text=True).stdout.strip() == "[]"


def test_unknown_names_of_the_package_are_attribute_errors() -> None:
    import store

    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        store.nothing  # noqa: B018


def test_a_digest_may_be_left_out_where_one_store_has_the_name(tmp_path: Path) -> None:
    one = FeatureStore.create(tmp_path, "rgb", {"clips": 1})
    other = FeatureStore.create(tmp_path, "rgb-tencrop", {"clips": 2})
    assert FeatureStore.open(tmp_path / "rgb").path == one.path
    assert FeatureStore.open(tmp_path / "rgb-tencrop").path == other.path
    third = FeatureStore.create(tmp_path, "rgb", {"clips": 3})
    with pytest.raises(StoreError, match=rf"{min(one.name, third.name)} or .*{max(one.name, third.name)}: they differ in their specs"):
        FeatureStore.open(tmp_path / "rgb")
    with pytest.raises(StoreError, match="is not a feature store"):
        FeatureStore.open(tmp_path / "flow")


def test_a_store_opened_anew_reads_the_file_that_has_the_name_now(tmp_path: Path) -> None:
    """A backup put back under the same name, as rsync does, while this process still has a map of the damaged file."""
    store = make(tmp_path)
    with store.writer() as writer:
        writer.add("a", sample()["a"])
    (shard,) = store.shards
    good = shard.path.read_bytes()
    bad = bytearray(good)
    bad[shard.structure.values["high"].offset] ^= 1
    for content in (bad, good, bad):
        (tmp_path / "copy").write_bytes(content)
        (tmp_path / "copy").replace(shard.path)
        fresh = FeatureStore.open(store.path)
        if content is good:
            assert same(fresh.get("a"), sample()["a"])
            assert same(store.get("a"), sample()["a"])
        else:
            with pytest.raises(StoreError, match="the bytes are not the ones that were written"):
                fresh.get("a")
