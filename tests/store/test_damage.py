"""Changed bytes, cut files and hostile files: never a wrong feature, never a raw error, never the whole store."""

import os
from collections import Counter
from pathlib import Path

import h5py
import numpy as np
import pytest

from store import DamagedShardError, Features, FeatureStore, MissingFeaturesError, SpecMismatchError, StoreError
from store.shard import Shard
from store.testing import SPEC, Videos, same, sample


def make(root: Path, layout: str = "one level", videos: int = 5) -> tuple[FeatureStore, Videos]:
    store, videos_ = FeatureStore.create(root, "x", SPEC), sample(layout, videos)
    with store.writer() as writer:
        for video_id, features in videos_.items():
            writer.add(video_id, features)
    return store, videos_


def mutated(data: bytes, rng: np.random.Generator) -> bytes:
    """One flipped bit (mostly), several, a cut, a run of random bytes, a run of zeros, or a byte too many."""
    kind, changed = rng.integers(12), bytearray(data)
    start = int(rng.integers(len(data)))
    if kind < 7:
        changed[start] ^= 1 << int(rng.integers(8))
    elif kind == 7:
        for position in rng.integers(len(data), size=8):
            changed[position] ^= 1 << int(rng.integers(8))
    elif kind == 8:
        return data[:start]
    elif kind == 9:
        changed[start : start + 64] = rng.bytes(len(changed[start : start + 64]))
    elif kind == 10:
        changed[start : start + 512] = bytes(len(changed[start : start + 512]))
    else:
        changed[start:start] = rng.bytes(1)
    return bytes(changed)


def outcome(store: FeatureStore, videos: Videos) -> str:
    """What a reader of a damaged store gets; anything but right features or our own errors fails the test."""
    fresh = FeatureStore.open(store.path)
    found = {_outcome_of_one(fresh, video_id, features) for video_id, features in videos.items()}
    assert found <= {"damaged shard", "damaged video", "unharmed"}
    worst = next(kind for kind in ("damaged shard", "damaged video", "unharmed") if kind in found)
    assert (worst == "damaged shard") == bool(fresh.damaged)
    return worst


def _outcome_of_one(store: FeatureStore, video_id: str, features: Features) -> str:
    try:
        found = store.get(video_id)
    except DamagedShardError as error:
        return "damaged video" if repr(video_id) in str(error) else f"no video in: {error}"
    except MissingFeaturesError as error:
        return "damaged shard" if "1 of its shards cannot be used" in str(error) else f"no hint in: {error}"
    return "unharmed" if same(found, features) else f"wrong features of {video_id}"


def attack(tmp_path: Path, times: int, seed: int, layout: str) -> Counter[str]:
    store, videos = make(tmp_path, layout)
    shard, rng, counts = store.shards[0].path, np.random.default_rng(seed), Counter[str]()
    data = shard.read_bytes()
    for number in range(times):
        shard.unlink()  # a new file each time: immutable files are never changed under a map
        shard.write_bytes(mutated(data, rng))
        found = outcome(store, videos)
        counts[found] += 1
        if number % 10 == 0:
            problems = FeatureStore.open(store.path).verify(deep=True)
            assert bool(problems) == (found != "unharmed"), problems
    return counts


def test_random_damage_never_gives_a_wrong_feature(tmp_path: Path) -> None:
    counts = attack(tmp_path, 250, 1, "one level") + attack(tmp_path / "2", 150, 2, "three levels")
    assert counts["damaged shard"] > 50
    assert counts["damaged video"] > 50


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(5))
def test_random_damage_never_gives_a_wrong_feature_at_length(tmp_path: Path, seed: int) -> None:
    assert sum(attack(tmp_path, 2000, 100 + seed, ["one level", "three levels", "numbers"][seed % 3]).values()) == 2000


def test_every_byte_of_a_shard_matters_or_harms_nothing(tmp_path: Path) -> None:
    store, videos = make(tmp_path, videos=2)
    shard = store.shards[0].path
    data = shard.read_bytes()
    for position in range(0, len(data), 11):
        changed = bytearray(data)
        changed[position] ^= 0x10
        shard.unlink()
        shard.write_bytes(changed)
        outcome(store, videos)


