"""A shard that is cut short or changed while it is mapped: an error in words, where touching missing pages would end the process."""

import multiprocessing
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from store import DamagedShardError, FeatureStore, StoreError
from store.testing import SPEC, same, sample

FORK = multiprocessing.get_context("fork")
VIDEOS = sample("three levels", videos=200)  # several pages
IDS = list(VIDEOS)


@pytest.fixture
def features(tmp_path: Path) -> FeatureStore:
    """A store of one shard, read once, so that its file is mapped in this process."""
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer() as writer:
        for video_id, one in VIDEOS.items():
            writer.add(video_id, one)
    assert same(store.get(IDS[-1]), VIDEOS[IDS[-1]])
    return store


def in_child(work: Callable[[], None]) -> int | None:
    """Run ``work`` in a fork, which inherits the maps; a SIGBUS there is exit code -7 here."""
    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


@pytest.mark.parametrize("left", [0, 1, 4096, 8192, -1])
def test_every_read_of_a_cut_shard_is_an_error(features: FeatureStore, left: int) -> None:
    shard = features.shards[0]
    size = shard.structure.size

    def work() -> None:
        os.truncate(shard.path, left if left >= 0 else size + left)
        for read in (features.get, features.digests):
            for video_id in IDS:
                with pytest.raises(DamagedShardError, match=rf"has {left % size} bytes; it had {size} when it was opened"):
                    read(video_id)
        with pytest.raises(DamagedShardError):
            features.num_rows()

    assert in_child(work) == 0


def test_a_file_that_is_whole_again_is_read_again(features: FeatureStore) -> None:
    path = features.shards[0].path
    data = path.read_bytes()

    def work() -> None:
        for restore in (lambda: path.write_bytes(data), lambda: (path.unlink(), path.write_bytes(data))):  # in place, and as a new file
            os.truncate(path, 100)
            with pytest.raises(StoreError):
                features.get("a")
            restore()
            assert all(same(features.get(video_id), one) for video_id, one in VIDEOS.items())

    assert in_child(work) == 0


def test_a_cut_shard_that_was_repaired_away_is_looked_for_elsewhere(features: FeatureStore) -> None:
    other = FeatureStore.open(features.path)
    with other.writer("second") as writer:
        writer.add("a", VIDEOS["a"])
    cut = features.shards[0]

    def work() -> None:
        os.truncate(cut.path, 4096)
        assert FeatureStore.open(features.path).repair().set_aside == (cut.name,)
        assert same(features.get("a"), VIDEOS["a"])

    assert in_child(work) == 0


@pytest.mark.parametrize("check", [True, False])
def test_a_shard_cut_before_a_bulk_read_is_an_error(features: FeatureStore, check: bool) -> None:
    shard = features.shards[0]
    reader = features.reader(IDS, "low")

    def work() -> None:
        os.truncate(shard.path, 4096)
        with pytest.raises(DamagedShardError, match=r"level low: the bytes of video 'a' of .*\.h5, .* and 195 more are not the ones"):
            reader.read(check=check)
        with pytest.raises(DamagedShardError, match="has 4096 bytes"):
            reader.one(0, check)
        with pytest.raises(DamagedShardError, match="has 4096 bytes"):
            features.read_rows(IDS, "low")

    assert in_child(work) == 0


@pytest.mark.parametrize(("member", "value"), [("first", 2**40), ("first", -3), ("rows", 2**62), ("rows", 0)])
def test_an_index_that_changes_under_a_map_is_an_error(features: FeatureStore, member: str, value: int) -> None:
    (shard,) = features.shards
    with shard.path.open("r+b") as file:
        file.seek(getattr(shard.structure, member).offset)
        file.write(value.to_bytes(8, "little", signed=True))
    with pytest.raises(DamagedShardError):
        features.get(IDS[0])
    with pytest.raises(DamagedShardError, match=r"main-000000-\w+\.h5: the index has changed since the shard was opened; run"):
        features.read_rows(IDS, "low")
