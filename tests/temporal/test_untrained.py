"""Classes without a training video are named before the training."""

from dataclasses import replace
from pathlib import Path

from click.testing import CliRunner

import cli
from store.videos import VideoList, write_csv
from temporal.untrained import untrained_notes


def _list(videos: VideoList, label: str, ids: set[str], split: str | None = None) -> VideoList:
    """The list with a third class: the videos ``ids``, moved to ``split``."""
    moved = [replace(v, label=label, split=v.split if split is None else split) if v.id in ids else v for v in videos]
    return VideoList(tuple(moved), (*videos.classes, label))


def test_a_class_with_test_videos_only(order_videos):
    assert untrained_notes({0: order_videos}, False, False) == []
    lost = _list(order_videos, "jump", {"v22", "v23"})
    note = "1 of 3 classes have no training video, so their 2 test videos can never be right: jump"
    assert untrained_notes({0: lost}, False, False) == [note]
    assert untrained_notes({1: order_videos, 2: lost}, False, False) == [f"split 2: {note}"]
    chosen = _list(order_videos, "jump", {"v00", "v01"}, "val")
    assert untrained_notes({0: chosen}, False, False) == [
        "1 of 3 classes have no training video, so the list has no test video of them: jump"
    ]
    assert untrained_notes({0: chosen}, False, True) == []  # the refit is on validation videos, too


def test_a_class_of_one_group_in_a_cross_validation(order_videos):
    assert untrained_notes({0: order_videos}, True, False) == []
    assert untrained_notes({0: _list(order_videos, "jump", {"v22", "v01"})}, True, False) == []
    (note,) = untrained_notes({0: _list(order_videos, "jump", {"v22", "v23"})}, True, False)
    assert note.startswith("1 of 3 classes have videos of one group only")
    assert note.endswith("and their 2 videos can never be right: jump")


def test_it_is_told_before_the_training(order_videos, order_store, tmp_path: Path):
    write_csv(_list(order_videos, "jump", {"v22", "v23"}), tmp_path / "list.csv")
    words = [str(tmp_path / "list.csv"), "--features", str(order_store.path), "--name", "one", "--out", str(tmp_path)]
    words += ["--train.epochs", "1", "--head.name", "mean"]
    for command in (["train-head", *words], ["sweep", *words, "--out", str(tmp_path / "sweeps"), "--grid", "head.hidden=4"]):
        told = CliRunner().invoke(cli.cli, command).stderr
        assert told.startswith("warning: 1 of 3 classes have no training video, so their 2 test videos can never be right: jump\n")
        assert told.count("warning") == 1
