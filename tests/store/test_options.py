"""Flags generated from dataclasses: names, precedence, parsing."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import click
import pytest
from click.testing import CliRunner

from store.digest import Checked, setting
from store.errors import SpecError
from store.options import merge, resolve, spec_options


@dataclass(frozen=True)
class Clip(Checked):
    max_length: int = setting(16, "frames")
    rule: Literal["one", "two"] = setting("one", "the rule")


@dataclass(frozen=True)
class Spec(Checked):
    rate: float = setting(0.5, "rate")
    keep: bool = setting(False, "keep")
    levels: tuple[str, ...] = setting((), "levels")
    hidden: str = setting("", "not a flag")
    params: dict[str, float] = field(default_factory=dict)
    clip: Clip = field(default_factory=Clip)


@click.command()
@spec_options(Spec, skip=("hidden",))
def show(overrides: dict[str, Any]) -> None:
    """Print what arrived."""
    click.echo(resolve(Spec, {"rate": 9.0, "clip": {"max_length": 5}}, overrides))


def run(*arguments: str) -> str:
    result = CliRunner().invoke(show, arguments, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output.strip()


def test_without_flags_the_layers_below_stand() -> None:
    assert run() == str(Spec(rate=9.0, clip=Clip(5)))


def test_flags_reach_every_kind_of_field() -> None:
    shown = run("--rate", "2", "--keep", "--levels", "low, high", "--params", "a=1,b=2.5", "--clip.max-length", "7", "--clip.rule", "two")
    assert shown == str(Spec(2.0, True, ("low", "high"), "", {"a": 1.0, "b": 2.5}, Clip(7, "two")))


def test_a_flag_wins_over_the_config_file_and_that_over_the_preset(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('rate = 3.0\nkeep = true\n[clip]\nrule = "two"\n')
    assert run("--config", str(config), "--rate", "4", "--no-keep") == str(Spec(4.0, False, clip=Clip(5, "two")))


def test_help_shows_every_default_and_hides_what_the_program_fills_in() -> None:
    text = CliRunner().invoke(show, ["--help"]).output
    assert "[default: 0.5]" in text
    assert "--clip.max-length" in text
    assert "--hidden" not in text


@pytest.mark.parametrize(
    ("flag", "value", "words"), [("--rate", "x", "rate is 'x'; it must be a number"), ("--params", "a", "write key=value")]
)
def test_a_value_that_cannot_be_read_is_named(flag: str, value: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        CliRunner().invoke(show, [flag, value], catch_exceptions=False)


def test_a_broken_config_file_is_named(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text("rate = = 3")
    with pytest.raises(SpecError, match=r"c\.toml is not a TOML file"):
        CliRunner().invoke(show, ["--config", str(config)], catch_exceptions=False)


def test_every_problem_of_a_config_file_is_told_in_one_error(tmp_path: Path) -> None:
    config = tmp_path / "c.toml"
    config.write_text('rate = "fast"\npreset = "tiny"\n[clip]\nmax_lengt = 3\nrule = "three"\n')
    with pytest.raises(SpecError) as caught:
        CliRunner().invoke(show, ["--config", str(config)], catch_exceptions=False)
    for words in (
        "c.toml has 4 problems",
        "rate is 'fast'; it must be a finite number",
        "there is no setting 'preset'; known: rate, keep, levels, hidden, params, clip",
        "there is no setting 'clip.max_lengt'; did you mean 'clip.max_length'?",
        "clip.rule is 'three'; it must be one of 'one', 'two'",
    ):
        assert words in str(caught.value)


def test_merge_overlays_tables() -> None:
    assert merge({"a": {"x": 1, "y": 2}, "b": 1}, {"a": {"y": 3}}) == {"a": {"x": 1, "y": 3}, "b": 1}
