"""What is no run, or no whole one, is told in words."""

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.numpy import load_file, save_file

import cli
from store.errors import StoreError
from store.features import FeatureStore
from store.videos import write_csv
from temporal.experiment import train_list
from temporal.predict import predict
from temporal.run_dir import SPEC, WEIGHTS, Run
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

QUICK = RunSpec(SequenceSpec(steps=8), HeadSpec(name="mean"), TrainSpec(epochs=1, validation=0.0))


@pytest.fixture
def run(order_store, order_videos, tmp_path: Path) -> Run:
    """A small run, without digests, so that it can be changed."""
    made = train_list([order_store], order_videos, QUICK, tmp_path / "one").runs[0]
    data = json.loads((made.path / SPEC).read_text())
    del data["digests"]
    (made.path / SPEC).write_text(json.dumps(data))
    return Run.open(made.path)


def test_a_store_for_a_run_and_a_run_for_a_store(run, order_store, order_videos, tmp_path):
    write_csv(order_videos, tmp_path / "list.csv")
    with pytest.raises(StoreError, match="is no run: it is a feature store; give the folder of a run here"):
        Run.open(order_store.path)
    with pytest.raises(StoreError, match="is a run, not a feature store; give the folder of a store here"):
        FeatureStore.open(run.path)
    told = CliRunner().invoke(cli.cli, ["predict", str(order_store.path), str(tmp_path / "list.csv"), "--features", str(run.path)])
    assert "is no run: it is a feature store" in str(told.exception)


def test_folders_of_runs_name_their_runs(order_store, order_videos, tmp_path):
    train_list([order_store], order_videos, QUICK, tmp_path / "many", seeds=[3, 4], jobs=1)
    with pytest.raises(StoreError, match=r"it is a folder of 2 seeds, give one of them, e\.g\. .*many/seed-3"):
        Run.open(tmp_path / "many")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda data: [], "it holds a list, not a table"),
        (lambda data: None, "it holds null, not a table"),
        (lambda data: {"identity": data["identity"]}, "it has no result"),
        (lambda data: data | {"result": 3}, "result is a whole number, not a table"),
        (lambda data: data | {"identity": data["identity"] | {"classes": "ab"}}, "identity.classes is text, not a list"),
        (lambda data: data | {"identity": data["identity"] | {"features": ["rgb"]}}, "identity.features are not tables"),
        (lambda data: data | {"result": data["result"] | {"input_width": "6"}}, "result.input_width is no whole number"),
    ],
)
def test_json_of_another_kind(run, change, words):
    (run.path / SPEC).write_text(json.dumps(change(json.loads((run.path / SPEC).read_text()))))
    with pytest.raises(StoreError, match=rf"spec\.json is damaged: {words}.*; remove .* and run the command that trained it again"):
        Run.open(run.path)


def test_weights_of_other_shapes_are_one_sentence(run, order_store, order_videos, tmp_path):
    wider = train_list([order_store], order_videos, QUICK, tmp_path / "other").runs[0]
    state = load_file(wider.path / WEIGHTS)
    name = next(iter(state))
    save_file(state | {name: state[name][:1]}, run.path / WEIGHTS)
    with pytest.raises(
        StoreError, match=rf"the weights do not fit its head mean: {name} is \[1.*\], and the head has \[2.*\]\); remove"
    ) as told:
        predict(run, [order_store], order_videos)
    assert "\n" not in str(told.value)
    shutil.copy(order_store.spec_file, run.path / WEIGHTS)
    with pytest.raises(StoreError, match="is incomplete or damaged"):
        predict(run, [order_store], order_videos)