def test_damage_after_opening_is_seen_by_the_next_read(tmp_path: Path) -> None:
    store, videos = make(tmp_path)
    store.get("a")
    shard = store.shards[0]
    with shard.path.open("r+b") as file:
        file.seek(shard.structure.values["high"].offset)
        byte = file.read(1)[0]
        file.seek(-1, 1)
        file.write(bytes([byte ^ 1]))
    with pytest.raises(DamagedShardError, match=r"main-000000-\w+\.h5: video 'a', level high: the bytes are not the ones that"):
        store.get("a")
    assert not same(store.get("a", check=False), videos["a"])
    assert same(store.get("../up"), videos["../up"])


def test_a_file_that_shrinks_after_opening_is_refused_before_it_is_mapped(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1])
    with pytest.raises(DamagedShardError, match=rf"has {len(data) - 1} bytes; it had {len(data)} when it was opened"):
        store.get("a")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"not HDF5 at all", "it is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "it ends inside HDF5's superblock"),
        (b"\x89HDF\r\n\x1a\n" + bytes(4096), "it is in HDF5's layout from before version 1.8"),
        (b"\x89HDF\r\n\x1a\n\x09" + bytes(4096), "its superblock is not of version 2 or 3"),
        (b"\x89HDF\r\n\x1a\n\x02\x08\x08" + bytes(4096), "it has a group in HDF5's layout from before version 1.8"),
    ],
)
def test_files_that_are_no_shards_are_refused(tmp_path: Path, content: bytes, words: str) -> None:
    store, videos = make(tmp_path)
    (store.path / "shards" / "a.h5").write_bytes(content)
    fresh = FeatureStore.open(store.path)
    assert isinstance(fresh.damaged["a.h5"], DamagedShardError)
    assert words in str(fresh.damaged["a.h5"])
    assert all(same(fresh.get(video_id), features) for video_id, features in videos.items())


def test_folders_pipes_and_dead_links_are_no_shards(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    shards = store.path / "shards"
    (shards / "folder.h5").mkdir()
    os.mkfifo(shards / "pipe.h5")
    (shards / "link.h5").symlink_to(tmp_path / "nowhere.h5")
    fresh = FeatureStore.open(store.path)
    assert {name: str(error).rsplit(": ")[-1] for name, error in fresh.damaged.items() if name != "link.h5"} == {
        "folder.h5": "it is not a regular file",
        "pipe.h5": "it is not a regular file",
    }
    assert "is a link to nothing" in str(fresh.damaged["link.h5"])
    assert len(fresh) == 5


def test_a_foreign_hdf5_file_and_another_stores_shard_are_told_apart(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    other = FeatureStore.create(tmp_path, "y", {"another": "spec"})
    with other.writer() as writer:
        writer.add("stranger", sample()["a"])
    shard = other.shards[0].path
    shard.rename(store.path / "shards" / shard.name)
    for name, layout in (("foreign.h5", "v108"), ("old.h5", "earliest")):
        with h5py.File(store.path / "shards" / name, "w", libver=(layout, "latest")) as file:
            file["data"] = 1
    fresh = FeatureStore.open(store.path)
    assert isinstance(fresh.damaged[shard.name], SpecMismatchError)
    assert f"written for spec {other.digest[:12]}, this store's is {store.digest[:12]}" in str(fresh.damaged[shard.name])
    assert "it has no attribute format" in str(fresh.damaged["foreign.h5"])
    assert "layout from before version 1.8, whose metadata have no checksums (libver v108" in str(fresh.damaged["old.h5"])
    assert "stranger" not in fresh


def test_a_newer_shard_is_neither_damaged_nor_read(tmp_path: Path) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    with h5py.File(path, "r+", locking=False) as file:
        file.attrs["version"] = 2
    with pytest.raises(StoreError, match="has shard format 2; this version of actioncache reads format 1") as caught:
        Shard.open(path, store.digest)
    assert not isinstance(caught.value, DamagedShardError)
    done = FeatureStore.open(store.path).repair()
    assert (done.set_aside, len(done.left)) == ((), 1)
    assert path.exists()


def test_a_shard_with_other_levels_is_not_used(tmp_path: Path) -> None:
    store, videos = make(tmp_path)
    stranger = FeatureStore(store.path, store.spec)
    with stranger.writer("zzz") as writer:
        writer._levels = {}  # as if it had started before the first shard was published
        writer.add("other", sample("numbers")["a"])
    fresh = FeatureStore.open(store.path)
    assert sorted(fresh.ids()) == sorted(videos)
    (error,) = fresh.damaged.values()
    assert "has levels score float32 [N]; the store's first shard" in str(error)
    with pytest.raises(MissingFeaturesError, match="'other'; 1 of its shards cannot be used"):
        fresh.get("other")
