"""The torch dataset: items, batches, workers under fork and spawn."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from store import FeatureStore
from store.dataset import FeatureDataset, pad
from store.errors import DamagedShardError, FeatureError
from store.testing import SPEC, sample

VIDEOS = sample(videos=30)
IDS = list(VIDEOS)


@pytest.fixture
def store(tmp_path: Path) -> FeatureStore:
    made = FeatureStore.create(tmp_path, "x", SPEC)
    for part in range(3):
        with made.writer(f"part{part}") as writer:
            for video_id in IDS[part::3]:
                writer.add(video_id, VIDEOS[video_id])
    return made


def test_items_are_the_features_in_the_type_asked_for(store: FeatureStore) -> None:
    for dtype in ("float16", "float32"):
        data = FeatureDataset(store, IDS, labels=range(30), dtype=dtype)
        assert len(data) == 30
        for number in (0, 29):
            features, label, position = data[number]
            assert features.dtype == getattr(torch, dtype)
            assert np.array_equal(features.numpy(), VIDEOS[IDS[number]].values["high"].astype(dtype))
            assert (label, position, data.id(number)) == (number, number, IDS[number])
    assert FeatureDataset(store, IDS)[3][1] == -1


def test_items_end_where_the_list_ends(store: FeatureStore) -> None:
    data = FeatureDataset(store, IDS[:2])
    assert len([item for item in data]) == 2  # noqa: C416 - a dataset without __iter__ is iterated until IndexError
    with pytest.raises(IndexError, match="video -1 of 2"):
        data[-1]


def test_what_does_not_fit_is_refused(store: FeatureStore) -> None:
    with pytest.raises(FeatureError, match="30 ids but 29 labels"):
        FeatureDataset(store, IDS, labels=range(29))
    for labels, told in (([0.5, 1.5], "float64 [2]"), (["walk", "run"], "<U4 [2]"), ([[0, 1], [1, 0]], "int64 [2, 2]")):
        with pytest.raises(FeatureError, match=re.escape(f"labels are {told}; they must be whole numbers, one a video")):
            FeatureDataset(store, IDS[:2], labels=labels)  # type: ignore[arg-type]
    with pytest.raises(FeatureError, match="cannot be read as int8"):
        FeatureDataset(store, IDS, dtype="int8")


@pytest.mark.parametrize(("workers", "method"), [(0, None), (2, "fork"), (2, "spawn")])
def test_a_loader_gives_every_video_once_an_epoch(store: FeatureStore, workers: int, method: str | None) -> None:
    data = FeatureDataset(store, IDS, labels=range(30))
    generator = torch.Generator().manual_seed(0)
    loader = DataLoader(data, 7, shuffle=True, collate_fn=pad, num_workers=workers, multiprocessing_context=method, generator=generator)
    for _ in range(2):
        seen = []
        for x, lengths, labels, positions in loader:
            assert torch.equal(labels, positions)
            for row, length, number in zip(x, lengths.tolist(), positions.tolist(), strict=True):
                assert np.array_equal(row[:length].numpy(), VIDEOS[IDS[number]].values["high"].astype(np.float32))
                assert not row[length:].any()
                seen.append(number)
        assert sorted(seen) == list(range(30))


def test_a_damaged_video_is_named_unless_digests_are_left_out(store: FeatureStore) -> None:
    shard = store.shards[0]
    with shard.path.open("r+b") as file:
        file.seek(shard.structure.values["high"].offset)
        file.write(b"\x01\x02")
    with pytest.raises(DamagedShardError, match=repr(shard.ids[0])):
        FeatureDataset(store, [shard.ids[0]]).__getitems__([0])
    FeatureDataset(store, [shard.ids[0]], check=False)[0]
