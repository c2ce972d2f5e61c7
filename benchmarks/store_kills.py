"""Is a store whole after SIGKILL at any moment? Random kills of `extract` and of its resumes, and one at each step of a publish.

The command runs in forks of this process, which has everything imported, so that a kill costs a second and not five; each fork leads a
process group of its own, with its decoding worker, and the whole group is killed. Every kill is followed by a fresh look at the store.
"""

import argparse
import importlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import numpy as np
from figures import report

import cli
from store.errors import StoreError
from store.features import FeatureStore
from store.testing import SPEC, Videos, kill_everywhere, same, sample

os.environ["OMP_NUM_THREADS"] = "1"  # forks inherit no threads
MAKE_VIDEOS = Path(__file__).resolve().parent.parent / "examples" / "make_demo_videos.py"
COMMAND = ["--preset", "tiny", "--weights", "random:0", "--workers", "1", "--publish-seconds", "0"]
FAULTS = ("stores not readable", "published videos lost", "videos different from an uninterrupted store's")
CALLS_APART = 13  # between two kills inside a publish, besides one at each system call


class Command:
    """`actioncache` with some arguments, in a fork of this process that leads its own process group."""

    def __init__(self, arguments: list[str], log: Path) -> None:
        self.code: int | None = None
        self.process = os.fork()
        if not self.process:
            os.setpgid(0, 0)
            self._run(arguments, log)
        os.setpgid(self.process, self.process)  # whoever comes first

    def _run(self, arguments: list[str], log: Path) -> None:
        code = 2
        try:
            descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            os.dup2(descriptor, 1)
            os.dup2(descriptor, 2)
            sys.modules["__main__"].__file__ = cli.__file__  # the decoding worker then loads what it loads under cli.py
            sys.argv = ["actioncache", *arguments]
            cli.main()
        except SystemExit as ended:
            code = int(ended.code or 0)
        finally:
            sys.stdout.flush()
            os._exit(code)

    def ended(self) -> bool:
        """Whether it is over; ``code`` then is its exit code."""
        if self.code is None:
            process, status = os.waitpid(self.process, os.WNOHANG)
            self.code = os.waitstatus_to_exitcode(status) if process else None
        return self.code is not None

    def wait(self) -> int:
        """Let it come to its end; returns the exit code."""
        if self.code is None:
            self.code = os.waitstatus_to_exitcode(os.waitpid(self.process, 0)[1])
        return self.code

    def kill(self) -> bool:
        """SIGKILL the whole group; False if the command had ended by itself."""
        if self.ended():
            return False
        os.killpg(self.process, signal.SIGKILL)
        return self.wait() == -signal.SIGKILL


class Trial:
    """Stores made by killed and resumed extractions of one list, each compared with ``truth``, the uninterrupted one's videos."""

    def __init__(self, folder: Path, videos: Path, rng: np.random.Generator) -> None:
        self.folder, self.videos, self.rng = folder, videos, rng
        self.log = folder / "log.txt"
        self.counts: Counter[str] = Counter()
        started = time.monotonic()
        run = self.start(folder / "uninterrupted")
        assert run.wait() == 0, self.log.read_text()
        self.life = time.monotonic() - started
        store = FeatureStore.open(next((folder / "uninterrupted").glob("*/spec.json")).parent)
        self.truth: Videos = {video_id: store.get(video_id) for video_id in store.ids()}

    def start(self, out: Path) -> Command:
        """Begin or resume the extraction."""
        return Command(["extract", str(self.videos), *COMMAND, "--out", str(out)], self.log)

    def one_store(self, kills: int) -> None:
        """Kill and resume one store until it is complete or ``kills`` kills have been made, then complete it."""
        out = self.folder / "killed"
        known: set[str] = set()
        killed = True
        while killed:
            run, before = self.start(out), shards(out)
            if self.counts["kills"] < kills:
                self._await_moment(run, out)
            else:
                run.wait()
            published = shards(out)
            killed = run.kill()
            self.counts["kills"] += killed
            self.counts["kills after a publish"] += killed and published > before
            self.counts["kills inside a publish"] += killed and any(out.glob("*/shards/.*.partial"))
            known = self.look(out, known, published)
        self.counts["runs that did not finish"] += run.code != 0
        self.counts[FAULTS[1]] += len(self.truth.keys() - known)
        self.counts["stores"] += 1
        shutil.rmtree(out)

    def _await_moment(self, run: Command, out: Path) -> None:
        """Wait for a random moment in the command's life, or for a change in the folder of shards, whatever comes with equal chances."""
        started, seconds = time.monotonic(), float(self.rng.uniform(0, self.life))
        aimed, changes, delay = self.rng.random() < 0.5, int(self.rng.integers(1, 40)), float(self.rng.uniform(0, 0.005))
        seen: object = None
        while not run.ended():
            if not aimed and time.monotonic() - started >= seconds:
                return
            names = {path.name for path in out.glob("*/shards/*")}
            changes -= names != seen
            seen = names
            if aimed and changes < 0:
                time.sleep(delay)
                return
            time.sleep(0.0005)

    def look(self, out: Path, known: set[str], published: set[str]) -> set[str]:
        """Open the store afresh and count what is wrong with it; returns the ids in it.

        ``known``: the ids seen after the last kill. ``published``: the shards that were there when the signal was sent.
        """
        spec_file = next(out.glob("*/spec.json"), None)
        if spec_file is None:  # killed before there was a store
            self.counts[FAULTS[1]] += len(known) + len(published)
            return set()
        try:
            store = FeatureStore.open(spec_file.parent)
        except StoreError:
            self.counts[FAULTS[0]] += 1
            return known
        ids = set(store.ids())
        self.counts[FAULTS[0]] += bool(store.verify(deep=True))
        self.counts[FAULTS[1]] += len(known - ids) + len(published - {shard.name for shard in store.shards})
        self.counts[FAULTS[2]] += sum(name not in self.truth or not same(store.get(name), self.truth[name]) for name in ids)
        self.counts["failures recorded"] += len(store.failures())
        return ids


