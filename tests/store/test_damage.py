"""Changed bytes, cut files and hostile files: never a wrong feature, never a raw error, never the whole store."""

import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from store import DamagedShardError, Features, FeatureStore, MissingFeaturesError, SpecMismatchError, StoreError
from store.layout import Level, index_digest
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


def replace(file: h5py.File, name: str, **settings: object) -> None:
    """Write a dataset anew with other storage or data."""
    data = settings.pop("data", file[name][()])
    del file[name]
    file.create_dataset(name, data=data, **settings)


def external_data(file: h5py.File) -> None:
    shape = file["levels/high"].shape
    del file["levels/high"]
    file.create_dataset("levels/high", shape, "<f2", external=[("/etc/passwd", 0, h5py.h5f.UNLIMITED)])


def virtual_data(file: h5py.File) -> None:
    shape = file["levels/high"].shape
    del file["levels/high"]
    layout = h5py.VirtualLayout(shape, "<f2")
    layout[:] = h5py.VirtualSource("/etc/hostname", "x", shape)
    file.create_virtual_dataset("levels/high", layout)


def late_allocation(file: h5py.File) -> None:
    del file["levels/high"]
    file.create_dataset("levels/high", (2**40, 2**20), "<f4")


def huge_rows(file: h5py.File) -> None:
    for name, shape in (("levels/high", (2**40, 8)), ("frames", (2**40, 2)), ("times", (2**40, 2))):
        kind = file[name].dtype
        del file[name]
        file.create_dataset(name, shape, kind)


def soft_link(file: h5py.File) -> None:
    file["elsewhere"] = file["frames"][()]
    del file["frames"]
    file["frames"] = h5py.SoftLink("/elsewhere")


def external_link(file: h5py.File) -> None:
    del file["levels"]
    file["levels"] = h5py.ExternalLink("/tmp/other.h5", "/levels")


def references(file: h5py.File) -> None:
    del file["frames"]
    file.create_dataset("frames", (2, 2), h5py.ref_dtype)


def set_attribute(name: str, value: object) -> Callable[[h5py.File], None]:
    return lambda file: file.attrs.__setitem__(name, value)


def set_data(name: str, data: object) -> Callable[[h5py.File], None]:
    return lambda file: replace(file, name, data=data)


