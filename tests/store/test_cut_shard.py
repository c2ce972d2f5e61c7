"""Shards that lost their end: repair keeps the videos before the cut, and believes nothing that the file claims beyond it."""

import os
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from store import FeatureStore, StoreError
from store.cut_shard import claimed_bytes, open_cut
from store.testing import SPEC, Videos, same, sample


def make(root: Path, layout: str = "one level", videos: int = 200) -> tuple[FeatureStore, Videos]:
    store, made = FeatureStore.create(root, "x", SPEC), sample(layout, videos)
    with store.writer() as writer:
        for video_id, features in made.items():
            writer.add(video_id, features)
    return store, made


def before(store: FeatureStore, videos: Videos, cut: int) -> list[str]:
    """Ids of the videos all of whose bytes lie before ``cut``."""
    (shard,) = store.shards
    held = shard.structure
    if any(place.offset + np.prod(place.shape) * np.dtype(place.dtype).itemsize > cut for place in (held.id, held.first, held.rows)):
        return []
    rows = np.cumsum([len(features) for features in videos.values()])
    found = []
    for number, video_id in enumerate(videos):
        ends = [place.offset + rows[number] * np.prod(place.shape[1:]) * np.dtype(place.dtype).itemsize for place in held.values.values()]
        ends += [place.offset + rows[number] * 16 for place in (held.frames, held.times)]
        ends += [place.offset + (number + 1) * 16 for place in held.digests.values()]
        found += [video_id] if max(ends) <= cut else []
    return found


@pytest.mark.parametrize("layout", ["one level", "three levels"])
def test_repair_keeps_exactly_the_videos_before_the_cut(tmp_path: Path, layout: str) -> None:
    store, videos = make(tmp_path, layout)
    (shard,) = store.shards
    data, kept = shard.path.read_bytes(), set()
    for cut in [9, 100, *np.random.default_rng(0).integers(len(data) * 4 // 5, len(data), 25).tolist()]:
        left = before(store, videos, cut)
        shutil.copytree(store.path, copy := tmp_path / "copy" / store.path.name)
        os.truncate(copy / "shards" / shard.name, cut)
        damaged = FeatureStore.open(copy)
        assert list(damaged.damaged) == [shard.name]
        done = damaged.repair()
        assert (done.set_aside, done.rescued, done.left) == ((shard.name,), len(left), ())
        assert sorted(damaged.ids()) == sorted(left)
        assert set(done.lost) <= videos.keys() - set(left)
        assert all(same(damaged.get(video_id), videos[video_id]) for video_id in left)
        assert FeatureStore.open(copy).verify(deep=True) == []
        assert [path.name for path in (copy / "shards").iterdir() if path.name.startswith(".")] == []
        assert (copy / "damaged" / shard.name).stat().st_size == cut
        kept.add(len(left))
        shutil.rmtree(tmp_path / "copy")
    assert len(kept) > 5


def test_a_whole_file_is_not_cut_and_neither_is_junk(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    assert claimed_bytes(path) == path.stat().st_size
    assert open_cut(path, store.digest) is None
    for content in (b"", b"junk" * 20, b"\x89HDF\r\n\x1a\n", b"\x89HDF\r\n\x1a\n" + bytes(100)):
        (tmp_path / "junk.h5").write_bytes(content)
        assert open_cut(tmp_path / "junk.h5", store.digest) is None


@pytest.mark.parametrize("claim", [2**63 - 1, 2**50, 6 << 30])
def test_a_size_that_is_a_lie_costs_no_memory(tmp_path: Path, claim: int) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    data = bytearray(path.read_bytes())
    data[28:36] = claim.to_bytes(8, "little")
    path.unlink()
    path.write_bytes(data)
    tracemalloc.start()
    try:
        done = FeatureStore.open(store.path).repair()
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert (done.set_aside, done.rescued, done.left) == ((path.name,), 0, ())
    assert peak < 2**20


def test_no_room_to_look_at_a_cut_shard_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    os.truncate(path, path.stat().st_size - 10)

    def refuse(source: Path, target: Path) -> None:
        target.write_bytes(b"some")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(shutil, "copyfile", refuse)
    with pytest.raises(StoreError, match=rf"cannot write to .*shards: the disk is full; .* \({path.name} is as it was\)"):
        FeatureStore.open(store.path).repair()
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    monkeypatch.undo()
    assert FeatureStore.open(store.path).repair().rescued > 100
