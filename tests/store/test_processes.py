"""Many processes on one store: fork, spawn, the same part twice, locks off, compaction under readers."""

import errno
import functools
import multiprocessing
import os
import pickle
import resource
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import store.arrays
from store import FeatureStore
from store.testing import SPEC, same, sample

REPOSITORY = Path(__file__).resolve().parents[2]
VIDEOS = sample(videos=60)
IDS = list(VIDEOS)
FORK = multiprocessing.get_context("fork")


def fill(store: FeatureStore, ids: list[str], part: str = "main", max_bytes: int = 2000) -> None:
    with store.writer(part, max_bytes=max_bytes) as writer:
        for video_id in ids:
            writer.add(video_id, VIDEOS[video_id])


def run_all(*works: Callable[[], object]) -> None:
    children = [FORK.Process(target=work) for work in works]
    for child in children:
        child.start()
    for child in children:
        child.join(120)
    assert [child.exitcode for child in children] == [0] * len(children)


@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_readers_in_worker_processes(tmp_path: Path, method: str) -> None:
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS)
    store_.get(IDS[0])  # a map that the workers inherit
    with multiprocessing.get_context(method).Pool(2) as pool:
        found = pool.map(functools.partial(FeatureStore.get, store_), IDS, chunksize=20)
        pool.close()  # not by SIGTERM, of which the workers may have inherited a handler
        pool.join()
    assert all(same(features, VIDEOS[video_id]) for features, video_id in zip(found, IDS, strict=True))


def test_readers_in_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.arrays, "MAX_MAPS", 2)
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS, max_bytes=500)
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(store_.get, IDS * 5))
    assert all(same(features, VIDEOS[video_id]) for features, video_id in zip(found, IDS * 5, strict=True))


def test_descriptors_stay_few_however_many_shards_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.arrays, "MAX_MAPS", 5)
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS, max_bytes=1)
    assert len(store_.shards) == 60
    before = len(os.listdir("/proc/self/fd")) if os.path.isdir("/proc/self/fd") else 0  # noqa: PTH112, PTH208
    for video_id in IDS:
        store_.get(video_id)
    assert len(store.arrays._maps) <= 5
    if before:
        assert len(os.listdir("/proc/self/fd")) <= before + 5  # noqa: PTH208


def test_a_bulk_read_of_more_shards_than_files_may_be_open(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.arrays, "MAX_MAPS", 5)
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS, max_bytes=1)

    def read() -> None:
        limit = len(os.listdir("/proc/self/fd")) + 20 if os.path.isdir("/proc/self/fd") else 50  # noqa: PTH112, PTH208
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
        rows = FeatureStore.open(store_.path).read_rows(IDS, threads=3)
        assert all(rows.of(number).tobytes() == VIDEOS[video_id].values["high"].tobytes() for number, video_id in enumerate(IDS))

    run_all(read)


def test_a_bulk_reader_in_threads_while_shards_are_merged(tmp_path: Path) -> None:
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS, max_bytes=500)
    reader = store_.reader(IDS)

    def read(turn: int) -> bool:
        if turn % 10 == 0:
            FeatureStore.open(store_.path).compact(2000 * (turn + 10))
        rows = reader.read(check=False, threads=1)
        return all(rows.of(number).tobytes() == VIDEOS[video_id].values["high"].tobytes() for number, video_id in enumerate(IDS))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(read, range(60)))
    assert len(FeatureStore.open(store_.path).shards) < 10


def test_a_pickled_store_holds_no_features(tmp_path: Path) -> None:
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS)
    size = len(pickle.dumps(store_))
    store_.get(IDS[0])
    assert len(pickle.dumps(store_)) == size


def test_two_jobs_given_the_same_part_lose_nothing(tmp_path: Path) -> None:
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    run_all(*(functools.partial(fill, store_, IDS) for _ in range(2)))
    fresh = FeatureStore.open(store_.path)
    assert sorted(fresh.ids()) == sorted(IDS)
    assert sum(len(shard.ids) for shard in fresh.shards) == 120
    assert fresh.verify(deep=True) == []
    assert fresh.compact().merged > 2
    assert sum(len(shard.ids) for shard in fresh.shards) == 60


def test_writers_readers_and_compactions_at_once(tmp_path: Path) -> None:
    store_ = FeatureStore.create(tmp_path, "x", SPEC)
    fill(store_, IDS[:12], "first", 500)

    def read() -> None:
        reader = FeatureStore.open(store_.path)
        for _ in range(15):
            reader.refresh()
            assert reader.missing(IDS[:12]) == []
            for video_id in reader.ids():
                assert same(reader.get(video_id), VIDEOS[video_id])

    def compact() -> None:
        for _ in range(8):
            FeatureStore.open(store_.path).compact()

    writers = [functools.partial(fill, FeatureStore.open(store_.path), IDS[12 + n :: 3], "same", 500) for n in range(3)]
    run_all(*writers, read, read, compact, compact)
    fresh = FeatureStore.open(store_.path)
    assert sorted(fresh.ids()) == sorted(IDS)
    assert fresh.verify(deep=True) == []


@pytest.mark.parametrize("locking", ["FALSE", "TRUE"])
def test_hdf5_file_locks_do_not_matter(tmp_path: Path, locking: str) -> None:
    code = f"""
from pathlib import Path
from store import FeatureStore
from store.testing import SPEC, sample
store = FeatureStore.create(Path({str(tmp_path)!r}), "x", SPEC)
with store.writer() as writer:
    for name, features in sample().items():
        writer.add(name, features)
reader = FeatureStore.open(store.path)
assert reader.verify(deep=True) == [] and len(reader) == 8
"""
    subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, env={**os.environ, "HDF5_USE_FILE_LOCKING": locking}, check=True)
    assert len(FeatureStore.open(next(tmp_path.iterdir()))) == 8


@pytest.mark.parametrize("call", ["open", "fstat"])
def test_a_shard_that_another_machine_has_removed_is_looked_for_elsewhere(
    tmp_path: Path, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A network disk says ESTALE for a file that another client has merged into another one."""
    store = FeatureStore.create(tmp_path, "x", SPEC)
    for part, video_id in (("a", IDS[0]), ("b", IDS[1])):
        fill(store, [video_id], part)
    reader = FeatureStore.open(store.path)
    gone = [str(shard.path) for shard in reader.shards]
    store.compact()
    opened: dict[int, str] = {}
    real_open, real_fstat = os.open, os.fstat

    def stale_open(path: str | Path, flags: int, mode: int = 0o777) -> int:
        if str(path) not in gone:
            return real_open(path, flags, mode)
        if call == "open":
            raise OSError(errno.ESTALE, "Stale file handle")
        descriptor = real_open(os.devnull, flags)
        opened[descriptor] = str(path)
        return descriptor

    def stale_fstat(descriptor: int) -> os.stat_result:
        if opened.pop(descriptor, None):
            raise OSError(errno.ESTALE, "Stale file handle")
        return real_fstat(descriptor)

    monkeypatch.setattr(os, "open", stale_open)
    monkeypatch.setattr(os, "fstat", stale_fstat)
    assert same(reader.get(IDS[0]), VIDEOS[IDS[0]])
    assert same(reader.get(IDS[1]), VIDEOS[IDS[1]])
