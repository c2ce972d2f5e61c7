"""Batch jobs on a real Slurm: tasks killed, cancelled, requeued and told that their time is up, videos that crash and hang the decoder.

The decoder's crash and hang are real ones of the decoding process, and the kill is one of the job's; a ``sitecustomize`` that only these
tests' processes load brings them about for three files.
"""

import json
import os
import re
import runpy
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.features import FeatureStore
from store.videos import read_list

pytestmark = pytest.mark.slurm
REPOSITORY = Path(__file__).resolve().parents[2]
PARTS, VIDEOS = 8, 208
SETTINGS = ["--backbone", "tiny", "--weights", "random:0", "--device", "cpu", "--workers", "1", "--timeout-seconds", "6"]
SETTINGS += ["--crops.count", "10", "--crops.size", "56", "--crops.resize", "64", "--publish-seconds", "0"]

SITE = """
import os, signal, sys, time
if "extract" in sys.argv or "spawn_main" in " ".join(sys.orig_argv):
    import av
    real = av.open
    def opened(file, *arguments, **options):
        if "crashes" in str(file):
            os.kill(os.getpid(), signal.SIGSEGV)
        if "hangs" in str(file):
            time.sleep(10**6)
        if "kills" in str(file) and b"jobs" not in open(f"/proc/{os.getppid()}/cmdline", "rb").read().split(b"\\0"):
            os.kill(os.getppid(), signal.SIGKILL)  # of a task, not of what plans it
            time.sleep(10**6)
        return real(file, *arguments, **options)
    av.open = opened
"""


