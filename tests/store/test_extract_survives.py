"""`actioncache extract` on disks that fill up, turn read-only or vanish, and stopped by signals: the exit code, the words, the store."""

import importlib
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest

import cli
from store import FeatureStore
from store.diff import diff
from store.video_list import Video, VideoList
from store.videos import write_csv
from store.writer import FeatureWriter

VIDEOS = 6


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    code: int
    stdout: str
    stderr: str


class Extract:
    """The command in a fork of this process, begun at once; ``prepare`` runs in the fork before it."""

    def __init__(self, videos: Path, out: Path, *arguments: str, prepare: Callable[[], object] = lambda: None) -> None:
        self.files = [videos.with_name(f"{os.urandom(4).hex()}.{name}") for name in ("stdout", "stderr")]
        words = ["extract", str(videos), "--preset", "tiny", "--weights", "random:0", "--workers", "1", "--out", str(out), *arguments]
        self.process = os.fork()
        if not self.process:
            self._run(words, prepare)

    def _run(self, words: list[str], prepare: Callable[[], object]) -> None:
        code = 99
        try:
            sys.stdout, sys.stderr = (file.open("w") for file in self.files)
            sys.argv = ["actioncache", *words]
            prepare()
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def wait(self) -> Ended:
        """Let it come to its end."""
        _, status = os.waitpid(self.process, 0)
        return Ended(os.waitstatus_to_exitcode(status), *(file.read_text() for file in self.files))


def extract(videos: Path, out: Path, *arguments: str, prepare: Callable[[], object] = lambda: None) -> Ended:
    return Extract(videos, out, *arguments, prepare=prepare).wait()


def after_adding(count: int, act: Callable[[], object]) -> Callable[[], None]:
    """Make a command do ``act`` once ``count`` videos have been added to the store."""

    def prepare() -> None:
        add = FeatureWriter.add
        left = count

        def counted(self: FeatureWriter, *arguments: object) -> None:
            nonlocal left
            add(self, *arguments)  # type: ignore[arg-type]
            left -= 1
            if left == 0:
                act()

        FeatureWriter.add = counted  # type: ignore[method-assign,assignment]

    return prepare


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> Path:
    """A list of short real videos."""
    folder, random = tmp_path_factory.mktemp("videos"), np.random.default_rng(0)
    made = []
    for number in range(VIDEOS):
        path = encode_video(folder / f"{number}.mp4", random.integers(0, 255, (10, 32, 40, 3), np.uint8))
        made.append(Video(path.name, path))
    write_csv(VideoList(tuple(made), ()), folder / "list.csv")
    return folder / "list.csv"


