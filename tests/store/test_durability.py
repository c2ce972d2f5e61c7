"""Killed, refused and interrupted writers: complete shards only, nothing published is lost, the same work goes on."""

import errno
import functools
import multiprocessing
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from store import FeatureStore, StoreError
from store.testing import SPEC, kill_everywhere, killed_at, same, sample

FORK = multiprocessing.get_context("fork")
VIDEOS = sample(videos=12)


def write(store: FeatureStore, ids: list[str], part: str = "main") -> None:
    with store.writer(part) as writer:
        for video_id in store.missing(ids):
            writer.add(video_id, VIDEOS[video_id])


def check(path: Path, at_least: list[str]) -> FeatureStore:
    """A store that opens, is sound, holds at least these videos, and nothing wrong."""
    store = FeatureStore.open(path, SPEC)
    assert store.verify(deep=True) == []
    assert store.missing(at_least) == []
    assert all(same(store.get(video_id), VIDEOS[video_id]) for video_id in store.ids())
    return store


def in_child(work: Callable[[], object]) -> int | None:
    child = FORK.Process(target=work)
    child.start()
    child.join(60)
    return child.exitcode


def strides(at_length: int) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("stride", [0, pytest.param(at_length, marks=pytest.mark.slow)])


@strides(1)
def test_sigkill_at_each_step_of_a_publish_loses_nothing(tmp_path: Path, stride: int) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)
    write(store, ids[:4])

    def resumed(path: Path) -> None:
        write(check(path, ids[:4]), ids)
        check(path, ids)

    kills = kill_everywhere(store.path, lambda store: write(store, ids[:6]), resumed, stride)
    assert kills >= 6


@strides(7)
def test_sigkill_at_each_step_of_a_compaction_loses_nothing(tmp_path: Path, stride: int) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)
    for number in range(0, 12, 4):
        write(store, ids[: number + 4], f"part{number}")

    def compacted(path: Path) -> None:
        check(path, ids).compact()
        assert len(check(path, ids).shards) == 1

    kills = kill_everywhere(store.path, FeatureStore.compact, compacted, stride)
    assert kills >= 8


@strides(7)
def test_sigkill_at_each_step_of_a_repair_loses_only_what_was_damaged(tmp_path: Path, stride: int) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)
    write(store, ids)
    (shard,) = store.shards
    with shard.path.open("r+b") as file:
        file.seek(shard.structure.values["high"].offset)
        file.write(b"\xff\xff")

    def good_ones_are_there(path: Path) -> None:
        found = FeatureStore.open(path)
        assert found.missing(ids[1:]) == []
        assert all(same(found.get(video_id), VIDEOS[video_id]) for video_id in ids[1:])
        found.repair()
        assert check(path, ids[1:]).missing(ids) == ids[:1]

    kills = kill_everywhere(store.path, FeatureStore.repair, good_ones_are_there, stride)
    assert kills >= 8


def test_creating_a_store_may_be_killed_too(tmp_path: Path) -> None:
    kills = 0
    while killed_at(1 + kills, functools.partial(FeatureStore.create, tmp_path / str(kills), "x", SPEC)):
        assert len(FeatureStore.create(tmp_path / str(kills), "x", SPEC)) == 0
        kills += 1
    assert kills >= 5


def test_partial_files_of_dead_writers_are_ignored_and_removed_when_old(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)
    write(store, list(VIDEOS)[:2])
    old, new = (store.path / "shards" / f".main-00000{n}-00000000.h5.0000.partial" for n in (1, 2))
    for file in (old, new):
        file.write_bytes(b"half")
    os.utime(old, (0, 0))
    assert check(store.path, []).info()["partial_files"] == 2
    assert store.repair().partials == 1
    assert (old.exists(), new.exists()) == (False, True)
    os.utime(new, (0, 0))
    assert store.compact().partials == 1


REFUSALS = [
    (errno.ENOSPC, "the disk is full; make room and run the command again"),
    (errno.EROFS, "the file system is read-only"),
    (errno.EDQUOT, "quota"),
    (errno.EIO, "Input/output error"),
]


@pytest.mark.parametrize(("code", "words"), REFUSALS)
@pytest.mark.parametrize("call", ["writev", "fsync", "replace", "open"])
def test_a_disk_that_refuses_is_named_and_nothing_is_torn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str, code: int, words: str
) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)
    write(store, ids[:2])
    writer = store.writer()
    for video_id in ids[2:5]:
        writer.add(video_id, VIDEOS[video_id])

    def refuse(*arguments: object, **options: object) -> None:
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        owner = Path if call in ("replace", "open") else os
        patch.setattr(owner, call, refuse)
        with pytest.raises(StoreError, match=rf"cannot write to .*shards: .*{words}.*\(3 finished videos wait in memory\)"):
            writer.publish()
    assert [path.name for path in (store.path / "shards").iterdir() if path.name.endswith(".partial")] == []
    assert len(check(store.path, ids[:2])) == 2
    writer.publish()
    check(store.path, ids[:5])


