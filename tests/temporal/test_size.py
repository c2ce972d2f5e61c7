"""Heads too large for any machine are refused in words, without being allocated."""

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import cli
from store.errors import SpecError, TrainingError
from store.videos import Video, VideoList, write_csv
from temporal.size import check_size
from temporal.spec import HeadSpec


def test_what_fits_is_let_through():
    check_size(HeadSpec(name="gru", hidden=128), 1024, 101)


@pytest.mark.parametrize("head", ["gru", "res_lstm", "sru"])
def test_absurd_sizes_are_refused_with_the_numbers(head):
    with pytest.raises(TrainingError, match=rf"head {head} with hidden 100000000 and layers [12], .*; choose a smaller --head.hidden"):
        check_size(HeadSpec(name=head, hidden=100_000_000), 1024, 101)
    with pytest.raises(TrainingError, match=r"has \d.*e\+\d+ weights; training them takes [\d,]+ GB, and this machine has [\d,]+"):
        check_size(HeadSpec(name=head, hidden=1_000_000), 1024, 101)


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ("--head.name transformer --head.hidden 30", "head.hidden is 30, which 4 attention heads cannot share"),
        ("--head.name transformer --head.hidden 8 --head.params longest=5 --sequence.sampling all", "a sequence has 8 steps, but head"),
        ("--head.name temporal_conv --head.params kernel=4", "kernel is 4; it must be odd"),
        ("--head.hidden 100000000", "choose a smaller --head.hidden"),
        ("--sequence.projection pca --sequence.width 400", "PCA to width 400 needs at least"),
        ("--head.name temporal_conv --seeds 0,1 --together", "these heads cannot be trained together"),
        ("--head.layers 3000000", "head.layers is 3000000; it must be at most 1000"),
    ],
)
def test_refused_before_any_progress(settings, words, order_videos, order_store, tmp_path):
    write_csv(order_videos, tmp_path / "list.csv")
    command = ["train-head", tmp_path / "list.csv", "--features", order_store.path, "--name", "one", "--out", tmp_path / "runs"]
    told = CliRunner().invoke(cli.cli, [*map(str, command), *settings.split()])
    assert isinstance(told.exception, SpecError | TrainingError)
    assert words in str(told.exception)
    assert told.stderr == ""
    assert not (tmp_path / "runs").exists()


def test_a_long_video_of_a_part_that_is_not_read_refuses_nothing(make_store, tmp_path):
    """Without a validation share the list's validation videos are neither trained on nor scored."""
    random = np.random.default_rng(0)
    lengths = {"a": 4, "b": 4, "c": 4, "d": 4, "long": 9, "t": 4}
    store = make_store({id_: random.standard_normal((length, 3)).astype(np.float16) for id_, length in lengths.items()})
    splits = {"long": "val", "t": "test"}
    videos = [Video(id_, Path(id_), "xy"[number % 2], splits.get(id_, "train"), id_) for number, id_ in enumerate(lengths)]
    write_csv(VideoList(tuple(videos), ("x", "y")), tmp_path / "list.csv")
    command = f"train-head {tmp_path / 'list.csv'} --features {store.path} --name one --out {tmp_path / 'runs'} --train.epochs 1"
    command += " --head.name transformer --head.hidden 8 --head.params longest=5 --sequence.sampling all --train.validation"
    assert CliRunner().invoke(cli.cli, [*command.split(), "0"]).exit_code == 0
    told = CliRunner().invoke(cli.cli, [*command.split(), "0.2", "--name", "two"])
    assert "a sequence has 9 steps" in str(told.exception)
