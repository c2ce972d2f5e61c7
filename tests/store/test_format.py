"""docs/format.md, the independent programs in examples/, and the fixture of today's format."""

import hashlib
import importlib.util
import json
import re
import struct
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np
import pytest
import xxhash

from store.features import Features, FeatureStore
from store.testing import SPEC, Videos, check_reader, check_writer, same, sample

REPOSITORY = Path(__file__).resolve().parents[2]


def load(path: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(Path(path).stem, REPOSITORY / path)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plain(videos: Videos) -> dict[str, dict[str, np.ndarray]]:
    return {key: {"frames": one.frames, "times": one.times, **one.values} for key, one in videos.items()}


def rich(videos: dict[str, dict[str, np.ndarray]]) -> Videos:
    spans = ("frames", "times")
    return {key: Features({n: a for n, a in one.items() if n not in spans}, one["frames"], one["times"]) for key, one in videos.items()}


def write_ours(root: Path, name: str, spec: dict[str, Any], videos: Videos) -> Path:
    store = FeatureStore.create(root, name, spec)
    with store.writer() as writer:
        for video_id in store.missing(videos):
            writer.add(video_id, videos[video_id])
    return store.path


def read_ours(folder: Path) -> Videos:
    store = FeatureStore.open(folder)
    return {video_id: store.get(video_id) for video_id in store.ids()}


def test_our_writer_conforms(tmp_path: Path) -> None:
    check_writer(write_ours, tmp_path)


def test_our_reader_conforms(tmp_path: Path) -> None:
    check_reader(read_ours, tmp_path)


def test_the_independent_writer_conforms(tmp_path: Path) -> None:
    example = load("examples/write_shards.py")
    check_writer(lambda root, name, spec, videos: example.write_store(root, name, spec, plain(videos)), tmp_path)


def test_the_independent_reader_conforms(tmp_path: Path) -> None:
    example = load("examples/read_shards.py")
    check_reader(lambda folder: rich(example.read_store(folder)), tmp_path)


@pytest.mark.parametrize("layout", ["one level", "three levels", "numbers"])
def test_the_independent_programs_understand_each_other(tmp_path: Path, layout: str) -> None:
    videos = sample(layout)
    folder = load("examples/write_shards.py").write_store(tmp_path, "both", SPEC, plain(videos))
    found = rich(load("examples/read_shards.py").read_store(folder))
    assert found.keys() == videos.keys()
    assert all(same(found[key], videos[key]) for key in videos)


def test_the_conformance_checks_catch_a_writer_that_swaps_two_videos(tmp_path: Path) -> None:
    def swapped(root: Path, name: str, spec: dict[str, Any], videos: Videos) -> Path:
        first, second, *_ = videos
        return write_ours(root, name, spec, {**videos, first: videos[second], second: videos[first]})

    with pytest.raises(AssertionError, match="other features than were written"):
        check_writer(swapped, tmp_path)


def test_the_conformance_checks_catch_a_reader_without_digests(tmp_path: Path) -> None:
    def trusting(folder: Path) -> Videos:
        store = FeatureStore.open(folder)
        return {video_id: store.get(video_id, check=False) for video_id in store.ids()}

    with pytest.raises(AssertionError, match="returned without an error"):
        check_reader(trusting, tmp_path)


@pytest.mark.parametrize("name", ["examples/read_shards.py", "examples/write_shards.py"])
def test_the_examples_import_nothing_of_ours(name: str) -> None:
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    modules = set(re.findall(r"^(?:import|from) (\w+)", text, re.MULTILINE))
    assert modules <= {"collections", "hashlib", "json", "os", "pathlib", "secrets", "struct", "sys", "h5py", "numpy", "xxhash"}


def test_the_examples_run_as_programs(tmp_path: Path) -> None:
    arrays = {f"v/1|{name}": array for name, array in plain(sample(videos=1))["a"].items()}
    np.savez(tmp_path / "arrays.npz", **arrays)  # type: ignore[arg-type]
    write = [sys.executable, "examples/write_shards.py", str(tmp_path / "arrays.npz"), str(tmp_path), "mine"]
    folder = subprocess.run(write, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.strip()
    read = [sys.executable, "examples/read_shards.py", folder]
    assert subprocess.run(read, cwd=REPOSITORY, check=True, capture_output=True, text=True).stdout.startswith("v/1 {'high': (")
    assert FeatureStore.open(Path(folder)).ids() == ["v/1"]


def test_the_golden_store_is_still_read() -> None:
    made = load("tests/golden/make_store.py")
    (folder,) = (REPOSITORY / "tests" / "golden" / "store_v1").iterdir()
    store = FeatureStore.open(folder, made.SPEC)
    assert store.ids() == list(made.IDS)
    assert store.verify(deep=True) == []
    for number, video_id in enumerate(made.IDS):
        assert same(store.get(video_id), Features(*made.golden_features(number)))
    assert store.failures()["broken.avi"].reason == "no frame could be decoded"


def test_a_shard_is_what_the_document_says(tmp_path: Path) -> None:
    """Section 2 to 4, field by field, with bytes put together by hand."""
    video = Features({"low": np.array([[1, 2], [3, 4]], np.float16)}, np.array([[0, 8], [8, 16]]), np.array([[0, 0.5], [0.5, 1.0]]))
    folder = write_ours(tmp_path, "doc", {"b": 1, "a": "ü"}, {"é/1": video})
    content = json.loads((folder / "spec.json").read_text(encoding="utf-8"))
    digest = hashlib.sha256('{"a":"ü","b":1}'.encode()).hexdigest()
    assert content == {"name": "doc", "spec": {"a": "ü", "b": 1}, "digest": digest, "format": 1}
    assert folder.name == f"doc-{digest[:12]}"
    (shard,) = (folder / "shards").iterdir()
    assert re.fullmatch(r"main-000000-[0-9a-f]{8}\.h5", shard.name)
    level = struct.pack("<I", 3) + b"low" + b"<f2" + struct.pack("<IQ", 1, 2)
    encoded = "é/1".encode()
    header = struct.pack("<I", 4) + encoded + level + struct.pack("<Q", 2)
    expected = xxhash.xxh3_128(header + video.frames.tobytes() + video.times.tobytes() + video.values["low"].tobytes()).digest()
    with h5py.File(shard, "r") as file:
        assert sorted(file) == ["digests", "frames", "index", "levels", "times"]
        assert file["digests/low"][0].tobytes() == expected
        assert file["index/id"][0] == encoded
        assert file["index/id"].dtype.itemsize == 4
        index = digest.encode() + struct.pack("<QQII", 1, 2, 4, 1) + level + encoded + struct.pack("<qq", 0, 2) + expected
        assert dict(file.attrs) == {
            "format": b"actioncache-shard",
            "version": 1,
            "spec_digest": digest.encode(),
            "index_digest": xxhash.xxh3_128(index).hexdigest().encode(),
        }
        for name in ("levels/low", "frames", "times", "index/id", "index/first", "index/rows", "digests/low"):
            assert file[name].chunks is None
            assert file[name].id.get_offset() is not None


def test_the_document_names_everything_a_shard_holds() -> None:
    text = (REPOSITORY / "docs" / "format.md").read_text(encoding="utf-8")
    for name in ("/levels/<level>", "/frames", "/times", "/index/id", "/index/first", "/index/rows", "/digests/<level>", "index_digest"):
        assert f"`{name}`" in text
