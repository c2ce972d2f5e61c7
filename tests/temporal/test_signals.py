"""Signals that a batch system or a user sends: every command saves what is in training and ends with exit code 3."""

import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Interrupted
from store.videos import write_csv
from temporal import many
from temporal.experiment import train_list
from temporal.grid import Setting
from temporal.many import Plan, Work, train_all
from temporal.run_dir import METRICS, SPEC
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.together import all_together

CLI = Path(__file__).resolve().parents[2] / "cli.py"
LONG = "--train.epochs 100000 --train.patience 100000 --train.validation 0.25 --sequence.steps 8"


def _interrupted(folder: Path, sent: signal.Signals, *words: str, whole_group: bool) -> str:
    """What a command says that gets a signal once a head has trained some epochs."""
    command = [sys.executable, str(CLI), *words]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, start_new_session=True)
    while process.poll() is None and not any(file.stat().st_size > 300 for file in folder.rglob(METRICS)):
        time.sleep(0.05)
    (os.killpg if whole_group else os.kill)(process.pid, sent)
    _, messages = process.communicate()
    assert process.returncode == 3, messages
    assert f"{sent.name}: saving the state of the training" in messages
    assert "the same command goes on where" in messages
    assert not list(folder.rglob(SPEC))
    assert list(folder.rglob("fit.safetensors"))
    return messages


@pytest.mark.parametrize(
    ("sent", "together"), [(signal.SIGTERM, "--together"), pytest.param(signal.SIGUSR1, "--apart", marks=pytest.mark.slow)]
)
def test_a_sweep_saves_and_stops(order_store, order_videos, tmp_path, sent, together) -> None:
    write_csv(order_videos, tmp_path / "list.csv")
    words = ["sweep", str(tmp_path / "list.csv"), "--features", str(order_store.path), "--name", "s", "--out", str(tmp_path / "out")]
    words += ["--grid", "head.name=gru,lstm", "--seeds", "0,1", together, "--jobs", "2" if together == "--apart" else "1", *LONG.split()]
    _interrupted(tmp_path / "out", sent, *words, whole_group=True)


@pytest.mark.slow
def test_a_reproduction_saves_and_stops(order_store, order_videos, tmp_path) -> None:
    write_csv(order_videos, tmp_path / "list.csv")
    words = ["reproduce", "lakhal2018", str(tmp_path / "list.csv"), "--features", str(order_store.path), "--out", str(tmp_path / "out")]
    _interrupted(tmp_path / "out", signal.SIGTERM, *words, "--quick", "--jobs", "1", *LONG.split(), whole_group=False)


@pytest.mark.slow
def test_workers_leave_every_signal_to_the_parent(order_store, order_videos, tmp_path) -> None:
    write_csv(order_videos, tmp_path / "list.csv")
    words = ["train-head", str(tmp_path / "list.csv"), "--features", str(order_store.path), "--name", "one", "--out", str(tmp_path / "out")]
    messages = _interrupted(tmp_path / "out", signal.SIGUSR1, *words, "--seeds", "0,1", "--jobs", "2", *LONG.split(), whole_group=True)
    assert "interrupted with 2 of 2 heads left" in messages


def _work(order_store, order_videos, path: Path, head: str) -> Work:
    spec = RunSpec(SequenceSpec(steps=8), HeadSpec(name=head, hidden=4), TrainSpec(epochs=2, validation=0.25))
    return Work(Setting({}, (order_store.path,), spec), order_videos, path)


def test_settings_that_were_not_begun_are_counted_as_left(order_store, order_videos, tmp_path) -> None:
    works = [_work(order_store, order_videos, tmp_path / "out" / name, name) for name in ("mean", "max", "gru")]
    with pytest.raises(Interrupted):
        train_all(works, Plan(jobs=1), stopped=lambda: True)
    with pytest.raises(Interrupted, match="interrupted with 3 of 3 settings left"):
        train_all(works, Plan(jobs=2), stopped=lambda: True)
    assert not list((tmp_path / "out").rglob(SPEC))


def test_an_interruption_that_nobody_asked_for_is_not_swallowed(order_store, order_videos, tmp_path, monkeypatch) -> None:
    """As where SIGTERM comes as an exception: it hits one of the heads that train together."""

    def struck():
        yield from ()
        raise Interrupted("SIGTERM")

    with pytest.raises(Interrupted, match="SIGTERM"):
        all_together([struck(), struck()], stopped=lambda: False)
    assert all_together([struck(), struck()], stopped=lambda: True) == [None, None]


@pytest.mark.parametrize("head", ["svm_mean", "gru"])
def test_heads_of_every_kind_do_not_begin_once_the_command_shall_stop(order_store, order_videos, tmp_path, head) -> None:
    spec = _work(order_store, order_videos, tmp_path, head).setting.spec
    with pytest.raises(Interrupted, match="the same command goes on"):
        train_list([order_store], order_videos, spec, tmp_path / "out" / "one", stopped=lambda: True)
    assert not list((tmp_path / "out").rglob(SPEC))


def test_an_svm_is_not_refitted_once_the_command_shall_stop(order_store, order_videos, tmp_path) -> None:
    spec = _work(order_store, order_videos, tmp_path, "svm_mean").setting.spec
    asked = iter([False, True])
    with pytest.raises(Interrupted):
        spec = replace(spec, train=replace(spec.train, refit=True))
        train_list([order_store], order_videos, spec, tmp_path / "one", stopped=lambda: next(asked))
    assert many.train_one(_work(order_store, order_videos, tmp_path / "two", "svm_mean"), Plan(), 1).figures


WORKERS = """
import os, sys, time
from pathlib import Path
from joblib import Parallel, delayed
from temporal.parallel import end_with_parent

def work(folder):
    end_with_parent()
    (Path(folder) / str(os.getpid())).touch()
    time.sleep(120)

Parallel(n_jobs=2)(delayed(work)(sys.argv[1]) for _ in range(2))
"""


def test_workers_end_with_a_killed_parent(tmp_path) -> None:
    script, pids = tmp_path / "workers.py", tmp_path / "pids"
    script.write_text(WORKERS)
    pids.mkdir()
    process = subprocess.Popen([sys.executable, str(script), str(pids)], env={**os.environ, "PYTHONPATH": str(CLI.parent)})
    while len(workers := [int(file.name) for file in pids.iterdir()]) < 2:
        assert process.poll() is None
        time.sleep(0.05)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 60
    while any(map(_lives, workers)) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert not any(map(_lives, workers))


def _lives(pid: int) -> bool:
    """Whether it runs; one that ended and that nobody has asked after does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
