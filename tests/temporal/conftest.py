"""Small stores and lists whose class is known to be learnable, and how."""

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest

from store.features import Features, FeatureStore
from store.videos import Video, VideoList

StoreMaker = Callable[..., FeatureStore]
CLASSES = ("ab", "ba")


def features_of(values: Mapping[str, np.ndarray]) -> Features:
    """Features with made-up spans: clip i covers frames i to i + 1, 25 frames a second."""
    count = len(next(iter(values.values())))
    frames = np.stack([np.arange(count), np.arange(count) + 1], axis=1).astype(np.int64)
    return Features(dict(values), frames, frames / 25.0)


@pytest.fixture
def make_store(tmp_path: Path) -> StoreMaker:
    """``make_store({id: {level: array} or array}, name="rgb", spec={...})``."""

    def make(videos: Mapping[str, np.ndarray | Mapping[str, np.ndarray]], name: str = "rgb", spec: Mapping | None = None) -> FeatureStore:
        store = FeatureStore.create(tmp_path / "features", name, spec or {"made": name})
        with store.writer() as writer:
            for id_, values in videos.items():
                writer.add(id_, features_of(values if isinstance(values, Mapping) else {"last": values}))
        store.refresh()
        return store

    return make


def make_order_features(num_videos: int = 24, clips: int = 8, width: int = 6, seed: int = 0) -> dict[str, np.ndarray]:
    """Videos of two classes that differ in nothing but the order of the same two events: ids v00, v01, ...; even ones are "ab".

    The rest is zero, so the mean (and the multiset of clips) of every video is the same: no head blind to order can tell them apart.
    """
    generator = np.random.default_rng(seed)
    event_a, event_b = generator.normal(size=(2, width)).astype(np.float32)
    videos = {}
    for number in range(num_videos):
        first, second = sorted(generator.choice(clips, size=2, replace=False))
        values = np.zeros((clips, width), dtype=np.float32)
        values[first], values[second] = (event_a, event_b) if number % 2 == 0 else (event_b, event_a)
        videos[f"v{number:02d}"] = values
    return videos


def order_list(num_videos: int = 24, num_groups: int = 6, test_groups: int = 2, splits: bool = True) -> VideoList:
    """The list of ``make_order_features``: groups g0.. of four videos, the last ``test_groups`` are the test split."""
    videos = []
    for number in range(num_videos):
        group = number * num_groups // num_videos
        split = ("test" if group >= num_groups - test_groups else "train") if splits else ""
        videos.append(Video(f"v{number:02d}", Path(f"v{number:02d}.avi"), CLASSES[number % 2], split, f"g{group}"))
    return VideoList(tuple(videos), CLASSES)


@pytest.fixture
def order_values() -> dict[str, np.ndarray]:
    """``make_order_features``."""
    return make_order_features()


@pytest.fixture
def order_store(make_store: StoreMaker, order_values: dict[str, np.ndarray]) -> FeatureStore:
    """A store of ``order_values``."""
    return make_store(order_values)


@pytest.fixture
def order_videos() -> VideoList:
    """``order_list`` with its splits."""
    return order_list()
