"""Files that are right by HDF5's checksums and lead it astray: no crash of the process, no wrong feature, no memory.

HDF5 2.0 itself crashes on several of these; ``store.hdf5_guard`` is what keeps it from them.
"""

import functools
import itertools
import multiprocessing
import resource
import signal
import struct
from pathlib import Path

import h5py
import numpy as np
import pytest

from store import DamagedShardError, Features, FeatureStore, MissingFeaturesError
from store.hdf5_guard import Guard, Refused
from store.testing import SPEC, Videos, same

FORK = multiprocessing.get_context("fork")
MAGICS = (b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"BTLF", b"BTIN", b"FSHD", b"FSSE")
MASK = 2**32 - 1


def lookup3(data: bytes) -> int:
    """Bob Jenkins' hash, the checksum of HDF5's metadata."""

    def turn(value: int, bits: int) -> int:
        return (value << bits | value >> (32 - bits)) & MASK

    words = [(0xDEADBEEF + len(data)) & MASK] * 3
    if not data:
        return words[2]
    *blocks, tail = (data[at : at + 12] for at in range(0, len(data), 12))
    for block in blocks:
        words = [word + more & MASK for word, more in zip(words, struct.unpack("<3I", block), strict=True)]
        for step, bits in enumerate((4, 6, 8, 16, 19, 4)):
            a, b, c = step % 3, (step + 1) % 3, (step + 2) % 3
            words[a] = (words[a] - words[c] & MASK) ^ turn(words[c], bits)
            words[c] = words[c] + words[b] & MASK
    words = [word + more & MASK for word, more in zip(words, struct.unpack("<3I", tail.ljust(12, b"\0")), strict=True)]
    for step, bits in enumerate((14, 11, 25, 16, 4, 14, 24)):
        one, other = (step + 2) % 3, (step + 1) % 3
        words[one] = (words[one] ^ words[other]) - turn(words[other], bits) & MASK
    return words[2]


def make(root: Path, levels: int) -> tuple[FeatureStore, Videos]:
    """One shard of six videos. More than 8 levels are what HDF5 keeps in a heap, more than 45 in a B-tree of two stages."""
    rng = np.random.default_rng(0)
    videos: Videos = {}
    for number in range(6):
        frames = np.arange(int(rng.integers(1, 6)))[:, None] + np.array([0, 1])
        values = {f"level{n}": rng.standard_normal((len(frames), 4)).astype(np.float16) for n in range(levels)}
        videos[f"v{number}"] = Features(values, frames, frames / 25)
    store = FeatureStore.create(root, "x", SPEC)
    with store.writer() as writer:
        for video_id, features in videos.items():
            writer.add(video_id, features)
    return store, videos


@functools.cache
def blocks(data: bytes) -> list[tuple[int, int]]:
    """[start, end) of HDF5's blocks of metadata, each with its checksum in the last four bytes."""
    found = [(0, 48)]
    for magic in MAGICS:
        start = data.find(magic)
        while start >= 0:
            ends = (end for end in range(start + 8, min(start + 600, len(data) - 4)) if _is_end(data, start, end))
            found += [(start, end + 4) for end in itertools.islice(ends, 1)]
            start = data.find(magic, start + 1)
    return found


def _is_end(data: bytes, start: int, end: int) -> bool:
    return struct.unpack_from("<I", data, end)[0] == lookup3(data[start:end])


def signed(data: bytearray, start: int, end: int) -> bytes:
    """Put the right checksum on a block."""
    struct.pack_into("<I", data, end - 4, lookup3(bytes(data[start : end - 4])))
    return bytes(data)


def ending(store: FeatureStore, videos: Videos, data: bytes) -> int | None:
    """Put ``data`` in the place of the shard and use the store in a fork with little memory and time; 0 unless something goes wrong."""
    path = store.shards[0].path
    path.unlink()
    path.write_bytes(data)

    def work() -> None:
        signal.alarm(20)
        mapped = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        resource.setrlimit(resource.RLIMIT_AS, (mapped + 128 * 2**20, mapped + 128 * 2**20))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        fresh = FeatureStore.open(store.path)
        for video_id, features in videos.items():
            try:
                assert same(fresh.get(video_id), features)
            except (DamagedShardError, MissingFeaturesError):
                continue
        fresh.repair()

    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    for file in (*path.parent.iterdir(), *(store.path / "damaged").glob("*")):
        file.unlink()
    path.write_bytes(data)
    return child.exitcode


def test_the_checksum_is_that_of_hdf5(tmp_path: Path) -> None:
    assert lookup3(b"") == 0xDEADBEEF
    assert lookup3(b"Four score and seven years ago") == 0x17770551  # from Jenkins' own test
    store, _ = make(tmp_path, 12)
    kinds = {store.shards[0].path.read_bytes()[start : start + 4] for start, _ in blocks(store.shards[0].path.read_bytes())}
    assert kinds >= {b"\x89HDF", b"OHDR", b"OCHK", b"FRHP", b"BTHD", b"BTLF"}


