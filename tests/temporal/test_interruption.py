"""Trainings that are stopped or killed anywhere go on to the identical result."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from store.errors import Interrupted, StoreError
from store.files import PARTIAL_AGE_SECONDS, PARTIAL_SUFFIX
from store.videos import write_csv
from temporal.checkpoint import Checkpoint, read_checkpoint, write_checkpoint
from temporal.events import EVENTS
from temporal.experiment import train_list
from temporal.run_dir import METRICS
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.workplace import workplace

CLI = Path(__file__).resolve().parents[2] / "cli.py"
SPEC = RunSpec(
    SequenceSpec(steps=8, projection="pca", width=4),
    HeadSpec(name="gru", hidden=6, dropout=0.5),  # whose masks come from torch's generator
    TrainSpec(epochs=5, learning_rate=0.01, validation=0.25, batch_size=5, refit=True, schedule="cosine", warmup_epochs=1.0),
)


class _StopAt:
    """True from the n-th question on."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> bool:
        self.left -= 1
        return self.left <= 0


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.mark.parametrize("optimizer", ["adam", "rmsprop", "sgd", "adamw"])
def test_a_training_stopped_at_every_few_batches_gives_the_identical_run(order_store, order_videos, tmp_path, optimizer):
    spec = replace(SPEC, train=replace(SPEC.train, optimizer=optimizer))
    whole = train_list([order_store], order_videos, spec, tmp_path / "whole" / "one")
    batches = np.random.default_rng(len(optimizer)).integers(2, 9, size=100).tolist()
    stops = 0
    while True:
        try:
            cut = train_list([order_store], order_videos, spec, tmp_path / "cut" / "one", stopped=_StopAt(batches.pop()))
            break
        except Interrupted:
            stops += 1
    assert stops >= 4
    assert _files(cut.path) == _files(whole.path)
    assert [path.name for path in (tmp_path / "cut").iterdir()] == ["one"]


def test_heads_in_several_processes_are_stopped_together_and_go_on(order_store, order_videos, tmp_path):
    spec = replace(SPEC, train=replace(SPEC.train, epochs=30, patience=30))
    settings = {"seeds": [0, 1, 2], "checkpoint_seconds": 1000.0}
    whole = train_list([order_store], order_videos, spec, tmp_path / "whole" / "cv", **settings, jobs=1)
    cut = tmp_path / "cut" / "cv"
    with pytest.raises(Interrupted, match=r"interrupted with [123] of 3 heads left"):
        train_list([order_store], order_videos, spec, cut, **settings, jobs=2, stopped=lambda: any(cut.rglob(METRICS)))
    resumed = train_list([order_store], order_videos, spec, cut, **settings, jobs=2)
    assert _files(resumed.path) == _files(whole.path)


def test_heads_trained_as_one_program_go_on_where_they_stopped(order_store, order_videos, tmp_path):
    """To the last bits: while some have stopped already, the others' sums may be added up in another order."""
    settings = {"seeds": [0, 1, 2], "together": True}
    whole = train_list([order_store], order_videos, SPEC, tmp_path / "whole", **settings)
    stops = 0
    while True:
        try:
            cut = train_list([order_store], order_videos, SPEC, tmp_path / "cut", **settings, stopped=_StopAt(23))
            break
        except Interrupted:
            stops += 1
    assert stops >= 3
    for one, other in zip(whole.runs, cut.runs, strict=True):
        assert one.identity == other.identity
        assert [record["epoch"] for record in one.history()] == [record["epoch"] for record in other.history()]
        np.testing.assert_allclose(other.scores().values, one.scores().values, atol=1e-4)


def test_metrics_for_tensorboard_grow_with_the_epochs_of_all_phases(order_store, order_videos, tmp_path):
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = train_list([order_store], order_videos, SPEC, tmp_path / "one", tensorboard=True).runs[0]
    events = EventAccumulator(str(run.path / EVENTS))
    events.Reload()
    history = run.history()
    for phase, quantity in (("fit", "val_loss"), ("fit", "train_loss"), ("refit", "train_loss")):
        expected = [(step, record[quantity]) for step, record in enumerate(history, 1) if record["phase"] == phase]
        found = [(scalar.step, scalar.value) for scalar in events.Scalars(f"{phase}/{quantity}")]
        assert found == [(step, pytest.approx(value, rel=1e-6)) for step, value in expected]


def _command(list_file: Path, store: Path, out: Path, *more: str) -> list[str]:
    settings = "--train.epochs 60 --train.patience 60 --head.hidden 6 --train.batch-size 4 --train.validation 0.25 --sequence.steps 8"
    arguments = ["train-head", str(list_file), "--features", str(store), "--name", "one", "--out", str(out), *settings.split(), *more]
    return [sys.executable, str(CLI), *arguments]


