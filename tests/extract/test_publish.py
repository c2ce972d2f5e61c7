"""The writer's thread: nothing waits for it, nothing is lost in it, its errors reach the job."""

import threading
from pathlib import Path

import numpy as np
import pytest

from extract.publish import WAITING_VIDEOS, Publisher
from store.errors import StoreError
from store.features import Features, FeatureStore

FEATURES = Features({"a": np.ones((2, 3), np.float32)}, np.array([[0, 1], [1, 2]]), np.array([[0.0, 0.5], [0.5, 1.0]]))
OTHER = Features({"b": np.ones((1, 3), np.float32)}, np.array([[0, 1]]), np.array([[0.0, 0.5]]))


class Writer:
    """Stands for a ``FeatureWriter``; may be held up, may refuse."""

    def __init__(self, error: BaseException | None = None, held: bool = False) -> None:
        self.error, self.added, self.failed = error, [], []
        self.go, self.due = threading.Event(), threading.Event()
        if not held:
            self.go.set()

    def add(self, key: str, features: Features) -> None:
        self.go.wait()
        if self.error is not None and key.startswith("bad"):
            raise self.error
        self.added.append(key)

    def fail(self, key: str, stage: str, reason: str, path: Path) -> None:
        self.failed.append((key, stage, reason, path))

    def finish(self, key: str) -> None:
        assert key in self.added

    def publish_due(self) -> None:
        if self.added:
            self.due.set()


def test_a_job_goes_on_while_the_writer_is_held_up() -> None:
    writer = Writer(held=True)
    with Publisher(writer) as publisher:  # type: ignore[arg-type]
        for number in range(WAITING_VIDEOS):
            publisher.add(f"v{number}", FEATURES)
        assert writer.added == []
        writer.go.set()
        assert publisher.refused(wait=True) == []
        assert len(writer.added) == WAITING_VIDEOS
        publisher.fail("x", "decode", "torn", Path("x.avi"))
    assert writer.failed == [("x", "decode", "torn", Path("x.avi"))]


def test_what_is_finished_is_published_though_nothing_follows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.publish.TICK_SECONDS", 0.001)
    writer = Writer()
    with Publisher(writer) as publisher:  # type: ignore[arg-type]
        publisher.add("v", FEATURES)
        publisher.refused(wait=True)
        writer.due.clear()
        assert writer.due.wait(60)  # time passes, nobody adds


def test_a_refused_video_is_told_once(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "s", {"a": 1})
    with store.writer("main") as writer, Publisher(writer) as publisher:
        publisher.add("one", FEATURES)
        publisher.add("two", OTHER)
        ((key, reason),) = publisher.refused(wait=True)
        assert key == "two"
        assert "levels are b" in reason
        assert publisher.refused(wait=True) == []
    assert FeatureStore.open(store.path).ids() == ["one"]


def test_an_error_of_the_store_reaches_who_adds_next() -> None:
    writer = Writer(StoreError("the disk is full"))
    with pytest.raises(StoreError, match="the disk is full"), Publisher(writer) as publisher:  # type: ignore[arg-type]
        publisher.add("bad", FEATURES)
        publisher.refused(wait=True)
    with pytest.raises(StoreError, match="the disk is full"), Publisher(writer) as publisher:  # type: ignore[arg-type]
        publisher.add("bad", FEATURES)  # nobody adds after it
    with pytest.raises(KeyError), Publisher(writer) as publisher:  # type: ignore[arg-type]
        publisher.add("bad", FEATURES)
        raise KeyError("the job's own error is the one to tell")
    assert writer.added == []