@pytest.mark.parametrize("levels", [1, 8, 9, 45, 46, 64])
def test_any_number_of_levels_and_of_other_attributes_is_fine(tmp_path: Path, levels: int) -> None:
    store, videos = make(tmp_path, levels)
    with h5py.File(store.shards[0].path, "r+", locking=False, libver=("v108", "latest")) as file:
        for number in range(levels):
            file.attrs[f"other{number}"] = "text" * number
            file[f"other{number}"] = number
    fresh = FeatureStore.open(store.path)
    assert fresh.verify(deep=True) == []
    assert all(same(fresh.get(video_id), features) for video_id, features in videos.items())


@pytest.mark.parametrize(
    ("magic", "at", "code", "value", "words"),
    [
        (b"BTHD", 6, "<I", 0, "odd B-tree"),  # size of a node
        (b"BTHD", 10, "<H", 0, "odd B-tree"),  # size of a record
        (b"BTHD", 12, "<H", 60000, "odd B-tree"),  # depth
        (b"BTHD", 16, "<Q", 8, "odd B-tree"),  # address of the root
        (b"BTHD", 24, "<H", 60000, "odd B-tree"),  # records in the root
        (b"BTHD", 24, "<H", 0, "odd B-tree"),
        (b"FRHP", 5, "<H", 60000, "odd heap"),  # size of an id
        (b"FRHP", 7, "<H", 9, "odd heap"),  # size of its filters
        (b"FRHP", 110, "<H", 0, "odd heap"),  # width of its table
        (b"FRHP", 112, "<Q", 2**60, "odd heap"),  # size of the first block
        (b"FRHP", 132, "<Q", 2**60, "odd heap"),  # address of the first block
    ],
)
def test_forged_group_indexes_are_refused(tmp_path: Path, magic: bytes, at: int, code: str, value: int, words: str) -> None:
    store, videos = make(tmp_path, 60)
    path = store.shards[0].path
    data = bytearray(path.read_bytes())
    start, end = next((start, end) for start, end in blocks(bytes(data)) if data[start : start + 4] == magic)
    struct.pack_into(code, data, start + at, value)
    assert ending(store, videos, signed(data, start, end)) == 0
    (error,) = FeatureStore.open(store.path).damaged.values()
    assert isinstance(error, DamagedShardError)
    assert f"it has a group with an {words}" in str(error)


def test_a_b_tree_that_contains_itself_is_refused(tmp_path: Path) -> None:
    """In the layout from before HDF5 1.8, which has no checksums."""
    path = tmp_path / "old.h5"
    with h5py.File(path, "w", libver="earliest") as file:
        file["levels/high"] = 1.0
    data = bytearray(path.read_bytes())
    tree = data.find(b"TREE")
    data[tree + 5] = 1  # not a leaf
    struct.pack_into("<Q", data, tree + 32, tree)  # its first child is itself
    store, videos = make(tmp_path, 1)
    assert ending(store, videos, bytes(data)) == 0
    (error,) = FeatureStore.open(store.path).damaged.values()
    assert "layout from before version 1.8" in str(error)


def test_an_old_group_in_a_new_file_is_refused(tmp_path: Path) -> None:
    store, videos = make(tmp_path, 1)
    data = bytearray(store.shards[0].path.read_bytes())
    for start, end in blocks(bytes(data)):
        links = data.find(b"\x02\x12\x00", start, end)  # a message of kind 2, links, with 18 bytes
        if links >= 0:
            data[links : links + 3] = b"\x11\x12\x00"  # of kind 17, symbol table
            data = bytearray(signed(data, start, end))
    assert ending(store, videos, bytes(data)) == 0
    (error,) = FeatureStore.open(store.path).damaged.values()
    assert "it has a group in HDF5's layout from before version 1.8" in str(error)


def test_a_header_that_continues_in_itself_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "loop"
    header = b"OHDR\x02\x00" + bytes([20]) + struct.pack("<BHBQQ", 0x10, 16, 0, 7 - 4, 28)
    path.write_bytes(header + bytes(100))
    with path.open("rb") as file, pytest.raises(Refused, match="a group whose header has no end"):
        Guard(file.fileno(), 127).group(0)


@pytest.mark.parametrize(("levels", "times"), [(3, 25), (60, 50), pytest.param(60, 1500, marks=pytest.mark.slow)])
def test_random_forgeries_crash_nothing_and_give_no_wrong_feature(tmp_path: Path, levels: int, times: int) -> None:
    store, videos = make(tmp_path, levels)
    original, rng = store.shards[0].path.read_bytes(), np.random.default_rng(levels)
    known = [block for block in blocks(original) if levels < 9 or original[block[0] : block[0] + 4] != b"OHDR" or block[1] - block[0] < 200]
    addresses = [0, 1, 7, len(original), 2**40, 2**63, 2**64 - 1, *(start for start, _ in known)]
    for _ in range(times):
        data = bytearray(original)
        start, end = known[rng.integers(len(known))]
        for _ in range(rng.integers(1, 4)):
            at, kind = int(rng.integers(start + 4, end - 4)), rng.integers(3)
            if kind == 0:
                data[at] ^= 1 << int(rng.integers(8))
            elif kind == 1:
                data[at] = int(rng.choice([0, 1, 2, 16, 17, 127, 128, 255]))
            elif at + 8 <= end - 4:
                struct.pack_into("<Q", data, at, addresses[rng.integers(len(addresses))])
        assert ending(store, videos, signed(data, start, end)) == 0, bytes(data[start:end])
