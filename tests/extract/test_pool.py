"""Decode workers: a crash, a hang or garbage costs one job, never the others."""

import errno
import mmap
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from extract.pool import Block, Event, Failed, Finished, Opened, WorkerPool
from extract.slots import SLOT_BYTES, SLOTS, Slots
from extract.worker import Emitter, StageError
from store.errors import PipelineError


def work(job: tuple[str, int], emitter: Emitter) -> int:
    """What the tests make workers do; runs in the worker process."""
    kind, number = job
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if kind == "exit":
        os._exit(7)
    if kind == "hang":
        signal.pause()
    if kind == "term":
        os.kill(os.getpid(), signal.SIGTERM)
    if kind == "usr1":
        os.kill(os.getpid(), signal.SIGUSR1)
    while kind.startswith("/") and not Path(kind).exists():
        os.sched_yield()
    if kind == "raise":
        raise KeyError("frame 3")
    if kind == "end of file":
        raise EOFError("no more images in TIFF file")
    if kind == "stage":
        raise StageError("flow", "no motion")
    emitter.header(number)
    for step in range(3):
        emitter.block([np.full((4, 5, 3), number + step, np.uint8)] * 2)
    if kind == "late crash":
        os.kill(os.getpid(), signal.SIGKILL)
    return number * 2


def run(jobs: dict[str, tuple[str, int]], timeout_seconds: float = 60, **options: int) -> list[Event]:
    return [kept(event) for event in WorkerPool(work, workers=2, timeout_seconds=timeout_seconds, **options).run(jobs.items())]


def kept(event: Event) -> Event:
    """The event with frames of its own: a worker overwrites those that it sent."""
    return Block(event.key, event.frames.copy()) if isinstance(event, Block) else event


def test_jobs_arrive_whole_and_in_order() -> None:
    events = run({f"v{number}": ("good", number) for number in range(5)})
    for number in range(5):
        mine = [event for event in events if event.key == f"v{number}"]
        assert [type(event) for event in mine] == [Opened, Block, Block, Block, Finished]
        assert mine[-1] == Finished(f"v{number}", number * 2)
        blocks = [event.frames for event in mine if isinstance(event, Block)]
        assert all(np.array_equal(block, np.full((2, 4, 5, 3), number + step, np.uint8)) for step, block in enumerate(blocks))


def test_a_script_is_not_run_again_by_its_workers(tmp_path: Path) -> None:
    """Neither its imports nor a missing ``if __name__ == "__main__"`` reach them."""
    script = tmp_path / "script.py"
    script.write_text(
        "import pathlib, sys\n"
        "with open(sys.argv[0] + '.log', 'a') as log:\n"
        "    log.write('ran\\n')\n"
        "from extract.decode import DecodeJob, Stream\n"
        "from extract.pool import WorkerPool\n"
        "from extract.probe import promised_work\n"
        "from extract.spec import FeatureSpec\n"
        "jobs = {'v': DecodeJob(pathlib.Path('missing.mp4'), {0: Stream(FeatureSpec())})}\n"
        "print(*WorkerPool(promised_work, 1, 60.0).run(jobs.items()))\n"
    )
    root = str(Path(__file__).parents[2])
    done = subprocess.run(
        [sys.executable, script], env={**os.environ, "PYTHONPATH": root}, capture_output=True, text=True, check=False, timeout=60
    )
    assert "no such file" in done.stdout, done.stderr
    assert (tmp_path / "script.py.log").read_text() == "ran\n"


