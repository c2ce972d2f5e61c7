import dataclasses
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusion.commands import fuse, recipes
from fusion.learn_commands import cross_fit_command, learn_command
from fusion.recipes import RECIPES
from store.errors import AlignmentError, SpecError
from store.scores import ScoreTable

IDS = tuple(f"v{index:03d}" for index in range(80))


@pytest.fixture
def folder(make_table, tmp_path) -> Path:
    """Validation and test tables of two streams, and the list with groups of four."""
    for seed, name in enumerate(["rgb", "flow"]):
        make_table(seed, ids=IDS, gain=1.5).save(tmp_path / f"{name}_val.npz")
        table = make_table(seed + 5, ids=tuple(f"t{name}" for name in IDS), gain=1.5)
        table.save(tmp_path / f"{name}.npz")
    classes = make_table(0).classes
    rows = [f"{p}{name},{p}{name}.avi,{classes[at % 6]},test,{p}g{at // 4}" for p in ("", "t") for at, name in enumerate(IDS)]
    (tmp_path / "list.csv").write_text("\n".join(["id,path,label,split,group", *rows]) + "\n")
    (tmp_path / "list.classes.txt").write_text("\n".join(classes) + "\n")
    return tmp_path


def run(command, *arguments) -> str:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=True)
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def inputs(folder: Path, end: str = "") -> list[str]:
    return [f"{name}={folder / f'{name}{end}.npz'}" for name in ("rgb", "flow")]


def test_learn_on_validation_and_fuse_the_test_videos(folder):
    text = run(learn_command, *inputs(folder, "_val"), "-o", folder / "l.json")
    assert "rgb: weight" in text
    assert "learned from 80 videos" in text
    text = run(fuse, *inputs(folder), "--learned", folder / "l.json", "-o", folder / "f.npz")
    assert "weights learned from 80 other videos" in text
    source = ScoreTable.load(folder / "f.npz").source
    assert source["learned_file"] == str(folder / "l.json")
    assert source["learned_from"]["files"] == [str(folder / "rgb_val.npz"), str(folder / "flow_val.npz")]
    with pytest.raises(AlignmentError, match="learned from 80 of these 80"):
        run(fuse, *inputs(folder, "_val"), "--learned", folder / "l.json", "-o", folder / "f.npz")
    with pytest.raises(SpecError, match="--learned decides the rule itself; leave --rule away"):
        run(fuse, *inputs(folder), "--learned", folder / "l.json", "--rule", "sum", "-o", folder / "f.npz")


def test_without_takes_groups_from_the_list(folder):
    part = ScoreTable.load(folder / "rgb_val.npz").rows(IDS[:1])
    part.save(folder / "part.npz")
    arguments = ["--without", folder / "part.npz", "-o", folder / "l.json"]
    assert "learned from 79 videos" in run(learn_command, *inputs(folder, "_val"), *arguments)
    assert "learned from 76 videos" in run(learn_command, *inputs(folder, "_val"), "--list", folder / "list.csv", *arguments)


def test_cross_fit_says_what_it_did(folder):
    text = run(cross_fit_command, *inputs(folder), "--list", folder / "list.csv", "--folds", "4", "-o", folder / "c.npz")
    assert "weights cross-fitted in 4 folds by group: rgb, flow" in text
    assert "cross-fitted in 4 folds of 20 groups, 80 videos" in text
    table = ScoreTable.load(folder / "c.npz")
    assert [part["videos"] + part["learned_from"] for part in table.source["folds"]] == [80] * 4
    assert run(cross_fit_command, *inputs(folder), "-o", folder / "c.npz").count("needs --list") == 1


def test_recipes_are_listed_and_followed(folder):
    text = run(recipes)
    assert all(name in text for name in RECIPES)
    run(fuse, *inputs(folder), "--recipe", "tsn", "-o", folder / "tsn.npz")
    a, b = (ScoreTable.load(folder / f"{name}.npz").values for name in ("rgb", "flow"))
    np.testing.assert_allclose(ScoreTable.load(folder / "tsn.npz").values, a + 1.5 * b, rtol=1e-5, atol=1e-6)
    with pytest.raises(SpecError, match="--recipe decides the rule itself"):
        run(fuse, *inputs(folder), "--recipe", "tsn", "--rule", "sum", "-o", folder / "tsn.npz")


def test_spellings_on_the_command_line(folder):
    table = ScoreTable.load(folder / "flow.npz")
    dataclasses.replace(table, ids=tuple(f"clips/{name}.avi" for name in table.ids)).save(folder / "flow.npz")
    with pytest.raises(AlignmentError, match=r"--match\.ids folder,suffix"):
        run(fuse, *inputs(folder), "-o", folder / "f.npz")
    run(fuse, *inputs(folder), "--match.ids", "folder,suffix", "-o", folder / "f.npz")
    assert "80 ids as the first table spells them" in ScoreTable.load(folder / "f.npz").source["respelt"]["flow"]
