import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from store.errors import ListError, ScoreError
from store.score_commands import scores
from store.scores import ScoreTable

IDS = tuple(f"v{index:02d}.avi" for index in range(40))
CLASSES = ("jump", "run", "wave")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A table of 40 videos as csv and npz, and its list in another order."""
    labels = np.arange(40) % 3
    values = np.random.default_rng(0).normal(size=(40, 3))
    values[np.arange(40), labels] += 3
    ScoreTable(IDS, CLASSES, values, "scores", labels, {"head": "gru"}).save(tmp_path / "t.npz")
    rows = [f"{IDS[at]},{IDS[at]},{CLASSES[at % 3]},{'test' if at % 2 else 'train'}," for at in reversed(range(40))]
    (tmp_path / "list.csv").write_text("\n".join(["id,path,label,split,group", *rows]) + "\n")
    return tmp_path


def run(*arguments: Any) -> str:
    result = CliRunner().invoke(scores, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.output


def test_out_and_in_again(folder: Path) -> None:
    assert "40 videos, 3 classes, scores, labelled" in run("export", folder / "t.npz", "-o", folder / "t.csv")
    assert "wrote" in run("import", folder / "t.csv", "-o", folder / "back.npz", "--kind", "scores", "--origin", "a paper")
    before, after = ScoreTable.load(folder / "t.npz"), ScoreTable.load(folder / "back.npz")
    np.testing.assert_array_equal(after.values, before.values)
    np.testing.assert_array_equal(after.labels, before.labels)  # type: ignore[arg-type]
    assert after.source["origin"] == "a paper"


def test_mmaction2_by_the_order_of_a_list(folder: Path) -> None:
    listed = ["--list", folder / "list.csv", "--split", "test"]
    run("export", folder / "t.npz", "-o", folder / "t.pkl", *listed)
    run("import", folder / "t.pkl", "-o", folder / "back.npz", "--kind", "scores", "--rows", "list", *listed)
    before, after = ScoreTable.load(folder / "t.npz"), ScoreTable.load(folder / "back.npz")
    assert after.ids == tuple(name for name in reversed(IDS) if IDS.index(name) % 2)
    np.testing.assert_array_equal(after.values, before.rows(after.ids).values)


def test_show(folder: Path) -> None:
    text = run("show", folder / "t.npz")
    assert "40 videos, 3 classes" in text
    assert '"head": "gru"' in text
    assert "(label)" in run("show", folder / "t.npz", "--video", "v03.avi")
    data = json.loads(run("show", folder / "t.npz", "--json"))
    assert data["classes"] == list(CLASSES)
    with pytest.raises(ScoreError, match=r"not in this table of 40: none"):
        run("show", folder / "t.npz", "--video", "none")


def test_formats_are_listed(folder: Path) -> None:
    text = run("formats")
    assert all(name in text for name in ("csv", "mat", "mmaction2", "npz"))


def test_a_class_file_that_is_none(folder: Path) -> None:
    run("export", folder / "t.npz", "-o", folder / "t.csv")
    (folder / "classes.txt").write_text("")
    with pytest.raises(ListError, match="holds no class names"):
        run("import", folder / "t.csv", "-o", folder / "b.npz", "--kind", "scores", "--classes", folder / "classes.txt")