HOSTILE: dict[str, tuple[Callable[[h5py.File], object], str]] = {
    "no format": (lambda file: file.attrs.__delitem__("format"), "it has no attribute format"),
    "other format": (set_attribute("format", np.bytes_("something")), "its attribute format is 'something'"),
    "format of variable length": (set_attribute("format", "actioncache-shard"), "format is not a scalar fixed-length string"),
    "format as array": (set_attribute("format", np.array([b"actioncache-shard"])), "format is not a scalar"),
    "format as number": (set_attribute("format", 1), "format is not a scalar"),
    "huge attribute": (set_attribute("index_digest", np.bytes_("f" * 60_000)), "index_digest is not a scalar"),
    "version as text": (set_attribute("version", np.bytes_("1")), "version is not a scalar integer"),
    "no levels": (lambda file: file.__delitem__("levels"), "it has no levels"),
    "empty levels": (lambda file: (file.__delitem__("levels/high"), file.__delitem__("digests/high")), "it has 0 levels"),
    "many levels": (lambda file: [file.create_group(f"levels/{n}") for n in range(70)], "it has 71 levels"),
    "levels is a dataset": (lambda file: (file.__delitem__("levels"), file.__setitem__("levels", 1)), "levels is not a group"),
    "level is a group": (lambda file: (file.__delitem__("levels/high"), file.create_group("levels/high")), "high is not a dataset"),
    "level without digests": (lambda file: file.create_dataset("levels/more", data=file["levels/high"][()]), "digests of"),
    "odd level name": (lambda file: file.move("levels/high", "levels/hi gh"), "'hi gh' cannot be a file name"),
    "no ids": (lambda file: file.__delitem__("index/id"), "it has no id"),
    "float64": (lambda file: replace(file, "levels/high", dtype="<f8"), "high has another type than <f2 or <f4"),
    "big-endian": (lambda file: replace(file, "levels/high", dtype=">f2"), "high has another type"),
    "integers": (lambda file: replace(file, "levels/high", dtype="<i2"), "high has another type"),
    "32-bit index": (lambda file: replace(file, "index/first", dtype="<i4"), "first has another type than <i8"),
    "strings of variable length": (set_data("index/id", ["a", "b"]), "not of fixed-length"),
    "references": (references, "frames has another type"),
    "compound": (set_data("times", np.zeros(3, [("x", "<f8"), ("y", "<f8")])), "times has another type"),
    "chunked": (lambda file: replace(file, "levels/high", chunks=(1, 8)), "high is not stored contiguously"),
    "compressed": (lambda file: replace(file, "levels/high", compression="gzip"), "high is not stored contiguously"),
    "virtual": (virtual_data, "high is not stored contiguously"),
    "external file": (external_data, "high is not stored contiguously, uncompressed and inside the file"),
    "soft link": (soft_link, "frames is a link to elsewhere"),
    "external link": (external_link, "levels is a link to elsewhere"),
    "claims 4 EB": (late_allocation, "high claims"),
    "claims rows everywhere": (huge_rows, "frames claims"),
    "scalar": (set_data("frames", np.int64(1)), "frames has shape|frames is not an array"),
    "empty": (set_data("frames", h5py.Empty("<i8")), "frames is not an array"),
    "three spans": (set_data("times", np.zeros((30, 3))), "times has shape"),
    "no videos": (set_data("index/first", np.zeros(0, "<i8")), r"first has shape \[0\]"),
    "fewer counts": (set_data("index/rows", np.ones(2, "<i8")), r"rows has shape \[2\] where \[5\]"),
    "digests too short": (set_data("digests/high", np.zeros((5, 8), np.uint8)), r"digests/high has shape \[5, 8\]"),
    "ten dimensions": (lambda file: replace(file, "levels/high", data=np.zeros((3,) + (1,) * 9, "<f2")), "high has 10 dimensions"),
    "index of another shard": (lambda file: file["index/first"].__setitem__(0, 1), "the index is not the one that was written"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_shards_are_refused_with_the_reason(tmp_path: Path, case: str) -> None:
    store, _ = make(tmp_path)
    change, words = HOSTILE[case]
    path = store.shards[0].path
    with h5py.File(path, "r+", locking=False) as file:
        change(file)
    with pytest.raises(DamagedShardError, match=words) as caught:
        Shard.open(path, store.digest)
    assert str(path) in str(caught.value)
    fresh = FeatureStore.open(store.path)
    assert (len(fresh), list(fresh.damaged)) == (0, [path.name])
    assert [problem.shard for problem in fresh.verify()] == [path.name]


def rewrite_index(path: Path, **arrays: np.ndarray) -> None:
    """Lie in the index with a right digest of it, as a hostile writer would."""
    with h5py.File(path, "r+", locking=False) as file:
        for name, data in arrays.items():
            replace(file, f"index/{name}", data=data)
        ids = file["index/id"][()]
        index = {"id": np.frombuffer(ids.tobytes(), np.uint8).reshape(len(ids), -1)}
        index |= {name: file[f"index/{name}"][()] for name in ("first", "rows")} | {"digests/high": file["digests/high"][()]}
        level = Level("high", "float16", file["levels/high"].shape[1:])
        digest = index_digest(file.attrs["spec_digest"].decode(), [level], len(file["frames"]), index)
        file.attrs["index_digest"] = np.bytes_(digest)


def ids(*names: bytes) -> np.ndarray:
    width = max(map(len, names))
    return np.array(names, f"S{width}").astype(h5py.string_dtype("utf-8", width))


@pytest.mark.parametrize(
    ("arrays", "words"),
    [
        ({"first": np.array([0, 1, 2, 3, -1])}, "puts video 4 at row -1"),
        ({"rows": np.array([1, 1, 1, 1, 0])}, "with 0 rows"),
        ({"rows": np.array([1, 1, 1, 1, -5])}, "with -5 rows"),
        ({"rows": np.array([1, 1, 1, 2**62, 1])}, "video 3 .* with 4611686018427387904 rows"),
        ({"first": np.array([0, 0, 2**63 - 1, 0, 0])}, "puts video 2 at row 9223372036854775807"),
        ({"id": ids(b"a", b"b", b"c", b"b", b"d")}, "the index names 'b' twice"),
        ({"id": ids(b"a", b"b", b"c", b"d", b"")}, "an id is empty"),
        ({"id": ids(b"a", b"b", b"c", b"d", b"e\0f")}, "NUL inside"),
        ({"id": ids(b"a", b"b", b"c", b"d", b"\xff")}, "an id is not UTF-8"),
    ],
)
def test_an_index_that_lies_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], words: str) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    rewrite_index(path, **arrays)
    with pytest.raises(DamagedShardError, match=words):
        Shard.open(path, store.digest)


def test_an_index_that_gives_a_video_the_rows_of_another_is_caught_by_the_digest(tmp_path: Path) -> None:
    store, videos = make(tmp_path)
    path = store.shards[0].path
    names = [name.encode() for name in videos]
    rewrite_index(path, id=ids(names[1], names[0], *names[2:]))
    fresh = FeatureStore.open(store.path)
    for name in names[:2]:
        with pytest.raises(DamagedShardError, match="not the ones that were written"):
            fresh.get(name.decode())
    assert len(fresh.verify(deep=True)) == 2


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "it is empty"),
        (b"not HDF5 at all", "it is not an HDF5 file"),
        (b"\x89HDF\r\n\x1a\n", "HDF5 says"),
        (b"\x89HDF\r\n\x1a\n" + bytes(4096), "HDF5 says"),
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
    with h5py.File(store.path / "shards" / "foreign.h5", "w") as file:
        file["data"] = 1
    fresh = FeatureStore.open(store.path)
    assert isinstance(fresh.damaged[shard.name], SpecMismatchError)
    assert f"written for spec {other.digest[:12]}, this store's is {store.digest[:12]}" in str(fresh.damaged[shard.name])
    assert "it has no attribute format" in str(fresh.damaged["foreign.h5"])
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