def _wait_for_epochs(process: subprocess.Popen, folder: Path, count: int) -> None:
    while process.poll() is None:
        if any(len(file.read_text().splitlines()) >= count for file in folder.glob(f".one.*{PARTIAL_SUFFIX}/{METRICS}")):
            return
        os.sched_yield()


def test_killed_and_terminated_commands_resume_to_the_identical_weights(order_store, order_videos, tmp_path):
    list_file = tmp_path / "list.csv"
    write_csv(order_videos, list_file)
    subprocess.run(_command(list_file, order_store.path, tmp_path / "whole"), check=True, capture_output=True)
    command = _command(list_file, order_store.path, tmp_path / "cut", "--checkpoint-seconds", "0")
    random = np.random.default_rng(int.from_bytes(os.urandom(4), "little"))  # other places every time
    for number, sent, code in ((int(random.integers(1, 25)), signal.SIGKILL, -9), (int(random.integers(25, 50)), signal.SIGTERM, 3)):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        _wait_for_epochs(process, tmp_path / "cut", number)
        process.send_signal(sent)
        _, messages = process.communicate()
        assert process.returncode == code, messages
    assert "saving the state of the training, then stopping" in messages
    assert "the same command goes on where it stopped" in messages
    subprocess.run(command, check=True, capture_output=True)
    assert _files(tmp_path / "cut") == _files(tmp_path / "whole")


def test_metrics_can_be_watched_and_what_a_killed_job_wrote_too_much_goes(tmp_path):
    with workplace(tmp_path / "one", {"some": "run"}) as place:
        place.record([{"epoch": 1}])
        place.record([{"epoch": 1}, {"epoch": 2}])
        assert [json.loads(line)["epoch"] for line in (place.path / METRICS).read_text().splitlines()] == [1, 2]
        with (
            pytest.raises(StoreError, match=r"one is being trained by another process, in .*one\..*partial"),
            workplace(tmp_path / "one", {"some": "run"}),
        ):
            pass
    with workplace(tmp_path / "one", {"some": "run"}) as place:
        place.record([{"epoch": 1}])
        assert len((place.path / METRICS).read_text().splitlines()) == 1


def test_what_killed_jobs_left_is_removed_once_the_run_is_complete(order_store, order_videos, tmp_path):
    other = replace(SPEC, head=replace(SPEC.head, hidden=7))
    with pytest.raises(Interrupted):
        train_list([order_store], order_videos, other, tmp_path / "one", stopped=_StopAt(5))
    old, new = tmp_path / f".one.0123abcd{PARTIAL_SUFFIX}", tmp_path / f".one.4567abcd{PARTIAL_SUFFIX}"  # of versions without locks
    for folder in (old, new, tmp_path / f".another.0123abcd{PARTIAL_SUFFIX}"):
        folder.mkdir()
    long_ago = time.time() - PARTIAL_AGE_SECONDS - 1
    os.utime(old, (long_ago, long_ago))
    with workplace(tmp_path / "one", {"being": "trained"}) as living:
        train_list([order_store], order_videos, SPEC, tmp_path / "one")
        left = {path.name for path in tmp_path.iterdir()} - {"features"}
        assert left == {"one", new.name, f".another.0123abcd{PARTIAL_SUFFIX}", living.path.name}


def test_a_projection_that_was_damaged_is_fitted_again(order_store, order_videos, tmp_path):
    whole = train_list([order_store], order_videos, SPEC, tmp_path / "whole" / "one")
    for damage in (b"", b"PK\x03\x04 half of a file", b"no zip"):
        with pytest.raises(Interrupted):
            train_list([order_store], order_videos, SPEC, tmp_path / "cut" / "one", stopped=_StopAt(6))
        (file,) = (tmp_path / "cut").rglob("fit.npz")
        file.write_bytes(damage)
    cut = train_list([order_store], order_videos, SPEC, tmp_path / "cut" / "one")
    assert _files(cut.path) == _files(whole.path)


def test_a_checkpoint_is_read_as_it_was_written_or_not_at_all(tmp_path):
    state = {"head.w": torch.randn(3, 2), "head.step": torch.tensor(4.0), "generator.cpu": torch.get_rng_state()}
    path = tmp_path / "fit.safetensors"
    assert read_checkpoint(path) is None
    write_checkpoint(path, Checkpoint(state, {"epoch": 3, "drawn_from": {"state": 2**127 + 1}}))
    read = read_checkpoint(path)
    assert read.facts == {"epoch": 3, "drawn_from": {"state": 2**127 + 1}}
    assert sorted(read.part("head")) == ["step", "w"]
    assert all(torch.equal(read.tensors[name], value) for name, value in state.items())
    path.write_bytes(path.read_bytes()[:40])
    assert read_checkpoint(path) is None
