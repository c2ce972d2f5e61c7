"""Shards written from shards: the right rows whatever is chosen, in bounded memory, and never a copy that was not read back."""

import os
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import store.compact
import store.rewrite
import store.shard_writer
from store import Features, FeatureStore, StoreError
from store.rewrite import Part, contents, write_successor
from store.testing import SPEC, Videos, same, sample


def make(root: Path, *shards: Videos) -> FeatureStore:
    """One shard for each of these, called p0, p1, ..."""
    store_ = FeatureStore.create(root, "x", SPEC)
    for number, videos in enumerate(shards):
        with store_.writer(f"p{number}") as writer:
            for video_id, features in videos.items():
                writer.add(video_id, features)
    return store_


def large(shards: int = 8, videos: int = 10, rows: int = 50) -> list[Videos]:
    """Half a megabyte a shard."""
    rng, frames = np.random.default_rng(0), np.stack([np.arange(rows), np.arange(rows) + 1], 1)
    return [
        {
            f"v{shard}-{video}": Features({"high": rng.random((rows, 512)).astype(np.float16)}, frames, frames / 25)
            for video in range(videos)
        }
        for shard in range(shards)
    ]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.rewrite, "PIECE_BYTES", 1 << 16)
    monkeypatch.setattr(store.shard_writer, "_BATCH_BYTES", 1 << 17)


@pytest.mark.parametrize("layout", ["one level", "three levels", "numbers"])
@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("piece", [1, 40, 1 << 22])
def test_any_choice_of_videos_gives_their_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, layout: str, seed: int, piece: int) -> None:
    monkeypatch.setattr(store.rewrite, "PIECE_BYTES", piece)
    videos, rng = sample(layout, 30, seed), np.random.default_rng(seed)
    names = list(videos)
    store_ = make(tmp_path, *({name: videos[name] for name in names[low : low + 10]} for low in (0, 10, 20)))
    parts = [Part(shard, rng.permutation(10)[: rng.integers(1, 11)].tolist()) for shard in store_.shards]
    chosen = [part.shard.ids[position] for part in parts for position in part.positions]
    found = contents(parts)
    assert [name.decode() for name in found.ids] == chosen
    for path in ("frames", "times", *(f"levels/{level}" for level in store_.levels)):
        arrays = [videos[name].values[path[7:]] if "/" in path else getattr(videos[name], path) for name in chosen]
        assert np.concatenate([np.empty((0, *arrays[0].shape[1:]), arrays[0].dtype), *found.rows(path)]).tobytes() == b"".join(
            array.tobytes() for array in arrays
        )
    shard = write_successor(parts[0].shard.path, store_.digest, parts)
    assert list(shard.ids) == chosen
    assert all(same(shard.read(position), videos[name]) for position, name in enumerate(chosen))


def test_levels_may_be_called_like_the_spans(tmp_path: Path) -> None:
    odd = {
        name: Features({"frames": one.values["high"], "times": one.values["high"] + np.float16(1)}, one.frames, one.times)
        for name, one in sample(videos=6).items()
    }
    store_ = make(tmp_path, dict(list(odd.items())[:3]), dict(list(odd.items())[3:]))
    assert store_.compact().merged == 2
    assert all(same(store_.get(name), one) for name, one in odd.items())


@contextmanager
def peak_of() -> Iterator[Callable[[], int]]:
    """The most bytes that were allocated inside the block at once."""
    tracemalloc.start()
    try:
        yield lambda: tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.usefixtures("small_pieces")
def test_compaction_holds_pieces_and_not_what_it_writes(tmp_path: Path) -> None:
    store_ = make(tmp_path, *large())
    total = sum(shard.structure.size for shard in store_.shards)
    with peak_of() as peak:
        assert store_.compact().merged == 8
        assert peak() < 1.2e6 < total / 3


@pytest.mark.usefixtures("small_pieces")
def test_repair_holds_pieces_and_not_what_it_rescues(tmp_path: Path) -> None:
    (videos,) = large(shards=1, videos=80)
    store_ = make(tmp_path, videos)
    shard = store_.shards[0]
    data = bytearray(shard.path.read_bytes())
    data[shard.structure.values["high"].offset] ^= 1
    shard.path.unlink()
    shard.path.write_bytes(data)
    del data
    with peak_of() as peak:
        assert store_.repair().rescued == 79
        assert peak() < 1.2e6 < shard.structure.size / 3
    assert all(same(store_.get(name), one) for name, one in videos.items() if name != "v0-0")


def before_writing(monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
    """Let ``act`` happen between a compaction's look at the shards and its writing."""
    write = store.compact.write_successor

    def acting(path: Path, spec_digest: str, parts: Sequence[Part]) -> object:
        monkeypatch.setattr(store.compact, "write_successor", write)
        act()
        return write(path, spec_digest, parts)

    monkeypatch.setattr(store.compact, "write_successor", acting)


def assert_all_there(store_: FeatureStore, shards: list[Videos]) -> None:
    fresh = FeatureStore.open(store_.path)
    assert fresh.verify(deep=True) == []
    assert all(same(fresh.get(name), one) for videos in shards for name, one in videos.items())
    assert [path.name for path in (store_.path / "shards").iterdir() if path.name.startswith(".")] == []


def test_a_compaction_that_is_overtaken_gives_up_without_harm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = large(3, 2, 2)
    store_ = make(tmp_path, *videos)
    before_writing(monkeypatch, lambda: FeatureStore.open(store_.path).compact())
    done = store_.compact()
    assert (done.merged, done.written, len(store_.shards)) == (0, 0, 1)
    assert_all_there(store_, videos)


def test_a_copy_that_differs_never_gets_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = large(3, 2, 2)
    store_ = make(tmp_path, *videos)
    names, write = sorted(os.listdir(store_.path / "shards")), os.writev  # noqa: PTH208

    def failing_memory(descriptor: int, pieces: list[memoryview]) -> int:
        return write(descriptor, [*pieces[:-1], bytes(pieces[-1][:-1]) + bytes([pieces[-1][-1] ^ 1])])

    monkeypatch.setattr(os, "writev", failing_memory)
    with pytest.raises(StoreError, match=r"p0-000000-\w+\.h5 could not be rewritten, its copy differs .*nothing has changed"):
        store_.compact()
    monkeypatch.undo()
    assert sorted(os.listdir(store_.path / "shards")) == names  # noqa: PTH208
    assert_all_there(store_, videos)


def test_a_shard_that_breaks_while_it_is_copied_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = large(3, 2, 2)
    store_ = make(tmp_path, *videos)
    broken = store_.shards[1]
    data = broken.path.read_bytes()
    before_writing(monkeypatch, lambda: os.truncate(broken.path, len(data) - 1))
    with pytest.raises(StoreError, match="could not be rewritten"):
        store_.compact()
    assert len(list((store_.path / "shards").iterdir())) == 3
    broken.path.write_bytes(data)
    assert_all_there(store_, videos)
