"""verify, repair and compact."""

import functools
import os
from pathlib import Path

import numpy as np
import pytest

from store import DamagedShardError, Features, FeatureStore, MissingFeaturesError, StoreError
from store.shard import Shard
from store.testing import SPEC, same, sample
from store.verify import Problem

VIDEOS = sample("three levels", 12)
IDS = list(VIDEOS)


def make(root: Path, *groups: list[str]) -> FeatureStore:
    """One shard a group, called p0, p1, ..."""
    store = FeatureStore.create(root, "x", SPEC)
    for number, ids in enumerate(groups):
        with store.writer(f"p{number}") as writer:
            for video_id in ids:
                writer.add(video_id, VIDEOS[video_id])
    return store


def spoil(shard: Shard, offset: int, bits: int = 4) -> None:
    """Flip bits of a shard's file, as a new file so that no map changes."""
    data = bytearray(shard.path.read_bytes())
    data[offset] ^= bits
    shard.path.unlink()
    shard.path.write_bytes(data)


def spoil_video(shard: Shard, video_id: str) -> None:
    """Flip a bit in the first row of a video's level ``low``."""
    first = sum(len(VIDEOS[name]) for name in shard.ids[: shard.ids.index(video_id)])
    spoil(shard, shard.structure.values["low"].offset + first * 4 * 2)


def other(video_id: str) -> Features:
    features = VIDEOS[video_id]
    return Features({name: array + np.ones((), array.dtype) for name, array in features.values.items()}, features.frames, features.times)


def assert_right(store: FeatureStore, ids: list[str]) -> None:
    for seen in (store, FeatureStore.open(store.path)):
        assert sorted(seen.ids()) == sorted(ids)
        assert all(same(seen.get(video_id), VIDEOS[video_id]) for video_id in ids)


def test_a_sound_store_has_no_problems_and_repair_changes_nothing(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:6], IDS[4:])
    before = sorted(path.name for path in (store.path / "shards").iterdir())
    assert store.verify() == store.verify(deep=True) == []
    done = store.repair()
    assert (done.set_aside, done.rescued, done.lost, done.left) == ((), 0, (), ())
    assert sorted(path.name for path in (store.path / "shards").iterdir()) == before


def test_a_damaged_video_is_found_by_deep_and_only_it_is_lost(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:6], IDS[6:])
    shard = store.shards[0]
    spoil_video(shard, IDS[2])
    assert store.verify() == []
    (problem,) = FeatureStore.open(store.path).verify(deep=True)
    assert (problem.shard, problem.id) == (shard.name, IDS[2])
    assert "level low: the bytes are not the ones that were written" in problem.reason
    done = store.repair()
    assert (done.set_aside, done.rescued, done.lost) == ((shard.name,), 5, (IDS[2],))
    assert (store.path / "damaged" / shard.name).exists()
    assert_right(store, [video_id for video_id in IDS if video_id != IDS[2]])
    assert store.verify(deep=True) == []
    assert store.shards[0].name.startswith("p0-000000-")
    assert store.missing(IDS) == [IDS[2]]


@pytest.mark.parametrize(
    ("member", "byte", "bits"), [("first", 0, 4), ("first", 7, 0x80), ("first", 6, 1), ("rows", 7, 0x80), ("rows", 5, 1)]
)
def test_videos_are_rescued_from_a_shard_with_a_wrong_index(tmp_path: Path, member: str, byte: int, bits: int) -> None:
    store = make(tmp_path, IDS)
    shard = store.shards[0]
    spoil(shard, getattr(shard.structure, member).offset + 8 * 3 + byte, bits)  # of the fourth video
    with pytest.raises(MissingFeaturesError, match="1 of its shards cannot be used"):
        FeatureStore.open(store.path).get(IDS[0])
    store.refresh()
    assert "the index is not the one that was written" in store.verify()[0].reason
    done = FeatureStore.open(store.path).repair()
    assert (done.rescued, done.lost) == (11, (IDS[3],))
    assert_right(FeatureStore.open(store.path), [*IDS[:3], *IDS[4:]])


def test_a_flipped_id_loses_its_video_and_invents_none(tmp_path: Path) -> None:
    store = make(tmp_path, IDS)
    spoil(store.shards[0], store.shards[0].structure.id.offset)
    done = FeatureStore.open(store.path).repair()
    assert done.rescued == 11
    assert_right(FeatureStore.open(store.path), IDS[1:])


def test_files_beyond_rescue_and_strangers_are_set_aside(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:3])
    stranger = FeatureStore.create(tmp_path, "y", {"other": 1})
    with stranger.writer() as writer:
        writer.add("s", VIDEOS["a"])
    stranger.shards[0].path.rename(store.path / "shards" / "stranger.h5")
    (store.path / "shards" / "junk.h5").write_bytes(b"junk")
    done = store.repair()
    assert sorted(done.set_aside) == ["junk.h5", "stranger.h5"]
    assert sorted(path.name for path in (store.path / "damaged").iterdir()) == ["junk.h5", "stranger.h5"]
    assert_right(store, IDS[:3])
    assert store.verify(deep=True) == []


