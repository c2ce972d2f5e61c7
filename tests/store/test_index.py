"""Which shard holds which video: the index kept up to date equals the index from scratch, whatever comes and goes."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store import FeatureStore
from store.index import VideoIndex
from store.shard import Shard
from store.testing import SPEC, same, sample

VIDEOS = sample(videos=30)
IDS = list(VIDEOS)


def shard(name: str, *ids: str) -> Shard:
    structure: Any = None  # an index never looks into a shard
    return Shard(Path(name), structure, ids)


def facts(index: VideoIndex) -> list[tuple[str, str, int]]:
    """Every video in the order of ``ids``, with the shard and position that are read."""
    found = []
    for video_id in index.ids():
        holder, position = index.find(video_id) or (shard("none"), -1)
        found.append((video_id, holder.name, position))
    return found


def truth(shards: list[Shard]) -> list[tuple[str, str, int]]:
    """The rule of docs/format.md: a video in two shards is read from the first by name."""
    first: dict[str, tuple[str, int]] = {}
    for one in sorted(shards, key=lambda one: one.name):
        for position, video_id in enumerate(one.ids):
            first.setdefault(video_id, (one.name, position))
    return [(video_id, *place) for video_id, place in first.items()]


@pytest.mark.parametrize("seed", range(30))
@pytest.mark.parametrize("names", [12, 400])  # videos to choose from: nearly all in several shards, nearly none
def test_an_index_kept_up_to_date_is_the_index_from_scratch(seed: int, names: int) -> None:
    rng, index, shards = np.random.default_rng(seed), VideoIndex(), list[Shard]()
    for turn in range(40):
        if shards and rng.random() < 0.3:  # a merge or a repair: some go
            shards = [one for one in shards if rng.random() < 0.6]
        for number in range(rng.integers(3)):
            ids = [f"v{video}" for video in rng.permutation(names)[: rng.integers(1, 7)]]
            shards.append(shard(f"{rng.integers(1000):03d}-{turn}-{number}.h5", *ids))
        shards.sort(key=lambda one: one.name)
        index = index.updated(shards)
        assert index.shards == tuple(shards)
        assert facts(index) == facts(VideoIndex(shards)) == truth(shards)
        assert len(index) == len(truth(shards))


def test_shards_that_come_extend_an_index_and_only_one_that_goes_makes_it_anew() -> None:
    a, b, c = shard("a", "1", "2"), shard("b", "3"), shard("c", "4", "1")
    index = VideoIndex([b])
    assert index.updated([b]) is index.updated([b, c]) is index.updated([a, b, c]) is index
    assert facts(index) == [("1", "a", 0), ("2", "a", 1), ("3", "b", 0), ("4", "c", 0)]
    assert index.updated([b, c]) is not index
    assert facts(index.updated([b, c])) == [("3", "b", 0), ("4", "c", 0), ("1", "c", 1)]
    assert ("1" in index, "5" in index, index.find("5")) == (True, False, None)


def test_many_videos_are_found_at_once() -> None:
    a, b, c = shard("a", "1", "2"), shard("b", "3"), shard("c", "4", "5")
    index = VideoIndex([b, c]).updated([a, b, c])
    shards, number, position = index.find_all(["5", "1", "5", "2"])
    assert [shards[at].name for at in number] == ["c", "a", "c", "a"]
    assert position.tolist() == [1, 0, 1, 1]


def test_a_store_that_watches_is_a_store_opened_anew(tmp_path: Path) -> None:
    """Publishes before, between and after what is there, the same video twice, compactions: one process looks on."""
    rng, watching = np.random.default_rng(0), FeatureStore.create(tmp_path, "x", SPEC)
    for _ in range(12):
        with FeatureStore.open(watching.path).writer(f"{rng.integers(100):02d}") as writer:
            for video_id in rng.permutation(IDS)[: rng.integers(1, 6)].tolist():
                writer.add(video_id, VIDEOS[video_id])
        if rng.random() < 0.25:
            FeatureStore.open(watching.path).compact()
        watching.refresh()
        fresh = FeatureStore.open(watching.path)
        assert watching.ids() == fresh.ids()
        assert watching.num_rows() == fresh.num_rows() == {video_id: len(VIDEOS[video_id]) for video_id in fresh.ids()}
        assert all(same(watching.get(video_id), VIDEOS[video_id]) for video_id in fresh.ids())


def test_threads_may_read_and_refresh_at_once_while_shards_merge(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    for number, video_id in enumerate(IDS):
        with FeatureStore.open(store.path).writer(f"{number * 7 % 30:02d}") as writer:
            writer.add(video_id, VIDEOS[video_id])
    store.refresh()
    size = max(shard.structure.size for shard in store.shards)

    def read(seed: int) -> bool:
        chosen = np.random.default_rng(seed).permutation(IDS).tolist()
        return all(same(store.get(video_id), VIDEOS[video_id]) and store.missing([video_id]) == [] for video_id in chosen)

    def merge() -> bool:
        for factor in (3, 6, 12):
            FeatureStore.open(store.path).compact(target_bytes=factor * size)
        return True

    with ThreadPoolExecutor(4) as pool:
        works = [pool.submit(merge), *(pool.submit(read, seed) for seed in range(12)), *(pool.submit(store.refresh) for _ in range(3))]
        assert all(work.result() in (True, None) for work in works)
    store.refresh()
    assert sorted(store.ids()) == sorted(IDS)
    assert len(store.shards) < len(IDS)


def test_shards_set_apart_for_their_levels_come_back_when_the_odd_one_goes(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer("m") as writer:
        writer.add("a", VIDEOS["a"])
    late = FeatureStore.create(tmp_path, "x", SPEC)
    with late.writer("0") as writer:
        writer._levels = {}  # as if it had started before the first shard was published
        writer.add("odd", sample("numbers")["a"])
    store.refresh()
    assert (store.ids(), [name[:2] for name in store.damaged]) == (["odd"], ["m-"])
    store.shards[0].path.unlink()
    store.refresh()
    assert (store.ids(), store.damaged) == (["a"], {})
