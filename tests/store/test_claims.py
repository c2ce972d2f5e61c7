"""Claims: one process a video, what a dead one leaves, what is forgotten when."""

import errno
import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from store import claim_files, claims
from store.claims import Claims
from store.errors import StoreError
from store.features import Features, FeatureStore


@pytest.fixture
def opened(tmp_path: Path) -> Callable[[], FeatureStore]:
    """``opened()``: the same store, as another process would open it."""
    FeatureStore.create(tmp_path, "x", {"what": "test"})
    return lambda: FeatureStore.open(next(tmp_path.iterdir()))


@pytest.fixture
def started(opened: Callable[[], FeatureStore]) -> Iterator[Callable[[], Claims]]:
    """``started()``: the claims of one more process on that store."""
    made: list[Claims] = []

    def start() -> Claims:
        made.append(Claims(opened()))
        return made[-1]

    yield start
    for each in made:
        each._ended.set()


def publish(store: FeatureStore, own: Claims, *ids: str) -> None:
    with store.writer("main", claims=own) as writer:
        for video_id in ids:
            writer.add(video_id, Features({"a": np.ones((1, 2), np.float32)}, np.array([[0, 1]]), np.array([[0.0, 1.0]])))


def kill(own: Claims) -> None:
    """What a kill does: the lock goes, the files stay, nothing is touched any more."""
    own._ended.set()
    if own._heart.is_alive():
        own._heart.join()
    for descriptor in own._descriptors:
        os.close(descriptor)


def names(store: FeatureStore) -> list[str]:
    folder = store.path / "claims"
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def test_a_video_is_one_processs_until_it_is_given_back(started: Callable[[], Claims]) -> None:
    first, second = started(), started()
    assert first.take("a").state == "mine"
    held = second.take("a")
    assert (held.state, held.holder and held.holder.process) == ("others", os.getpid())
    assert second.take("b").state == "mine"
    first.give_back("a")
    assert second.take("a") == claims.MINE
    assert first.take("a").state == "others"


def test_what_is_published_is_done_for_others_and_a_failure_is_one(
    started: Callable[[], Claims], opened: Callable[[], FeatureStore]
) -> None:
    first, second, store = started(), started(), opened()
    assert {first.take(name).state for name in "ab"} == {"mine"}
    publish(store, first, "a")
    with store.writer("main", claims=first) as writer:
        writer.fail("b", "decode", "is no video")
    assert second.take("a").state == "done"
    assert claim_files.name_of("a") in names(store)  # for a while: who looked before does not see the shard
    first._release(float("inf"))
    assert claim_files.name_of("a") not in names(store)
    assert second.take("a").state == "done"
    failed = second.take("b")
    assert (failed.state, failed.failure and failed.failure.reason) == ("failed", "is no video")
    third = started()  # began afterwards, so it is its user's choice to try again
    assert third.take("b").state == "mine"


def test_a_dead_process_leaves_a_death_and_its_videos_to_others(started: Callable[[], Claims], opened: Callable[[], FeatureStore]) -> None:
    store = opened()
    for expected in range(3):
        own = started()
        taken = own.take("a")
        assert (taken.state, len(taken.deaths)) == ("mine", expected)
        kill(own)
    last = started()
    assert [death.process for death in last.take("a").deaths] == [os.getpid()] * 3
    publish(store, last, "a")
    last.__exit__(None, None, None)
    assert names(store) == []


def test_a_death_after_the_publishing_is_none(started: Callable[[], Claims], opened: Callable[[], FeatureStore]) -> None:
    first, store = started(), opened()
    first.take("a")
    publish(store, first, "a")
    kill(first)
    second = started()
    assert second.take("a").state == "done"
    second.__exit__(None, None, None)
    assert names(store) == []


@pytest.mark.parametrize(
    ("error", "deaths"), [(None, 0), (StoreError("disk full"), 0), (KeyboardInterrupt(), 0), (RuntimeError("CUDA"), 1)]
)
def test_an_error_that_may_be_a_videos_doing_counts_as_a_kill(
    started: Callable[[], Claims], error: BaseException | None, deaths: int
) -> None:
    first = started()
    first.take("a")
    first.__exit__(type(error) if error else None, error, None)
    assert len(started().take("a").deaths) == deaths


def test_the_last_to_leave_sweeps_what_others_left_for_a_while(started: Callable[[], Claims], opened: Callable[[], FeatureStore]) -> None:
    first, second, store = started(), started(), opened()
    first.take("a")
    second.take("b")
    publish(store, first, "a")
    first.__exit__(None, None, None)
    assert claim_files.name_of("a") in names(store)
    assert second.take("a").state == "done"
    second.__exit__(None, None, None)
    assert names(store) == []


