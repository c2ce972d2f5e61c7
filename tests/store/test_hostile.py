"""Hostile shards: refused with the reason, before anything that they claim is allocated, mapped or walked."""

import multiprocessing
import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from store import DamagedShardError, FeatureStore
from store.layout import Level, index_digest
from store.shard import Shard
from store.testing import SPEC, Videos, sample

FORK = multiprocessing.get_context("fork")


def make(root: Path) -> tuple[FeatureStore, Videos]:
    store, videos = FeatureStore.create(root, "x", SPEC), sample(videos=5)
    with store.writer() as writer:
        for video_id, features in videos.items():
            writer.add(video_id, features)
    return store, videos


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


def huge_attribute(file: h5py.File) -> None:
    """So large that HDF5 keeps it outside the group's header."""
    file.attrs["index_digest"] = np.bytes_("f" * 10_000_000)


def huge_chunks(file: h5py.File) -> None:
    del file["levels/high"]
    file.create_dataset("levels/high", (2**40, 2**20), "<f2", chunks=(2**20, 2**9), compression="gzip")


def huge_virtual_data(file: h5py.File) -> None:
    del file["levels/high"]
    layout = h5py.VirtualLayout((2**40, 2**20), "<f2")
    for number in range(50):
        layout[number] = h5py.VirtualSource(f"/etc/{number}", "x", (2**20,))
    file.create_virtual_dataset("levels/high", layout)


def huge_ids(file: h5py.File) -> None:
    del file["index/id"]
    file.create_dataset("index/id", (5,), h5py.string_dtype("ascii", 2**31 - 1))


def huge_type(file: h5py.File) -> None:
    del file["frames"]
    kind = h5py.h5t.array_create(h5py.h5t.STD_I64LE, (2**20,))
    h5py.h5d.create(file.id, b"frames", kind, h5py.h5s.create_simple((2**20, 2)))


def compact_data(file: h5py.File) -> None:
    """Inside the dataset's header."""
    data = file["frames"][()]
    del file["frames"]
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    space = h5py.h5s.create_simple(data.shape)
    h5py.h5d.create(file.id, b"frames", h5py.h5t.STD_I64LE, space, properties).write(h5py.h5s.ALL, h5py.h5s.ALL, data)


def many_terabytes(file: h5py.File) -> None:
    for number in range(60):
        file.create_dataset(f"levels/more{number}", (2**40, 8), "<f4")
        file.create_dataset(f"digests/more{number}", (2**40, 16), "u1")


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
    "attribute of 10 MB": (huge_attribute, "it has a group with an odd heap"),
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
    "chunks of 1 GB": (huge_chunks, "high is not stored contiguously"),
    "inside a header": (compact_data, "frames is not stored contiguously"),
    "array type of 8 MB": (huge_type, "frames has another type"),
    "compressed": (lambda file: replace(file, "levels/high", compression="gzip"), "high is not stored contiguously"),
    "virtual": (virtual_data, "high is not stored contiguously"),
    "virtual 2 EB": (huge_virtual_data, "high is not stored contiguously"),
    "external file": (external_data, "high is not stored contiguously, uncompressed and inside the file"),
    "soft link": (soft_link, "frames is a link to elsewhere"),
    "external link": (external_link, "levels is a link to elsewhere"),
    "claims 4 EB": (late_allocation, "high claims"),
    "claims rows everywhere": (huge_rows, "frames claims"),
    "61 levels of terabytes": (many_terabytes, "more0 claims|high claims"),
    "ids of 2 GB": (huge_ids, "ids are 2147483647 bytes wide"),
    "a level's name of 60 kB": (lambda file: file.move("levels/high", "levels/" + "x" * 60_000), "cannot be a file name"),
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
    with h5py.File(path, "r+", locking=False, libver=("v108", "latest")) as file:
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


LIES = [
    ({"first": np.array([0, 1, 2, 3, -1])}, "puts video 4 at row -1"),
    ({"rows": np.array([1, 1, 1, 1, 0])}, "with 0 rows"),
    ({"rows": np.array([1, 1, 1, 1, -5])}, "with -5 rows"),
    ({"rows": np.array([1, 1, 1, 2**62, 1])}, "video 3 .* with 4611686018427387904 rows"),
    ({"first": np.array([0, 0, 2**63 - 1, 0, 0])}, "puts video 2 at row 9223372036854775807"),
    ({"id": ids(b"a", b"b", b"c", b"b", b"d")}, "the index names 'b' twice"),
    ({"id": ids(b"a", b"b", b"c", b"d", b"")}, "an id is empty"),
    ({"id": ids(b"a", b"b", b"c", b"d", b"e\0f")}, "NUL inside"),
    ({"id": ids(b"a", b"b", b"c", b"d", b"\xff")}, "an id is not UTF-8"),
]


@pytest.mark.parametrize(("arrays", "words"), LIES)
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


def peak_of_opening(path: Path) -> tuple[int, int]:
    """Open, check and repair a store in a fork that may take 64 MB more: bytes that Python took at most, kB that the process grew by.

    A lie that is believed ends in a ``MemoryError``, which is no ``DamagedShardError``, or kills the fork.
    """
    receiver, sender = FORK.Pipe(duplex=False)

    def work() -> None:
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 64 * 2**20, mapped + 64 * 2**20))
        before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        tracemalloc.start()
        store = FeatureStore.open(path)
        assert [type(error) for error in store.damaged.values()] == [DamagedShardError]
        assert len(store.verify(deep=True)) == 1
        assert len(store.repair().set_aside) == 1
        sender.send((tracemalloc.get_traced_memory()[1], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))

    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    assert child.exitcode == 0
    peak: tuple[int, int] = receiver.recv()
    return peak


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux to know how much memory a process has")
@pytest.mark.parametrize("case", [*HOSTILE, *map(str, range(len(LIES)))])
def test_lies_cost_no_memory(tmp_path: Path, case: str) -> None:
    store, _ = make(tmp_path)
    path = store.shards[0].path
    if case in HOSTILE:
        with h5py.File(path, "r+", locking=False, libver=("v108", "latest")) as file:
            HOSTILE[case][0](file)
    else:
        rewrite_index(path, **LIES[int(case)][0])
    python_bytes, grown_kb = peak_of_opening(store.path)
    assert python_bytes < 2**20
    assert grown_kb < 24_000
