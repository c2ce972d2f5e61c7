"""A finished run's files are the ones it wrote, or whoever reads them says so."""

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import cli
from store.errors import SpecError, StoreError
from store.run_files import DIGESTS, UNCHECKED
from store.scores import ScoreTable
from store.videos import VideoList, write_csv
from temporal.experiment import train_list
from temporal.predict import predict
from temporal.run_dir import FOLDS, METRICS, PROJECTION, SCORES, SPEC, VALIDATION, VIDEOS, WEIGHTS, Run
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

QUICK = RunSpec(SequenceSpec(steps=8), HeadSpec(name="mean"), TrainSpec(epochs=2, learning_rate=0.01, validation=0.25))
AGAIN = r"remove \S+ and run the command that trained it again"


def change_weights(file: Path) -> None:
    """Another head of the same shapes."""
    save_file({name: array + 1 for name, array in load_file(file).items()}, file)


def change_scores(file: Path) -> None:
    """A good table of the same videos with other numbers."""
    table = ScoreTable.load(file)
    other = file.with_name("other.npz")
    ScoreTable(table.ids, table.classes, -table.values, table.kind, table.labels, table.source).save(other)
    other.replace(file)


def forget_digests(run: Path) -> None:
    """Make a run as versions before left it."""
    for file in run.rglob(SPEC):
        data = json.loads(file.read_text())
        del data[DIGESTS]
        file.write_text(json.dumps(data))


@pytest.fixture
def train(order_store, order_videos: VideoList, tmp_path: Path) -> Callable[..., Run]:
    """``train(name, **settings)``: a small run in ``tmp_path``."""

    def run(name: str = "one", **settings: object) -> Run:
        return train_list([order_store], order_videos, QUICK, tmp_path / name, jobs=1, **settings).runs[0]

    return run


def test_the_digests_are_sha256_of_the_files(train):
    run = train()
    digests = json.loads((run.path / SPEC).read_text())[DIGESTS]["files"]
    assert set(digests) == {WEIGHTS, PROJECTION, VIDEOS, METRICS, SCORES, VALIDATION}
    assert digests == {name: hashlib.sha256((run.path / name).read_bytes()).hexdigest() for name in digests}


def test_weights_of_another_run_are_not_predicted_with(train, order_store, order_videos):
    run = train()
    predict(run, [order_store], order_videos)
    change_weights(run.path / WEIGHTS)
    with pytest.raises(StoreError, match=rf"one/{WEIGHTS} is not the file that the run wrote.*another run.*{AGAIN}"):
        predict(Run.open(run.path), [order_store], order_videos)


@pytest.mark.parametrize(("name", "change"), [(WEIGHTS, change_weights), (SCORES, change_scores), (VALIDATION, change_scores)])
def test_a_changed_file_does_not_pass_for_finished(train, name, change):
    run = train()
    before = (run.path / name).read_bytes()
    change(run.path / name)
    with pytest.raises(StoreError, match=rf"one/{re.escape(name)} is not the file that the run wrote.*{AGAIN}"):
        train()
    assert train(force=True).path == run.path
    assert (run.path / name).read_bytes() == before


def test_scores_of_a_run_are_checked_wherever_they_are_read(train, tmp_path):
    run = train()
    told = CliRunner().invoke(cli.cli, ["evaluate", str(run.path / SCORES)])
    assert (told.exit_code, told.stderr) == (0, "")
    change_scores(run.path / SCORES)
    for command in (
        ["evaluate", run.path / SCORES],
        ["report", run.path / SCORES, "-o", tmp_path / "page"],
        ["scores", "show", run.path / SCORES],
    ):
        failed = CliRunner().invoke(cli.cli, list(map(str, command)))
        assert isinstance(failed.exception, StoreError)
        assert f"{run.path / SCORES} is not the file that the run wrote" in str(failed.exception)
    with pytest.raises(StoreError, match="is not the file"):
        Run.open(run.path).scores()


def test_no_output_takes_the_place_of_a_runs_file(train, order_store, order_videos, tmp_path):
    run = train()
    write_csv(order_videos, tmp_path / "list.csv")
    listed, scores = tmp_path / "list.csv", run.path / SCORES
    before = {file: file.read_bytes() for file in run.path.iterdir()}
    for command in (
        ["predict", run.path, listed, "--features", order_store.path, "-o", scores],
        ["fuse", f"a={scores}", f"b={scores}", "-o", run.path / VALIDATION],
        ["learn", run.path / VALIDATION, "-o", run.path / SPEC],
        ["cross-fit", scores, "--list", listed, "-o", scores],
        ["scores", "import", scores, "--kind", "scores", "-o", scores],
        ["scores", "export", scores, "-o", scores],
        ["idt", "score", listed, "--run", run.path, "--features", order_store.path, "-o", scores],
    ):
        told = CliRunner().invoke(cli.cli, list(map(str, command)))
        assert isinstance(told.exception, SpecError), (command, told.output)
        assert str(told.exception) == f"{command[-1]} is not written, for this file belongs to the run {run.path}; choose another name"
    assert {file: file.read_bytes() for file in run.path.iterdir()} == before
    for name in ("fused.npz", "fused.npz"):  # the run did not write it, so it may be there already
        told = CliRunner().invoke(cli.cli, ["fuse", f"a={scores}", f"b={scores}", "-o", str(run.path / name)])
        assert told.exit_code == 0, told.output
    forget_digests(run.path)
    told = CliRunner().invoke(cli.cli, ["fuse", f"a={scores}", f"b={scores}", "-o", str(scores)])
    assert isinstance(told.exception, SpecError)