def shards(out: Path) -> set[str]:
    """Names of the shards below ``out``."""
    return {path.name for path in out.glob("*/shards/*.h5")}


def publish_kills(folder: Path) -> Counter[str]:
    """Kill a publish at each of its system calls and at every ``CALLS_APART``-th call, resume it, and count what is wrong."""
    videos, counts = sample(videos=12), Counter[str]()
    ids = list(videos)

    def write(store: FeatureStore, wanted: list[str]) -> None:
        with store.writer() as writer:
            for name in store.missing(wanted):
                writer.add(name, videos[name])

    def look(path: Path, at_least: list[str]) -> FeatureStore:
        store = FeatureStore.open(path)
        counts[FAULTS[0]] += bool(store.verify(deep=True))
        counts[FAULTS[1]] += len(store.missing(at_least))
        counts[FAULTS[2]] += sum(not same(store.get(name), videos[name]) for name in store.ids())
        return store

    def resumed(path: Path) -> None:
        write(look(path, ids[:4]), ids)
        look(path, ids)

    store = FeatureStore.create(folder, "steps", SPEC)
    write(store, ids[:4])
    for stride in (0, CALLS_APART):
        counts["kills"] += kill_everywhere(store.path, lambda store: write(store, ids[:6]), resumed, stride)
    return counts


def main() -> None:
    """Print the numbers of faults, for which the bar is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--kills", type=int, default=300, help="random kills")
    parser.add_argument("--groups", type=int, default=5, help="videos to extract, in eights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--no-steps", action="store_true", help="leave the kills at each step of a publish away")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        if not arguments.no_steps:
            steps = publish_kills(folder / "steps")
            for fault in FAULTS:
                report(f"{steps['kills']} SIGKILLs at each step of a publish: {fault}", steps[fault], "faults", "none", 0, at_least=False)
        script = [
            sys.executable,
            str(MAKE_VIDEOS),
            str(folder / "videos"),
            "--train-groups",
            str(arguments.groups - 1),
            "--test-groups",
            "1",
        ]
        videos = Path(subprocess.run(script, stdout=subprocess.PIPE, text=True, check=True).stdout.strip())
        importlib.import_module("extract.prepare")  # before the first fork, and not in the decoding workers
        importlib.import_module("extract.backbones").BACKBONES.names()
        trial = Trial(folder, videos, np.random.default_rng(arguments.seed))
        while trial.counts["kills"] < arguments.kills:
            trial.one_store(arguments.kills)
        told = f"{trial.counts['kills']} random SIGKILLs over {trial.counts['stores']} stores extracted and resumed"
        for fault in (*FAULTS, "runs that did not finish", "failures recorded"):
            report(f"{told}: {fault}", trial.counts[fault], "faults", "an uninterrupted store", 0, at_least=False)
        for kind in ("kills after a publish", "kills inside a publish"):
            report(f"{told}: {kind} of the run", trial.counts[kind], "kills", "all kills")


if __name__ == "__main__":
    main()