@pytest.mark.parametrize(("code", "words"), REFUSALS)
def test_a_failure_that_cannot_be_recorded_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: str) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)

    def refuse(*arguments: object) -> int:
        raise OSError(code, os.strerror(code))

    writer = store.writer()
    monkeypatch.setattr(os, "write", refuse)
    with pytest.raises(StoreError, match=rf"failures: .*{words}.*the failure of 'v' is not recorded"):
        writer.fail("v", "decode", "no frame")


def test_a_real_limit_on_file_size_is_survived(tmp_path: Path) -> None:
    """The kernel refuses in the middle of the file, as a full disk does."""
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)
    write(store, ids[:2])

    def work() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limits[1]))
        writer = store.writer()
        for video_id in ids[2:]:
            writer.add(video_id, VIDEOS[video_id])
        try:
            writer.publish()
        except StoreError as error:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
            if "File too large" in str(error) and len(check(store.path, ids[:2])) == 2:
                writer.publish()
                os._exit(7)

    assert in_child(work) == 7
    check(store.path, ids)


def test_a_folder_without_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # whose parents others may not enter
    tmp_path.chmod(0o755)
    store = FeatureStore.create(Path(), "x", SPEC)
    (store.path / "shards").chmod(0o555)

    def work() -> None:
        if os.geteuid() == 0:  # who may write everywhere
            os.seteuid(65534)
        with pytest.raises(StoreError, match=r"cannot write to .*shards: no permission to write there"):
            write(store, ["a"])

    assert in_child(work) == 0


def test_a_vanished_store_is_not_made_anew(tmp_path: Path) -> None:
    store, away = FeatureStore.create(tmp_path, "x", SPEC), tmp_path / "away"
    writer = store.writer()
    writer.add("a", VIDEOS["a"])
    store.path.rename(away)
    with pytest.raises(StoreError, match=r"has vanished \(unmounted\? deleted\?\); bring it back and run the command again"):
        writer.publish()
    with pytest.raises(StoreError, match="has vanished"):
        writer.fail("b", "decode", "x")
    assert not store.path.exists()
    away.rename(store.path)
    writer.publish()
    check(store.path, ["a"])


def test_leaving_by_an_error_while_the_disk_refuses_tells_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = FeatureStore.create(tmp_path, "x", SPEC)

    def refuse(*arguments: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr(os, "writev", refuse)
    with pytest.raises(ZeroDivisionError) as caught, store.writer() as writer:
        writer.add("a", VIDEOS["a"])
        raise ZeroDivisionError
    assert "1 finished videos could not be published: cannot write to" in caught.value.__notes__[0]


def test_sigterm_publishes_what_is_complete(tmp_path: Path) -> None:
    """The pattern of the command line: a handler that raises, a writer that publishes on the way out."""
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)

    def work() -> None:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(3))
        with store.writer() as writer:
            for video_id in ids[:3]:
                writer.add(video_id, VIDEOS[video_id])
            os.kill(os.getpid(), signal.SIGTERM)
            writer.add(ids[3], VIDEOS[ids[3]])

    assert in_child(work) == 3
    assert check(store.path, ids[:3]).missing(ids[:4]) == ids[3:4]


@pytest.mark.parametrize("error", [StoreError("the folder cannot be read"), OSError(errno.ESTALE, "Stale file handle")])
def test_a_look_at_the_folder_that_fails_costs_no_finished_video(tmp_path: Path, error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)[:2]
    look = store.refresh
    looks = [error]
    monkeypatch.setattr(store, "refresh", lambda: look() if not looks else _raise(looks.pop()))
    with store.writer("main", once=True) as writer:
        for video_id in ids:
            writer.add(video_id, VIDEOS[video_id])
    check(store.path, ids)


def test_an_interruption_while_looking_at_the_folder_keeps_what_waits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store, ids = FeatureStore.create(tmp_path, "x", SPEC), list(VIDEOS)[:2]
    look, looks = store.refresh, [KeyboardInterrupt()]
    monkeypatch.setattr(store, "refresh", lambda: look() if not looks else _raise(looks.pop()))
    writer = store.writer("main", once=True)
    for video_id in ids:
        writer.add(video_id, VIDEOS[video_id])
    with pytest.raises(KeyboardInterrupt):
        writer.publish()
    assert writer.pending == 2
    writer.publish()
    check(store.path, ids)


def _raise(error: BaseException) -> None:
    raise error
