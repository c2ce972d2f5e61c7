"""The picture of predictions: which videos are in it, and which names it takes."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
from store.errors import SpecError
from store.scores import ScoreTable
from store.videos import VideoList, write_csv
from temporal.experiment import train_list
from temporal.picture import PICTURED, check_picture, chosen, picture, spaced
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

QUICK = RunSpec(SequenceSpec(steps=8), HeadSpec(name="mean"), TrainSpec(epochs=1, validation=0.0))


def test_videos_that_are_new_to_the_run_come_first():
    ids = [f"v{number}" for number in range(60)]
    parts = {id_: "unseen" if number >= 50 else "trained on" for number, id_ in enumerate(ids)}
    found, words = chosen(ids, parts, ())
    assert found == [*ids[50:], *ids[: PICTURED - 10]]
    assert words.startswith("20 of 60 videos, those first that the run was not trained on; --draw ID")
    assert chosen(ids, dict.fromkeys(ids, "trained on"), ())[1].startswith("20 of 60 videos, the first ones; --draw ID")
    assert chosen(ids[:3], parts, ()) == (ids[:3], "all 3 videos")
    assert chosen(ids, parts, ("v7", "v3", "v7")) == (["v7", "v3"], "2 of 60 videos")


def test_names_and_videos_are_checked_before(tmp_path):
    for name in ("x.xyz", "x", "x.npz"):
        with pytest.raises(SpecError, match=r"it can be one of \.png, \.svg, \.pdf"):
            check_picture(tmp_path / name, (), ["a"])
    with pytest.raises(SpecError, match=r"--draw c: there is no such video among the 2, e\.g\. a, b"):
        check_picture(tmp_path / "x.png", ("a", "c"), ["a", "b"])
    with pytest.raises(SpecError, match="give --picture FILE, too"):
        check_picture(None, ("a",), ["a"])
    check_picture(tmp_path / "x.PNG", ("a",), ["a"])


@pytest.mark.parametrize("suffix", [".png", ".svg", ".pdf"])
def test_a_picture_is_of_the_kind_of_its_name(suffix):
    values = np.array([[2.0, 1.0, 0.0], [0.0, 1.0, 0.5]], np.float32)
    table = ScoreTable(("a$", "b"), ("x", "y", "$z"), values, "scores", np.array([0, 2]))
    data = picture(table, {"a$": "unseen", "b": "trained on"}, {"b": np.zeros((8, 50, 3), np.uint8)}, 5, suffix)
    assert data.startswith({".png": b"\x89PNG", ".svg": b"<?xml", ".pdf": b"%PDF"}[suffix])
    if suffix == ".svg":
        for words in (b"b (trained on) - true class: $z", b"best class, right", b"66.5 %"):
            assert words in data


def test_frames_are_told_apart():
    strip = np.zeros((4, 20, 3), np.uint8)
    assert (spaced(strip, 5)[0, :, 0] == 255).sum() == 4 * 4
    assert spaced(strip[:, :19], 5).shape == (4, 19, 3)


def test_predict_says_what_it_drew(order_store, order_videos: VideoList, tmp_path: Path):
    run = train_list([order_store], order_videos, QUICK, tmp_path / "one").runs[0]
    write_csv(order_videos, tmp_path / "list.csv")
    words = ["predict", run.path, tmp_path / "list.csv", "--features", order_store.path, "--picture"]
    told = CliRunner().invoke(cli.cli, [*map(str, words), str(tmp_path / "x.xyz")])
    assert isinstance(told.exception, SpecError)
    assert not (tmp_path / "x.xyz").exists()
    told = CliRunner().invoke(cli.cli, [*map(str, words), str(tmp_path / "x.svg")])
    assert "x.svg shows 20 of 24 videos, those first that the run was not trained on" in told.stderr, told.output
    assert (tmp_path / "x.svg").read_bytes().count(b"- true class: ") == 20
    told = CliRunner().invoke(cli.cli, [*map(str, words), str(tmp_path / "y.svg"), "--draw", "v03"])
    assert "y.svg shows 1 of 24 videos" in told.stderr