class Cluster:
    """The commands of this checkout with Slurm's environment."""

    def __init__(self, slurm: Any, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder
        site = folder / "site"
        site.mkdir()
        (site / "sitecustomize.py").write_text(SITE)
        self.environment = {**slurm.environment, "PYTHONPATH": f"{site}:{REPOSITORY}", "OMP_NUM_THREADS": "1"}

    def command(self, *arguments: object, codes: tuple[int, ...] = (0,)) -> str:
        """Run ``actioncache ARGUMENTS``; its stdout."""
        words = [sys.executable, str(REPOSITORY / "cli.py"), *map(str, arguments)]
        ended = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode in codes, f"{words[2:]} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}\n{self.slurm.logs()}"
        return ended.stdout

    def sbatch(self, *arguments: str) -> None:
        """Submit by hand."""
        words = ["sbatch", *arguments]
        ended = subprocess.run(words, cwd=self.folder, env=self.environment, capture_output=True, text=True, check=False)
        assert ended.returncode == 0, ended.stderr

    def tasks(self) -> list[list[str]]:
        """[job id with task, state] of every task that Slurm knows."""
        lines = self.slurm.run("squeue", "--states", "all", "--array", "-h", "-o", "%i|%T").splitlines()
        return [line.split("|") for line in lines]

    def state(self, task: str) -> str:
        return next((state for name, state in self.tasks() if name == task), "")

    def ended(self) -> bool:
        """Whether no task runs or waits; a queue that does not answer says nothing."""
        return bool(tasks := self.tasks()) and not any(
            state in ("PENDING", "RUNNING", "COMPLETING", "REQUEUED", "CONFIGURING") for _, state in tasks
        )

    def process(self, part: str) -> int:
        """The process that extracts one part."""
        for place in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                words = place.read_bytes().decode(errors="replace").split("\0")
            except OSError:
                continue
            if part in words and "extract" in words and any(word.endswith("cli.py") for word in words):
                return int(place.parent.name)
        raise AssertionError(f"no process extracts part {part}\n{self.slurm.logs()}")


@pytest.fixture
def cluster(slurm: Any, tmp_path: Path) -> Cluster:
    return Cluster(slurm, tmp_path)


@pytest.fixture(scope="session")
def real_videos(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 208 short real videos, 40 files under several names each, with one that crashes and one that hangs the decoder."""
    folder = tmp_path_factory.mktemp("videos")
    try:
        found = sorted((request.getfixturevalue("shared_data") / "videos" / "ut_interaction" / "set1").glob("*.avi"))
    except pytest.skip.Exception:  # these tests are never skipped for want of data: encoded ones of our own do
        make = runpy.run_path(str(REPOSITORY / "examples" / "make_demo_videos.py"))["make_videos"]
        found = [video.path for video in read_list(make(tmp_path_factory.mktemp("demo"), train_groups=4, test_groups=1))]
    small = sorted(found, key=lambda path: path.stat().st_size)[:40]
    for number in range(VIDEOS):
        name = {77: "crashes", 133: "hangs"}.get(number, "video")
        shutil.copyfile(small[number % len(small)], folder / f"{number:03d}_{name}{small[0].suffix}")
    write_list(folder / "all.txt", sorted(folder.glob(f"*{small[0].suffix}")))
    return folder


@pytest.fixture(scope="session")
def one_process(real_videos: Path, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    """The features of all good videos, made by one process without Slurm."""
    out = tmp_path_factory.mktemp("single")
    good = write_list(out / "good.txt", sorted(real_videos.glob("*_video.*")))
    words = ["extract", str(good), "--root", str(real_videos), *SETTINGS, "--out", str(out / "features")]
    subprocess.run([sys.executable, str(REPOSITORY / "cli.py"), *words], check=True, capture_output=True)
    (path,) = (out / "features").iterdir()
    return FeatureStore.open(path)


def assert_equal(store: FeatureStore, whole: FeatureStore) -> None:
    """Array by array, and nothing else in it."""
    assert sorted(store.ids()) == sorted(whole.ids())
    for video_id in whole.ids():
        ours, theirs = store.get(video_id), whole.get(video_id)
        assert np.array_equal(ours.frames, theirs.frames), video_id
        assert np.array_equal(ours.times, theirs.times), video_id
        assert ours.values.keys() == theirs.values.keys()
        for level, values in ours.values.items():
            assert np.array_equal(values, theirs.values[level]), (video_id, level)


def write_list(path: Path, videos: Sequence[Path]) -> Path:
    """A list of some of the real videos, to be read with their folder as root."""
    path.write_text("".join(f"{video.name}\n" for video in videos))
    return path


def store_of(folder: Path) -> Path:
    (path,) = (folder / "features").iterdir()
    return path


def test_an_array_that_everything_happens_to_ends_complete(cluster: Cluster, real_videos: Path, one_process: FeatureStore) -> None:
    slurm = cluster.slurm
    flags = [str(real_videos / "all.txt"), *SETTINGS, "--parts", PARTS, "--no-time-here", "--gpus", "0", "--cpus", "1", "--time", "60"]
    said = cluster.command("jobs", "submit", *flags)
    job = said.split()[2]
    assert f"submitted job {job} with {PARTS} tasks" in said
    store = store_of(cluster.folder)

    def begun(index: int) -> bool:
        return any((store / "shards").glob(f"{index + 1}of{PARTS}-*.h5"))

    slurm.wait(lambda: begun(0), "the first task's first shard")
    os.kill(cluster.process(f"1/{PARTS}"), signal.SIGKILL)
    slurm.wait(lambda: begun(1), "the second task's first shard")
    slurm.run("scancel", f"{job}_1")
    slurm.wait(lambda: begun(2), "the third task's first shard")
    slurm.run("scontrol", "requeue", f"{job}_2")
    slurm.wait(lambda: begun(3), "the fourth task's first shard")
    slurm.run("scancel", "--signal=USR1", f"{job}_3")  # as Slurm does before the time limit
    slurm.wait(cluster.ended, "the end of all tasks", 300)
    assert cluster.state(f"{job}_1") == "CANCELLED"
    seen = json.loads(cluster.command("jobs", "status", real_videos / "all.txt", "--store", store, "--json", codes=(3,)))
    assert seen["done"] + len(seen["failed"]) + len(seen["outstanding"]) == VIDEOS
    assert 0 < len(seen["outstanding"]) <= 2 * VIDEOS / PARTS  # of the killed and of the cancelled task
    log = (store / "jobs" / "logs" / f"{job}_3_0_log.out").read_text()
    assert "SIGUSR1: publishing what is complete, then stopping" in log
    assert "Requeued job" in log or "was there already" in log

    cluster.command("jobs", "retry", store, "--parts", "2")
    slurm.wait(cluster.ended, "the end of what was tried again", 300)
    seen = json.loads(cluster.command("jobs", "status", real_videos / "all.txt", "--store", store, "--json", codes=(1,)))
    assert (seen["done"], seen["outstanding"], seen["running"], seen["pending"]) == (VIDEOS - 2, [], 0, 0)
    crashes, hangs = sorted(seen["failed"])
    assert (Path(crashes).stem, Path(hangs).stem) == ("077_crashes", "133_hangs")
    assert seen["failed"][crashes][0] == "crash"
    assert "died 2 times on this video, last with SIGSEGV" in seen["failed"][crashes][1]
    assert seen["failed"][hangs] == ["hang", "the decoder gave nothing for 6 s and was stopped"]
    assert_equal(FeatureStore.open(store), one_process)
    assert FeatureStore.open(store).verify(deep=True) == []
    assert "nothing is outstanding" in cluster.command("jobs", "retry", store)


def test_two_streams_submitted_twice_fill_two_stores_once(cluster: Cluster, real_videos: Path, one_process: FeatureStore) -> None:
    slurm = cluster.slurm
    good = write_list(cluster.folder / "good.txt", sorted(real_videos.glob("*_video.*"))[:40])
    flags = [str(good), "--root", str(real_videos), *SETTINGS, "--and-config", str(cluster.folder / "whole.toml"), "--and-name", "whole"]
    (cluster.folder / "whole.toml").write_text('[clips]\nrule = "spread"\nlength = 4\n')
    flags += ["--no-time-here", "--gpus", "0", "--cpus", "1", "--parts", "2"]
    cluster.command("jobs", "submit", *flags)
    again = cluster.command("jobs", "submit", *flags)
    assert "nothing is outstanding that is not in the queue already" in again
    stores = [next((cluster.folder / "features").glob(f"{name}-*")) for name in ("custom", "whole")]
    asked = ["jobs", "status", good, "--root", real_videos, "--store", stores[1], "--json"]  # the one whose name the jobs do not have
    seen = json.loads(cluster.command(*asked, codes=(0, 3)))  # 0 where all is done already, though tasks still run
    assert [each["store"] for each in seen] == list(map(str, stores))
    assert {each["done"] + len(each["outstanding"]) for each in seen} == {40}
    assert seen[1]["running"] + seen[1]["pending"] == 2
    slurm.wait(cluster.ended, "the end of all tasks", 300)
    assert [each["done"] for each in json.loads(cluster.command(*asked))] == [40, 40]
    for path in stores:
        store = FeatureStore.open(path)
        rows = [video_id for shard in store.shards for video_id in shard.ids]
        assert len(rows) == len(set(rows)) == 40
    first = FeatureStore.open(stores[0])
    assert all(np.array_equal(first.get(key).values["block3"], one_process.get(key).values["block3"]) for key in first.ids())


def test_a_printed_script_works_without_submitit_and_a_video_that_kills_its_tasks_fails_in_the_end(
    cluster: Cluster, real_videos: Path
) -> None:
    slurm = cluster.slurm
    videos = sorted(real_videos.glob("*_video.*"))[:10]
    kills = real_videos / f"kills{videos[0].suffix}"
    shutil.copyfile(videos[0], kills)
    mixed = write_list(cluster.folder / "mixed.txt", [*videos, kills])
    flags = [str(mixed), "--root", str(real_videos), *SETTINGS, "--job-tries", "2", "--no-time-here", "--gpus", "0", "--cpus", "1"]
    script = cluster.folder / "array.sh"
    script.write_text(cluster.command("jobs", "submit", *flags, "--parts", "2", "--print"))
    status = ["jobs", "status", mixed, "--root", real_videos, "--store", store_of(cluster.folder), "--json"]
    for round_ in range(3):  # the second time it is done last and alone, the third time not at all
        cluster.sbatch(str(script))
        slurm.wait(cluster.ended, "the end of all tasks", 200)
        seen = json.loads(cluster.command(*status, codes=(3,) if round_ < 2 else (1,)))
    assert (seen["done"], seen["outstanding"]) == (10, [])
    assert seen["failed"][kills.name][0] == "job"
    assert "2 jobs were killed while at it, the last (process " in seen["failed"][kills.name][1]


def test_a_bare_array_takes_its_parts_by_itself_and_a_job_of_the_whole_list_beside_it_only_the_rest(
    cluster: Cluster, real_videos: Path
) -> None:
    slurm = cluster.slurm
    good = write_list(cluster.folder / "good.txt", sorted(real_videos.glob("*_video.*"))[:30])
    line = " ".join([sys.executable, str(REPOSITORY / "cli.py"), "extract", str(good), "--root", str(real_videos), *SETTINGS])
    submitted = ["--cpus-per-task=1", f"--output={cluster.folder}/%a.log"]
    cluster.sbatch("--array=9", *submitted, f"--wrap={line} --part all")
    cluster.sbatch("--array=1-3", *submitted, f"--wrap={line}")
    slurm.wait(cluster.ended, "the end of all tasks", 200)
    said = [(cluster.folder / f"{index}.log").read_text() for index in (1, 2, 3, 9)]
    assert "note: part 2/3, as task 2 of a Slurm job array" in said[1]
    done = [int(re.findall(r"^(\d+) done, \d+ were there already, 0 failed", text, re.MULTILINE)[0]) for text in said]
    assert sum(done) == len(FeatureStore.open(store_of(cluster.folder))) == 30, done
