"""Specs check themselves and need no torch."""

import subprocess
import sys

import pytest

from store.digest import from_dict, to_plain
from store.errors import SpecError
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec


def test_specs_and_commands_import_without_torch():
    code = "import sys, temporal.spec, temporal.sequences, temporal.folds, temporal.commands; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_a_run_spec_survives_json():
    spec = RunSpec(sequence=SequenceSpec(steps=7, mid="sum"), head=HeadSpec(name="lstm"), train=TrainSpec(seed=3))
    assert from_dict(RunSpec, to_plain(spec)) == spec


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: SequenceSpec(steps=0), "sequence.steps is 0"),
        (lambda: SequenceSpec(mid="max"), "mid is 'max'"),
        (lambda: HeadSpec(layers=-1), "head.layers is -1"),
        (lambda: HeadSpec(dropout=1.0), "head.dropout is 1.0"),
        (lambda: TrainSpec(learning_rate=0), "train.learning_rate is 0"),
        (lambda: TrainSpec(validation=1.0), "train.validation is 1.0"),
        (lambda: TrainSpec(optimizer="lion"), "'rmsprop', 'adam'"),
        (lambda: TrainSpec(epochs=0), "train.epochs is 0"),
        (lambda: TrainSpec(seed=2**32), "train.seed is 4294967296; it must be at least 0 and below"),
        (lambda: RunSpec(format=9), "this run has format 9"),
    ],
)
def test_bad_values_are_named(make, words):
    with pytest.raises(SpecError, match=words):
        make()