def test_on_another_machine_silence_tells_who_is_dead(started: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch) -> None:
    """Locks may not reach over a network, or be kept for a machine that is gone; then how long nobody has touched the file decides."""
    first, second = started(), started()
    first.take("a")
    first._ended.set()
    first._heart.join()
    path = first._folder / claim_files.name_of("a")
    monkeypatch.setattr(claim_files.Holder, "here", lambda: claim_files.Holder("other", 1, "another boot"))

    def silent_for(seconds: float) -> str:
        now = second._now() if second._descriptor >= 0 else path.stat().st_mtime
        os.utime(path, (now - seconds, now - seconds))
        return second.take("a").state

    assert silent_for(claim_files.GONE_SECONDS - 60) == "others"  # it is locked
    os.close(first._descriptor)
    assert silent_for(claim_files.STALE_SECONDS - 60) == "others"
    assert silent_for(claim_files.STALE_SECONDS + 60) == "mine"


def test_a_file_system_without_locks_goes_by_touches(started: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(38, "Function not implemented")

    monkeypatch.setattr("fcntl.flock", refuse)
    first, second = started(), started()
    assert (first.take("a").state, second.take("a").state, first.trouble) == ("mine", "others", "")


def test_without_hard_links_every_video_is_mine(started: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(1, "Operation not permitted")

    monkeypatch.setattr(claims.os, "link", refuse)
    first, second = started(), started()
    assert (first.take("a"), second.take("a")) == (claims.MINE, claims.MINE)
    assert first.trouble == "Operation not permitted"
    first.__exit__(None, None, None)


def test_nothing_is_written_where_nothing_is_taken(started: Callable[[], Claims], opened: Callable[[], FeatureStore]) -> None:
    started().__exit__(None, None, None)
    assert names(opened()) == []


def test_a_death_after_the_video_was_finished_is_none_and_frees_it(
    started: Callable[[], Claims], opened: Callable[[], FeatureStore]
) -> None:
    first, second, store = started(), started(), opened()
    assert {first.take(name).state for name in "ab"} == {"mine"}
    first.finish("a")
    assert second.take("a").state == "others"
    kill(first)
    assert (second.take("a"), len(second.take("b").deaths)) == (claims.MINE, 1)
    second.finish("b")
    publish(store, second, "a", "b")
    second.__exit__(None, None, None)
    assert names(store) == []


def test_a_finished_video_whose_features_are_refused_is_given_back(
    started: Callable[[], Claims], opened: Callable[[], FeatureStore]
) -> None:
    first = started()
    first.take("a")
    first.finish("a")
    first.give_back("a")
    first.finish("a")
    assert started().take("a") == claims.MINE


@pytest.mark.parametrize("error", [StoreError("no answer"), OSError(errno.EIO, "Input/output error")])
def test_a_disk_that_hesitates_during_a_look_costs_no_claim_and_no_death(
    started: Callable[[], Claims], error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse() -> None:
        raise error

    first = started()
    monkeypatch.setattr(first._store, "refresh", refuse)
    assert (first.take("a"), first.trouble) == (claims.MINE, "")
    assert started().take("a").state == "others"
    first.__exit__(None, None, None)
    assert started().take("a") == claims.MINE


def test_a_passing_error_costs_one_claim(started: Callable[[], Claims], monkeypatch: pytest.MonkeyPatch) -> None:
    first, link = started(), os.link

    def refuse(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(claims.os, "link", refuse)
    assert (first.take("a"), first.trouble) == (claims.MINE, "")
    monkeypatch.setattr(claims.os, "link", link)
    assert first.take("b") == claims.MINE
    assert [started().take(name).state for name in "ab"] == ["mine", "others"]


def test_a_file_that_another_machine_has_removed_is_gone(
    started: Callable[[], Claims], opened: Callable[[], FeatureStore], monkeypatch: pytest.MonkeyPatch
) -> None:
    def stale(descriptor: int) -> None:
        raise OSError(errno.ESTALE, "Stale file handle")

    first = started()
    first.take("a")
    path = first._folder / claim_files.name_of("a")
    with monkeypatch.context() as patched:
        patched.setattr(claim_files.os, "fstat", stale)
        found = claim_files.look(path, 0.0), claim_files.is_same_file(path, first._descriptor)
    assert found == (None, False)


def test_a_locked_claim_of_this_machine_lives_however_old(started: Callable[[], Claims]) -> None:
    first, second = started(), started()
    first.take("a")
    path = first._folder / claim_files.name_of("a")
    found = claim_files.look(path, path.stat().st_mtime + 10 * claim_files.GONE_SECONDS)
    assert found
    with found:
        assert found.alive
    assert second.take("a").state == "others"


def test_what_a_process_had_not_finished_making_is_swept(started: Callable[[], Claims], opened: Callable[[], FeatureStore]) -> None:
    first, store = started(), opened()
    first.take("a")
    old, new = (store.path / "claims" / f".owner-{name}.partial" for name in ("old", "new"))
    for path in (old, new):
        path.write_text("{}")
    os.utime(old, (1, 1))
    first.__exit__(None, None, None)
    assert names(store) == [new.name]
