"""Several splits in one command: a run each, and the mean of the splits."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from store.errors import ListError, StoreError
from store.videos import VideoList, write_csv
from temporal.commands import train_head
from temporal.experiment import train_list, train_splits
from temporal.run_dir import SUMMARY, Run
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

SPEC = RunSpec(SequenceSpec(steps=8), HeadSpec(name="mean"), TrainSpec(epochs=2, validation=0.25))


def _second_split(videos: VideoList) -> VideoList:
    """Groups g0 and g1 are tested instead."""
    return VideoList(tuple(replace(video, split="test" if video.group in ("g0", "g1") else "train") for video in videos), videos.classes)


def test_each_split_is_as_if_it_were_alone_and_their_mean_is_written(order_store, order_videos, tmp_path):
    lists = {1: order_videos, 2: _second_split(order_videos)}
    for number, videos in lists.items():
        write_csv(videos, tmp_path / f"list{number}.csv")
    settings = "--train.epochs 2 --head.name mean --sequence.steps 8 --train.validation 0.25 --jobs 1 --splits 1,2"
    words = [str(tmp_path / "list{}.csv"), "--features", str(order_store.path), "--name", "both", "--out", str(tmp_path), *settings.split()]
    result = CliRunner().invoke(train_head, words, catch_exceptions=False)
    assert result.exit_code == 0, result.output
    runs = [Run.open(tmp_path / "both" / f"split-{number}") for number in lists]
    for run, videos in zip(runs, lists.values(), strict=True):
        alone = train_list([order_store], videos, SPEC, tmp_path / "alone" / run.name, seeds=[0], jobs=1).runs[0]
        assert np.array_equal(run.scores().values, alone.scores().values)
        assert run.scores().ids == tuple(video.id for video in videos if video.split == "test")
    summary = json.loads((tmp_path / "both" / SUMMARY).read_text())
    assert summary["splits"] == {"1": runs[0].result["top1"], "2": runs[1].result["top1"]}
    assert summary["mean"] == pytest.approx((runs[0].result["top1"] + runs[1].result["top1"]) / 2)
    assert result.stdout.splitlines()[-1].startswith(f"{tmp_path / 'both'}: top-1 {100 * summary['mean']:.2f} % mean of 2 splits")
    with pytest.raises(StoreError, match="holds the runs of several splits, so it cannot be one run"):
        train_list([order_store], order_videos, SPEC, tmp_path / "both")


def test_splits_that_contradict_one_another_are_refused(order_store, order_videos, tmp_path):
    first = order_videos.videos[0]
    other = VideoList((replace(first, group="elsewhere"), *order_videos.videos[1:]), order_videos.classes)
    with pytest.raises(ListError, match="1 videos have another label or group in another split: v00"):
        train_splits([order_store], {1: order_videos, 2: other}, SPEC, tmp_path / "both", jobs=1)


def test_wrong_usage_is_told(order_videos, order_store, tmp_path):
    write_csv(order_videos, tmp_path / "list.csv")
    words = [str(tmp_path / "list.csv"), "--features", str(order_store.path), "--name", "x", "--out", str(tmp_path / "runs")]
    for more, told in (
        (["--splits", "1,1"], "no list of different whole numbers"),
        (["--splits", "1,2", "--fold", "1"], "--fold and --splits both say which split"),
    ):
        result = CliRunner().invoke(train_head, [*words, *more])
        assert result.exit_code == 2
        assert told in result.output
    assert not Path(tmp_path / "runs").exists()