def test_one_odd_shard_does_not_make_repair_clear_the_store_of_all_others(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:4], IDS[4:8], IDS[8:])
    odd = FeatureStore.create(tmp_path / "elsewhere", "x", SPEC)  # of the same spec, with other levels, first by name
    with odd.writer("a") as writer:
        writer.add("odd", Features({"other": np.ones((1, 2), np.float32)}, VIDEOS[IDS[0]].frames[:1], VIDEOS[IDS[0]].times[:1]))
    stranger = odd.shards[0].path.rename(store.path / "shards" / odd.shards[0].name)
    done = store.repair()
    assert (done.set_aside, done.lost, len(done.left)) == ((), (), 3)
    assert "move the one that does not belong here away" in done.left[0].reason
    stranger.unlink()
    store.refresh()
    assert sorted(store.ids()) == sorted(IDS)
    assert store.verify(deep=True) == []


def test_of_two_versions_the_first_by_name_is_read_and_repair_keeps_it(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:4])
    late = FeatureStore.create(tmp_path, "x", SPEC)
    for part in ("z", "a"):  # the same video again: after and before the shard that is there
        with late.writer(part) as writer:
            writer.add(IDS[1], other(IDS[1]) if part == "z" else VIDEOS[IDS[1]])
            writer.add(IDS[5], VIDEOS[IDS[5]])
    store.refresh()
    assert same(store.get(IDS[1]), VIDEOS[IDS[1]])
    (problem,) = store.verify()
    assert problem.id == IDS[1]
    assert problem.shard.startswith("z-")
    assert "other features than the same video has in a-000000-" in str(problem)
    store.compact()
    assert store.verify() == [problem]  # disputed shards are not merged
    done = store.repair()
    assert (len(done.set_aside), done.rescued, done.lost) == (1, 1, ())
    assert store.verify(deep=True) == []
    assert_right(store, [*IDS[:4], IDS[5]])


def test_a_good_second_copy_replaces_a_damaged_first_one(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:4], IDS[2:6])
    spoil_video(store.shards[0], IDS[3])
    fresh = FeatureStore.open(store.path)
    with pytest.raises(DamagedShardError, match="run `actioncache store repair`"):
        fresh.get(IDS[3])
    assert fresh.repair().lost == ()
    assert_right(fresh, IDS[:6])


def test_verify_reports_what_keeps_a_store_from_opening(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:1])
    store.spec_file.write_text("{")
    (problem,) = store.verify()
    assert isinstance(problem, Problem)
    assert "spec.json is damaged" in str(problem)


def test_compaction_merges_small_shards_and_is_then_content(tmp_path: Path) -> None:
    store = make(tmp_path, *([video_id] for video_id in IDS))
    watching = FeatureStore.open(store.path)
    done = store.compact()
    assert (done.merged, done.written, len(store.shards)) == (12, 1, 1)
    assert_right(store, IDS)
    assert store.compact().merged == 0
    assert_right(watching, IDS)  # its shards are gone; it looks again by itself
    assert watching.num_rows() == {video_id: len(features) for video_id, features in VIDEOS.items()}


def test_compaction_respects_its_target(tmp_path: Path) -> None:
    store = make(tmp_path, *([video_id] for video_id in IDS))
    size = max(shard.structure.size for shard in store.shards)
    done = store.compact(target_bytes=3 * size)
    assert (done.merged, done.written) == (12, 3)
    assert_right(store, IDS)
    large = make(tmp_path / "2", IDS[:6], IDS[6:])
    assert large.compact(target_bytes=1000).merged == 0


def test_compaction_makes_one_of_equal_copies_and_leaves_damage_alone(tmp_path: Path) -> None:
    store = make(tmp_path, IDS[:4], IDS[2:6], IDS[6:8])
    damaged = store.shards[2]
    spoil_video(damaged, IDS[7])
    assert FeatureStore.open(store.path).compact().merged == 2
    store.refresh()
    assert damaged.path.exists()
    assert [len(shard.ids) for shard in store.shards] == [6, 2]
    assert store.missing(IDS[:8]) == []


def test_maintenance_on_a_full_disk_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path, IDS[:6], IDS[6:])
    spoil_video(store.shards[0], IDS[0])

    def refuse(*arguments: object) -> int:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "writev", refuse)
        with pytest.raises(StoreError, match=r"the disk is full; .* \(p0-000000-\w+\.h5 is as it was\)"):
            FeatureStore.open(store.path).repair()
    assert FeatureStore.open(store.path).missing(IDS) == []
    clean = make(tmp_path / "2", IDS[:6], IDS[6:])
    monkeypatch.setattr(os, "writev", refuse)
    with pytest.raises(StoreError, match="the disk is full"):
        clean.compact()
    assert_right(clean, IDS)


def test_a_disk_that_does_not_answer_is_not_taken_for_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = make(tmp_path, IDS)

    read, features = os.pread, min(place.offset for place in store.shards[0].structure.values.values())

    def refuse(from_byte: int, descriptor: int, count: int, offset: int) -> bytes:
        if offset + count > from_byte:
            raise OSError(5, "Input/output error")
        return read(descriptor, count, offset)

    for from_byte, videos in ((features, 12), (8, 0), (0, 0)):  # no features, no index, nothing at all
        monkeypatch.setattr(os, "pread", functools.partial(refuse, from_byte))
        assert "Input/output error" in store.verify(deep=True)[0].reason
        done = store.repair()
        assert (done.set_aside, len(done.left)) == ((), 1)
        assert len(FeatureStore.open(store.path)) == videos
    monkeypatch.undo()
    store.refresh()
    assert_right(store, IDS)
