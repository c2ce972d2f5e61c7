"""An index whose numbers of rows were damaged: repair ends, and keeps exactly the videos whose place is still right."""

from pathlib import Path

import numpy as np
import pytest

from store import FeatureStore
from store.testing import SPEC, same, sample

VIDEOS = sample(videos=6)


@pytest.mark.parametrize("number", [2**40, 2**63 - 1, 0, -1])
@pytest.mark.parametrize("field", ["rows", "first"])
@pytest.mark.parametrize("position", [0, 5])
def test_repair_keeps_the_others(tmp_path: Path, field: str, number: int, position: int) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    with store.writer() as writer:
        for video_id, features in VIDEOS.items():
            writer.add(video_id, features)
    (shard,) = store.shards
    place = getattr(shard.structure, field)
    with shard.path.open("r+b") as file:
        file.seek(place.offset + 8 * position)
        before = file.read(8)
        file.seek(place.offset + 8 * position)
        file.write(np.int64(number).tobytes())
    if before == np.int64(number).tobytes():
        return  # the first video does begin at row 0
    damaged = FeatureStore.open(store.path)
    assert "the index is not the one that was written" in str(damaged.damaged[shard.name])
    damaged.repair()
    lost = list(VIDEOS)[position]
    assert sorted(damaged.ids()) == sorted(set(VIDEOS) - {lost})
    assert all(same(damaged.get(video_id), VIDEOS[video_id]) for video_id in damaged.ids())
    assert damaged.verify(deep=True) == []