@pytest.fixture(scope="module")
def whole(videos: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The store of an undisturbed run."""
    importlib.import_module("extract.prepare")  # once, and not in each fork
    out = tmp_path_factory.mktemp("whole") / "features"
    ended = extract(videos, out)
    assert ended.code == 0, ended.stderr
    return opened(out)


def opened(out: Path) -> FeatureStore:
    (path,) = out.glob("tiny-*")
    return FeatureStore.open(path)


def assert_whole(out: Path, whole: FeatureStore) -> None:
    found = diff(opened(out), whole)
    assert (found.identical, found.same) == (VIDEOS, True)
    assert opened(out).verify(deep=True) == []


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 1 MB, mounted; skips where that is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(folder)], capture_output=True, check=False)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small disk here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def remount(folder: Path, options: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{options}", str(folder)], check=True)


def fill(disk: Path) -> None:
    """Leave no room on a disk, in the file ``other``."""
    with (disk / "other").open("wb", buffering=0) as other, suppress(OSError):
        while True:
            other.write(bytes(1024))


def send(name: str) -> None:
    """Send the command a signal and wait until it has said something about it; its main thread may be another one."""
    told, echo = threading.Event(), click.echo

    def heard(*arguments: Any, **options: Any) -> None:
        echo(*arguments, **options)
        told.set()

    click.echo = heard
    os.kill(os.getpid(), signal.Signals[name])
    assert told.wait(60)


@pytest.mark.parametrize("name", ["SIGTERM", "SIGINT", "SIGUSR1"])
def test_a_signal_publishes_what_is_complete_and_ends_with_3(videos: Path, whole: FeatureStore, tmp_path: Path, name: str) -> None:
    out = tmp_path / "features"
    ended = extract(videos, out, "--publish-seconds", "1000", prepare=after_adding(2, lambda: send(name)))
    assert ended.code == 3, ended.stderr
    assert f"{name}: publishing what is complete, then stopping" in ended.stderr
    store = opened(out)
    done = len(store)
    assert 2 <= done < VIDEOS
    words = f"interrupted with {VIDEOS - done} of 6 videos left; all finished ones are in {store.path}; run the command again"
    assert words in ended.stderr
    assert store.verify(deep=True) == []
    assert store.failures() == {}
    again = extract(videos, out)
    assert (again.code, f"{VIDEOS - done} done, {done} were there already, 0 failed, of 6" in again.stdout) == (0, True)
    assert_whole(out, whole)


def test_ctrl_c_after_a_signal_ends_at_once_and_loses_only_what_was_in_memory(videos: Path, whole: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "features"

    def twice() -> None:
        send("SIGTERM")
        os.kill(os.getpid(), signal.SIGTERM)  # batch systems do that
        os.kill(os.getpid(), signal.SIGUSR1)
        os.kill(os.getpid(), signal.SIGINT)
        signal.pause()

    ended = extract(videos, out, "--publish-seconds", "0", prepare=after_adding(2, twice))
    assert ended.code == -signal.SIGINT
    assert len(opened(out)) >= 1
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


def test_a_full_disk_ends_with_2_and_the_same_command_goes_on(videos: Path, whole: FeatureStore, small_disk: Path) -> None:
    out = small_disk / "features"
    ended = extract(videos, out, "--publish-seconds", "0", prepare=after_adding(2, lambda: fill(small_disk)))
    assert ended.code == 2, ended.stderr
    assert "shards: the disk is full; make room and run the command again (1 finished videos wait in memory)" in ended.stderr
    assert "Traceback" not in ended.stderr
    store = opened(out)
    assert store.verify(deep=True) == []
    assert [path.name for path in (store.path / "shards").iterdir() if path.name.endswith(".partial")] == []
    assert len(store) == 2
    (small_disk / "other").unlink()
    again = extract(videos, out)
    assert (again.code, "4 done, 2 were there already" in again.stdout) == (0, True)
    assert_whole(out, whole)


def test_a_disk_full_from_the_start_makes_no_half_store(videos: Path, whole: FeatureStore, small_disk: Path) -> None:
    fill(small_disk)
    ended = extract(videos, small_disk / "features")
    assert ended.code == 2
    assert f"cannot make a feature store at {small_disk / 'features'}" in ended.stderr
    assert "No space left on device" in ended.stderr
    assert list(small_disk.glob("features/*/spec.json")) == []
    (small_disk / "other").unlink()
    assert extract(videos, small_disk / "features").code == 0
    assert_whole(small_disk / "features", whole)


def test_a_limit_on_the_size_of_files_is_like_a_full_disk(videos: Path, whole: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "features"
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    limited = after_adding(1, lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (3000, limit)))
    ended = extract(videos, out, "--publish-seconds", "1000", prepare=limited)
    assert ended.code == 2, ended.stderr
    assert "shards: File too large (6 finished videos wait in memory)" in ended.stderr
    assert len(opened(out)) == 0
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


def test_a_read_only_disk_is_told(videos: Path, whole: FeatureStore, small_disk: Path) -> None:
    out = small_disk / "features"
    assert extract(videos, out).code == 0
    shutil.rmtree(opened(out).path / "shards")
    remount(small_disk, "ro")
    ended = extract(videos, out)
    assert ended.code == 2
    assert "shards: the file system is read-only (" in ended.stderr
    other = extract(videos, small_disk / "elsewhere")
    assert other.code == 2
    assert f"cannot make a feature store at {small_disk / 'elsewhere'}" in other.stderr
    assert "Read-only file system" in other.stderr
    remount(small_disk, "rw")
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


def test_a_complete_store_on_a_read_only_disk_has_nothing_to_do(videos: Path, whole: FeatureStore, small_disk: Path) -> None:
    shutil.copytree(whole.path, small_disk / "features" / whole.path.name)
    remount(small_disk, "ro")
    ended = extract(videos, small_disk / "features")
    assert (ended.code, "0 done, 6 were there already" in ended.stdout) == (0, True), ended.stderr


def test_a_disk_that_turns_read_only_midway(videos: Path, whole: FeatureStore, small_disk: Path) -> None:
    out = small_disk / "features"
    ended = extract(videos, out, "--publish-seconds", "0", prepare=after_adding(2, lambda: remount(small_disk, "ro")))
    assert ended.code == 2
    assert "shards: the file system is read-only (1 finished videos wait in memory)" in ended.stderr
    assert len(opened(out)) == 2
    remount(small_disk, "rw")
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_a_store_that_vanishes_midway_is_not_made_anew(videos: Path, whole: FeatureStore, tmp_path: Path, seconds: str) -> None:
    out, away = tmp_path / "features", tmp_path / "away"
    ended = extract(videos, out, "--publish-seconds", seconds, prepare=after_adding(2, lambda: out.rename(away)))
    assert ended.code == 2, ended.stderr
    assert f"error: {out / whole.path.name} has vanished (unmounted? deleted?); bring it back and run the command again" in ended.stderr
    assert not out.exists()
    away.rename(out)
    assert len(opened(out)) == (2 if seconds == "0" else 0)
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


def test_shards_that_vanish_midway_are_done_again_by_the_next_run(videos: Path, whole: FeatureStore, tmp_path: Path) -> None:
    out = tmp_path / "features"

    def remove() -> None:
        shutil.rmtree(opened(out).path / "shards")

    ended = extract(videos, out, "--publish-seconds", "0", prepare=after_adding(2, remove))
    assert ended.code == 0, ended.stderr
    assert len(opened(out)) == VIDEOS - 2
    assert extract(videos, out).code == 0
    assert_whole(out, whole)


@pytest.mark.parametrize("seconds", ["0", "1000"])
def test_two_jobs_given_the_same_list_at_once_do_every_video_once(videos: Path, whole: FeatureStore, tmp_path: Path, seconds: str) -> None:
    out = tmp_path / "features"
    jobs = [Extract(videos, out, "--publish-seconds", seconds) for _ in range(2)]
    ended = [job.wait() for job in jobs]
    assert [job.code for job in ended] == [0, 0], ended
    assert all("0 failed, of 6" in job.stdout for job in ended)
    assert sum(int(job.stdout.splitlines()[1].split()[0]) for job in ended) == VIDEOS, ended
    assert_whole(out, whole)
    assert sorted(opened(out).ids()) == sorted(whole.ids())
    assert not (opened(out).path / "claims").exists()


def killed_by(video_id: str) -> Callable[[], None]:
    """Make a command's process be killed when it has the features of this video, as by a full memory."""

    def prepare() -> None:
        add = FeatureWriter.add

        def deadly(self: FeatureWriter, key: str, *arguments: object) -> None:
            add(self, key, *arguments)  # type: ignore[arg-type]
            if key == video_id:
                os.kill(os.getpid(), signal.SIGKILL)

        FeatureWriter.add = deadly  # type: ignore[method-assign,assignment]

    return prepare


def test_a_video_that_kills_every_job_becomes_a_failure_and_its_neighbours_do_not(videos: Path, tmp_path: Path) -> None:
    out = tmp_path / "features"
    for _ in range(2):
        assert extract(videos, out, "--job-tries", "2", prepare=killed_by("3.mp4")).code == -signal.SIGKILL
    ended = extract(videos, out, "--job-tries", "2", prepare=killed_by("3.mp4"))
    assert ended.code == 1, ended.stderr
    store = opened(out)
    assert sorted(store.ids()) == [f"{number}.mp4" for number in range(VIDEOS) if number != 3]
    assert "failed 3.mp4 [job]: 2 jobs were killed while at it, the last (process " in ended.stdout
    assert list(opened(out).failures()) == ["3.mp4"]
    assert not (store.path / "claims").exists()
    assert extract(videos, out, "--retry-failed").code == 0  # the tries begin anew


def test_what_was_finished_before_a_kill_is_no_suspect_and_suspects_share_a_pool_and_a_shard(
    videos: Path, whole: FeatureStore, tmp_path: Path
) -> None:
    out = tmp_path / "features"

    def die() -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert extract(videos, out, "--publish-seconds", "1000", "--workers", "2", prepare=after_adding(4, die)).code == -signal.SIGKILL
    assert 1 <= len(list((opened(out).path / "claims").glob("*.died*"))) + len(suspects(out)) <= 3
    ended = extract(videos, out, "--publish-seconds", "1000", "--workers", "2")
    assert ended.code == 0, ended.stderr
    assert len(opened(out).shards) <= 2  # of the others, and of all suspects
    assert_whole(out, whole)


def suspects(out: Path) -> list[Path]:
    """Claims that the death of their process will count of."""
    found = []
    for path in (opened(out).path / "claims").iterdir():
        if "-" not in path.name and 'finished": true' not in path.read_text():
            found.append(path)
    return found


@pytest.mark.parametrize("locking", ["FALSE", "TRUE"])
def test_hdf5_locks_change_nothing(videos: Path, whole: FeatureStore, tmp_path: Path, locking: str) -> None:
    out = tmp_path / "features"
    ended = extract(videos, out, prepare=lambda: os.environ.update(HDF5_USE_FILE_LOCKING=locking))
    assert ended.code == 0, ended.stderr
    assert_whole(out, whole)
