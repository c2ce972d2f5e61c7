"""The grid of a sweep: parsing, every combination, what cannot be used."""

from pathlib import Path

import pytest

from store.errors import SpecError
from store.options import parse_setting
from temporal.grid import combinations, parse_axis
from temporal.spec import RunSpec

STORES = (Path("rgb"),)


def test_an_axis_has_the_types_of_the_spec() -> None:
    assert parse_axis("head.hidden=128, 256").values == ({"head.hidden": 128}, {"head.hidden": 256})
    assert parse_axis("train.learning-rate=1e-3,1e-4").values == ({"train.learning_rate": 1e-3}, {"train.learning_rate": 1e-4})
    assert parse_axis("sequence.znorm=true,false").values == ({"sequence.znorm": True}, {"sequence.znorm": False})
    assert parse_axis("head.output=last,mean").texts == ("last", "mean")


def test_two_settings_can_have_the_same_value() -> None:
    axis = parse_axis("sequence.width+head.hidden=64,128")
    assert axis.name == "sequence.width+head.hidden"
    assert axis.values[1] == {"sequence.width": 128, "head.hidden": 128}
    chosen = combinations([axis], {}, STORES)[1].spec
    assert (chosen.sequence.width, chosen.head.hidden) == (128, 128)


def test_every_combination_once_over_the_base() -> None:
    axes = [parse_axis("head.name=gru,lstm"), parse_axis("head.hidden=4,8,16")]
    settings = combinations(axes, {"head": {"layers": 3, "hidden": 99}}, STORES)
    assert [(each.spec.head.name, each.spec.head.hidden) for each in settings] == [
        ("gru", 4), ("gru", 8), ("gru", 16), ("lstm", 4), ("lstm", 8), ("lstm", 16),
    ]  # fmt: skip
    assert {each.spec.head.layers for each in settings} == {3}
    assert settings[5].text() == "head.name lstm, head.hidden 16"
    assert combinations([], {}, STORES)[0].text() == "the one setting"


def test_stores_are_an_axis(tmp_path: Path) -> None:
    (tmp_path / "a+b").mkdir()
    axis = parse_axis(f"features=rgb,rgb+flow,{tmp_path}/a+b")
    assert axis.values == ((Path("rgb"),), (Path("rgb"), Path("flow")), (tmp_path / "a+b",))
    assert [each.features for each in combinations([axis], {}, ())] == list(axis.values)
    with pytest.raises(SpecError, match="given by --features and by --grid features"):
        combinations([axis], {}, STORES)
    with pytest.raises(SpecError, match="no features are given; use --features STORE"):
        combinations([], {}, ())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("head.hidden", r"is no axis; write SETTING=VALUE,VALUE"),
        ("head.hiden=1", r"there is no setting 'head.hiden'; did you mean 'head.hidden'\?"),
        ("head.hidden=a", r"head.hidden is 'a'; it must be a whole number"),
        ("head.hidden=1,,2", r"has an empty value"),
        ("head.hidden=1,01", r"grid head.hidden has 01 twice"),
        ("head.output=first", r"head.output is 'first'; it must be one of last, mean, max"),
        ("sequence.znorm=maybe", r"sequence.znorm is 'maybe'; it must be true or false"),
        ("train.seed=1,2", r"train.seed cannot be an axis of the grid: .* use --seeds"),
    ],
)
def test_what_is_no_axis(text: str, words: str) -> None:
    with pytest.raises(SpecError, match=words):
        parse_axis(text)


def test_an_axis_given_twice_is_refused() -> None:
    with pytest.raises(SpecError, match=r"grid head.hidden is given twice"):
        combinations([parse_axis("head.hidden=1"), parse_axis("sequence.width+head.hidden=2")], {}, STORES)


def test_all_settings_that_cannot_be_used_are_told_at_once() -> None:
    with pytest.raises(SpecError) as told:
        combinations([parse_axis("head.hidden=0,4,-1")], {}, STORES)
    assert "2 of the grid's settings cannot be used; nothing was trained" in str(told.value)
    assert "head.hidden 0: head.hidden is 0" in str(told.value)
    assert "head.hidden -1" in str(told.value)


def test_settings_are_parsed_as_flags_are() -> None:
    assert parse_setting(RunSpec, "train.learning_rate", "1e-4") == 1e-4
    with pytest.raises(SpecError, match="there is no setting 'nothing'"):
        parse_setting(RunSpec, "nothing", "1")