def random_blocks(job: tuple[int, int], emitter: Emitter) -> None:
    """Sends ``count`` blocks of random frames, each about ``size`` bytes."""
    count, size = job
    for seed in range(count):
        emitter.block(list(np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, size // 6, 2, 3), np.uint8)))


@pytest.mark.parametrize("shared", [True, False])
def test_slots_go_round_and_what_does_not_fit_goes_through_the_pipe(shared: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    if not shared:
        monkeypatch.setattr("extract.slots.Slots.new", lambda: None)
    jobs = {"many": (20, 6000), "huge": (2, SLOT_BYTES + 6)}
    seen = dict.fromkeys(jobs, 0)
    for event in WorkerPool(random_blocks, workers=2, timeout_seconds=60).run(jobs.items()):
        if isinstance(event, Block):
            seed = seen[event.key]
            expected = np.random.default_rng(seed).integers(0, 256, (1 + seed % 3, jobs[event.key][1] // 6, 2, 3), np.uint8)
            assert np.array_equal(event.frames, expected)
            seen[event.key] += 1
    assert seen == {"many": 20, "huge": 2}


def test_a_block_that_cannot_be_sent_takes_no_slot() -> None:
    emitter = Emitter(multiprocessing.Pipe()[0], Slots.new())
    for _ in range(2 * SLOTS):
        with pytest.raises(ValueError, match="same shape"):
            emitter.block([np.zeros((2, 2, 3), np.uint8), np.zeros((3, 2, 3), np.uint8)])
    assert sorted(emitter._free) == list(range(SLOTS))


@pytest.mark.parametrize("refusing", ["memfd_create", "ftruncate", "mmap"])
def test_without_shared_memory_to_be_had_there_are_no_slots_and_no_open_file(refusing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> int:
        raise OSError(errno.EFBIG, "File too large")

    files = Path("/proc/self/fd")  # Linux
    before = len(list(files.iterdir())) if files.is_dir() else 0
    monkeypatch.setattr(mmap if refusing == "mmap" else os, refusing, refuse, raising=False)
    assert Slots.new() is None
    assert not before or len(list(files.iterdir())) == before


@pytest.mark.parametrize(
    ("kind", "stage", "words"),
    [
        ("crash", "crash", "died 2 times on this video, last with SIGSEGV"),
        ("exit", "crash", "last with exit code 7"),
        ("late crash", "crash", "SIGKILL"),
        ("raise", "decode", "KeyError: 'frame 3'"),
        ("end of file", "decode", "EOFError: no more images in TIFF file"),
        ("stage", "flow", "no motion"),
    ],
)
def test_a_bad_job_fails_alone_with_its_reason(kind: str, stage: str, words: str) -> None:
    events = run({"a": ("good", 1), "bad": (kind, 0), "b": ("good", 2), "c": ("good", 3)})
    failures = [event for event in events if isinstance(event, Failed)]
    assert [(failure.key, failure.stage) for failure in failures] == [("bad", stage)]
    assert words in failures[0].reason
    assert {event.key for event in events if isinstance(event, Finished)} == {"a", "b", "c"}


def test_a_hang_is_stopped_and_named() -> None:
    events = run({"bad": ("hang", 0), "a": ("good", 1)}, timeout_seconds=3)
    assert [event for event in events if isinstance(event, Failed)] == [
        Failed("bad", "hang", "the decoder gave nothing for 3 s and was stopped")
    ]
    assert Finished("a", 2) in events


def test_a_slow_reader_is_not_taken_for_a_hang() -> None:
    events = WorkerPool(work, workers=1, timeout_seconds=1.0).run({"a": ("good", 1), "b": ("good", 2)}.items())
    seen = [next(events)]
    deadline = time.monotonic() + 1.5
    while time.monotonic() < deadline:  # busy, as a forward pass would be, while the worker waits to send
        np.ones((200, 200)) @ np.ones((200, 200))
    seen += list(events)
    assert not [event for event in seen if isinstance(event, Failed)]


def test_a_busy_or_suspended_job_takes_no_worker_for_hung(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = [0.0]  # seconds that this process did not look at its workers
    clock = SimpleNamespace(monotonic=lambda: time.monotonic() + away[0], sleep=time.sleep)
    monkeypatch.setattr("extract.pool.time", clock)
    go = tmp_path / "go"
    seen: list[Event] = []
    for event in WorkerPool(work, workers=2, timeout_seconds=60).run({"a": ("good", 1), "b": (str(go), 2)}.items()):
        seen.append(event)
        if isinstance(event, Block) and not go.exists():
            away[0] += 1000
            go.touch()
    assert not [event for event in seen if isinstance(event, Failed)]
    assert Finished("b", 4) in seen


def test_workers_that_a_signal_to_the_group_ends_first_fail_no_video() -> None:
    pool = WorkerPool(work, workers=1, timeout_seconds=60, tries=1)
    calls = iter([False])

    def stopped() -> bool:  # our own signal arrives just after the worker's
        return next(calls, not pool._workers)

    assert list(pool.run({"a": ("term", 1)}.items(), stopped)) == []
    events = run({"a": ("term", 1)}, tries=1)
    assert "died 1 times on this video, last with SIGTERM" in next(event.reason for event in events if isinstance(event, Failed))
    assert run({"a": ("usr1", 1)}, tries=1)[-1] == Finished("a", 2)


def test_stopping_ends_the_run_and_its_processes() -> None:
    seen: list[Event] = []
    pool = WorkerPool(work, workers=2, timeout_seconds=60)
    for event in pool.run({f"v{n}": ("good", n) for n in range(50)}.items(), stopped=lambda: len(seen) >= 5):
        seen.append(event)
    assert len({event.key for event in seen}) < 50
    assert pool._workers == []


class SlowToStart:
    """A work function whose worker takes its time before it can do anything, as imports from a busy network disk do."""

    __module__ = __name__

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __call__(self, job: int, emitter: Emitter) -> int:
        return job

    def __reduce__(self) -> tuple[object, ...]:
        return _started_slowly, (self.seconds,)


def _started_slowly(seconds: float) -> SlowToStart:
    signal.sigtimedwait([signal.SIGUSR2], seconds)
    return SlowToStart(seconds)


def test_a_workers_start_does_not_count_for_its_video() -> None:
    assert list(WorkerPool(SlowToStart(1.5), workers=1, timeout_seconds=0.5).run([("v", 3)])) == [Finished("v", 3)]


def test_workers_that_never_start_end_the_job_and_blame_no_video(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.pool.START_SECONDS", 0.2)
    with pytest.raises(PipelineError, match=r"a decoding process has not started within 0\.2 s"):
        list(WorkerPool(SlowToStart(60), workers=1, timeout_seconds=30).run([("v", 3)]))
