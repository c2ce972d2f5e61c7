"""HDF5's part of a shard: a sparse file that behaves like a file, and a layout that takes no memory for the rows."""

import io
import tracemalloc
from pathlib import Path

import h5py
import numpy as np
import pytest

from store import FeatureStore
from store.layout import Level
from store.shard_image import SparseFile, lay_out
from store.testing import SPEC, sample


@pytest.mark.parametrize("seed", range(10))
def test_a_sparse_file_behaves_like_a_file(seed: int, tmp_path: Path) -> None:
    rng, ours = np.random.default_rng(seed), SparseFile()
    with (tmp_path / "file").open("w+b", buffering=0) as truth:
        for _ in range(200):
            place, data = int(rng.integers(30_000)), rng.bytes(rng.integers(9000))
            for file in (truth, ours):
                file.seek(place)
            if rng.random() < 0.5:
                assert ours.write(data) == truth.write(data)
            assert ours.tell() == truth.tell()
            assert ours.read(len(data)) == truth.read(len(data))
            assert ours.seek(0, io.SEEK_END) == truth.seek(0, io.SEEK_END)
        truth.seek(0)
        assert ours.between(0, 10**6) == truth.read()
        assert ours.between(5, 5) == ours.between(9, 3) == b""


def index(videos: int, levels: list[Level]) -> dict[str, np.ndarray]:
    rows = np.full(videos, 10**6)
    names = np.arange(videos * 8, dtype=np.uint8).reshape(videos, 8) % 26 + 65
    return {"id": names, "first": np.cumsum(rows) - rows, "rows": rows} | {
        f"digests/{level.name}": np.zeros((videos, 16), np.uint8) for level in levels
    }


@pytest.mark.parametrize("levels", [1, 3, 64])
def test_the_rows_take_no_memory_in_the_image(levels: int) -> None:
    some = [Level(f"level{number}", "float32", (512, 7, 7)) for number in range(levels)]
    tracemalloc.start()
    try:
        image, regions = lay_out("0" * 64, some, 10**9, index(1000, some))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 4e6
    assert image.size >= sum(region.bytes for region in regions) == 10**9 * (32 + levels * 512 * 49 * 4)
    ends = [region.offset + region.bytes for region in regions]
    assert all(end <= region.offset for end, region in zip(ends, regions[1:], strict=False))
    assert all(region.offset % 64 == 0 for region in regions[:-1])


@pytest.mark.parametrize("layout", ["one level", "three levels", "numbers"])
def test_all_that_opening_reads_comes_before_the_rows(tmp_path: Path, layout: str) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer() as writer:
        for video_id, features in sample(layout).items():
            writer.add(video_id, features)
    structure = store.shards[0].structure
    rows = [structure.frames, structure.times, *structure.values.values()]
    head = min(place.offset for place in rows)
    assert all(place.offset < head for place in (structure.id, structure.first, structure.rows, *structure.digests.values()))
    data = store.shards[0].path.read_bytes()
    assert data.rfind(b"OHDR") < head  # HDF5's object headers
    with h5py.File(store.shards[0].path, "r", locking=False) as file:
        assert file["frames"].id.get_offset() == structure.frames.offset
