"""Settings of one head: declared in its file, read without importing it, checked and recorded."""

import json
from dataclasses import replace

import pytest
from click.testing import CliRunner

from store.digest import digest, from_dict, to_plain
from store.errors import SpecError, UnknownNameError
from store.options import resolve, spec_options
from temporal.heads_commands import heads
from temporal.params import Param, declared_heads, head_info, scan
from temporal.spec import HeadSpec, RunSpec

FILE = '''
"""A family."""
from temporal.heads import HEADS
PARAMS = (
    Param("depth", 2, "how deep", low=1, high=9),
    Param("rate", 0.5, "how fast"),
    Param("kind", "plain", "which", choices=("plain", "fancy")),
    Param("gated", False, "whether"),
)
READS = "maps"
KIND = "decision_values"

@HEADS.register("mine")
def mine(input_width, num_classes, spec):
    """What it does.

    Paper: Somebody 2020
    """

@HEADS.register("other")
def other(input_width, num_classes, spec):
    """Another."""
'''


@pytest.fixture
def mine(tmp_path):
    (tmp_path / "family.py").write_text(FILE)
    return next(scan(tmp_path / "family.py"))


def test_a_file_tells_of_its_heads_without_being_run(mine, tmp_path):
    assert (mine.name, mine.file, mine.text, mine.paper) == ("mine", "family", "What it does.", "Somebody 2020")
    assert (mine.reads, mine.kind, mine.fitted, mine.weights) == ("maps", "decision_values", "gradient", False)
    assert [param.name for param in mine.params] == ["depth", "rate", "kind", "gated"]
    assert [info.name for info in scan(tmp_path / "family.py")] == ["mine", "other"]


def test_values_and_texts_of_values_take_the_types_of_the_defaults(mine):
    assert mine.resolve({}) == {"depth": 2, "rate": 0.5, "kind": "plain", "gated": False}
    given = mine.resolve({"depth": "3", "rate": 1, "kind": "fancy", "gated": "yes"})
    assert given == {"depth": 3, "rate": 1.0, "kind": "fancy", "gated": True}
    assert [type(value) for value in given.values()] == [int, float, str, bool]


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        ("depth", "10", r"depth of head mine is '10'; it must be a whole number at least 1 and at most 9"),
        ("depth", 2.5, "depth of head mine is 2.5; it must be a whole number"),
        ("depth", True, "depth of head mine is True"),
        ("rate", "fast", "rate of head mine is 'fast'; it must be a number"),
        ("rate", "nan", "rate of head mine is 'nan'"),
        ("kind", "odd", "kind of head mine is 'odd'; it must be plain or fancy"),
        ("gated", "maybe", "gated of head mine is 'maybe'; it must be true or false"),
        ("dept", 1, "head mine has no head.params 'dept'; did you mean 'depth'"),
    ],
)
def test_what_cannot_be_is_said(mine, name, value, words):
    with pytest.raises(SpecError, match=words):
        mine.resolve({name: value})


def test_bounds_in_words():
    assert Param("n", 1, "").range() == "a whole number"
    assert Param("n", 1.0, "", low=0).range() == "a number at least 0"


def test_defaults_are_in_the_digest():
    plain, given = HeadSpec(name="transformer"), HeadSpec(name="transformer", params={"attention_heads": "4"})
    assert plain.params["attention_heads"] == 4
    assert digest(plain) == digest(given)
    assert digest(plain) != digest(HeadSpec(name="transformer", params={"attention_heads": 2}))
    assert from_dict(RunSpec, to_plain(RunSpec(head=plain))).head == plain


def test_params_of_another_head_and_unknown_heads_are_refused():
    with pytest.raises(SpecError, match=r"head gru has no head\.params 'kernel'"):
        HeadSpec(name="gru", params={"kernel": 3})
    with pytest.raises(UnknownNameError, match="did you mean transformer"):
        HeadSpec(name="transformr")
    with pytest.raises(SpecError, match="head gru takes no pretrained weights"):
        HeadSpec(name="gru", weights="sha256:0")


def test_a_run_of_the_format_before_says_what_to_do():
    with pytest.raises(SpecError, match=r"has format 1, but this version .* format 2; train it again"):
        from_dict(RunSpec, {"head": {"name": "gru"}, "format": 1})


def test_flags_and_files_give_params(tmp_path):
    import click

    seen = []

    @click.command()
    @spec_options(RunSpec, skip=("format",))
    def command(overrides):
        seen.append(resolve(RunSpec, overrides).head.params)

    file = tmp_path / "run.toml"
    file.write_text('[head]\nname = "temporal_conv"\n[head.params]\nkernel = 5\n')
    arguments = ["--config", str(file), "--head.params", "dilation=3"]
    assert CliRunner().invoke(command, arguments, catch_exceptions=False).exit_code == 0
    assert seen == [{"kernel": 5, "dilation": 3}]
    text = CliRunner().invoke(command, ["--help"]).output
    assert all(name in text for name in declared_heads())


def test_the_command_lists_heads_with_their_params():
    text = CliRunner().invoke(heads, ["transformer"], catch_exceptions=False).output
    assert "Vaswani" in text
    assert "attention_heads=4" in text
    assert "gru" not in text
    listed = json.loads(CliRunner().invoke(heads, ["--json"], catch_exceptions=False).output)
    assert [info["name"] for info in listed] == list(declared_heads())
    assert head_info("recurrent_residual").reads == "maps"


def test_another_name_takes_the_other_heads_settings():
    convolution = HeadSpec(name="temporal_conv", params={"kernel": 5}, hidden=7)
    other = replace(convolution, name="svm_mean")
    assert (dict(other.params), other.hidden) == (dict(HeadSpec(name="svm_mean").params), 7)
    assert replace(convolution, hidden=8).params["kernel"] == 5
    assert from_dict(HeadSpec, to_plain(convolution)) == convolution
    with pytest.raises(SpecError, match=r"svm_mean has no head\.params 'kernel'"):
        HeadSpec(name="svm_mean", params={"kernel": 5})