def test_a_changed_spec_is_told(train):
    run = train()
    text = (run.path / SPEC).read_text()
    (run.path / SPEC).write_text(text.replace('"ab"', '"xy"'))
    with pytest.raises(StoreError, match=rf"spec\.json was changed or damaged after the run was finished; {AGAIN}"):
        Run.open(run.path)


@pytest.mark.parametrize("finished", [False, True])
def test_a_fold_that_was_changed_is_not_called_finished(train, finished):
    run = train(cross_validate=True)
    whole = run.scores().values
    if not finished:
        (run.path / SPEC).unlink()
    fold = run.path / FOLDS / "fold-02"
    change_scores(fold / SCORES)
    with pytest.raises(StoreError, match=rf"fold-02/{SCORES} is not the file that the run wrote") as told:
        train(cross_validate=True)
    assert (str(run.path / SPEC) in str(told.value)) == finished
    for path in re.search(r"remove (.+) and run the command", str(told.value))[1].split(" and "):  # as it says
        shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
    assert np.array_equal(train(cross_validate=True).scores().values, whole)


def test_a_damaged_cross_validation_keeps_its_good_folds(train):
    run = train(cross_validate=True)
    whole, spec, one = run.scores().values, run.path / SPEC, run.path / FOLDS / "fold-01"
    changes = {  # -> how many of the six folds stay as they are
        "scores changed": (lambda: change_scores(run.path / SCORES), 6),
        "scores lost": (lambda: (run.path / SCORES).unlink(), 6),
        "spec changed": (lambda: spec.write_text(spec.read_text().replace('"ab"', '"xy"')), 6),
        "spec cut": (lambda: spec.write_text("{"), 6),
        "a fold lost": (lambda: shutil.rmtree(one), 5),
        "a fold's spec lost": (lambda: (one / SPEC).unlink(), 5),
        "a fold's spec changed": (lambda: (one / SPEC).write_text("{}"), 5),
    }
    for name, (change, kept) in changes.items():
        before = {file: file.stat().st_mtime_ns for file in (run.path / FOLDS).glob(f"*/{SPEC}")}
        change()
        with pytest.raises(StoreError) as told:
            train(cross_validate=True)
        for path in re.search(r"remove (.+) and run the command", str(told.value))[1].split(" and "):  # as it says
            shutil.rmtree(path) if Path(path).is_dir() else Path(path).unlink()
        assert np.array_equal(train(cross_validate=True).scores().values, whole)
        assert sum(file.stat().st_mtime_ns == when for file, when in before.items()) == kept, name


def test_a_run_that_is_replaced_while_it_is_read_is_not_called_damaged(train):
    opened = train()
    other = train("two", seeds=[7])
    shutil.rmtree(opened.path)
    with pytest.raises(StoreError, match=r"one was replaced or removed while it was read; run the command again"):
        opened.history()
    other.path.rename(opened.path)
    with pytest.raises(StoreError, match=r"one was replaced or removed while it was read; run the command again"):
        opened.check()
    Run.open(opened.path).check()


def test_a_fold_of_another_run_is_told(train):
    run, other = train(cross_validate=True), train("two", cross_validate=True, seeds=[7])
    shutil.rmtree(run.path / FOLDS / "fold-01")
    shutil.copytree(other.path / FOLDS / "fold-01", run.path / FOLDS / "fold-01")
    with pytest.raises(StoreError, match=r"folds/fold-01/spec\.json is not the file that the run wrote"):
        train(cross_validate=True)


def test_runs_without_digests_are_read_and_told_once(train, order_store, order_videos, tmp_path):
    run = train()
    forget_digests(run.path)
    change_weights(run.path / WEIGHTS)
    write_csv(order_videos, tmp_path / "list.csv")
    store, listed = str(order_store.path), str(tmp_path / "list.csv")
    one = ["train-head", listed, "--features", store, "--name", "one", "--out", str(tmp_path), "--sequence.steps", "8"]
    one += ["--head.name", "mean", "--train.epochs", "2", "--train.learning-rate", "0.01", "--train.validation", "0.25"]
    scores = str(run.path / SCORES)
    for command in (one, ["predict", str(run.path), listed, "--features", store], ["evaluate", f"a={scores}", f"b={scores}"]):
        told = CliRunner().invoke(cli.cli, command)
        assert told.exit_code == 0, told.output
        assert told.stderr.count(UNCHECKED) == 1
    run = train("cv", cross_validate=True)
    forget_digests(run.path)
    train("cv", cross_validate=True)
