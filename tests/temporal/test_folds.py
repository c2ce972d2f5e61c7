"""Whole groups stay on one side, and every class stays in training."""

from pathlib import Path

import numpy as np
import pytest

from store.errors import TrainingError
from store.videos import Video, VideoList
from temporal.folds import leave_one_group_out, list_part, validation_part


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("share", [0.05, 0.15, 0.4])
def test_validation_keeps_groups_together_and_classes_in_training(seed, share):
    generator = np.random.default_rng(seed)
    labels = generator.integers(0, 5, size=200)
    groups = [f"g{number}" for number in generator.integers(0, 25, size=200)]
    training, validation = validation_part(labels, groups, share, seed)
    assert sorted([*training, *validation]) == list(range(200))
    assert not {groups[i] for i in training} & {groups[i] for i in validation}
    assert set(labels[training]) == set(labels)
    assert len(validation) / 200 == pytest.approx(share, abs=0.06)


def test_each_class_gets_its_share():
    labels = np.repeat(np.arange(4), 50)
    groups = [f"{label}-{number % 10}" for label in range(4) for number in range(50)]  # ten groups of five a class, as in UCF-101
    _, validation = validation_part(labels, groups, 0.2, seed=1)
    assert np.bincount(labels[validation]).tolist() == [10, 10, 10, 10]


def test_videos_without_groups_are_their_own():
    labels = np.repeat(np.arange(2), 10)
    _, validation = validation_part(labels, [""] * 20, 0.2, seed=0)
    assert np.bincount(labels[validation]).tolist() == [2, 2]


def test_another_seed_takes_other_groups():
    labels = np.tile(np.arange(2), 50)
    groups = [str(number // 2) for number in range(100)]
    parts = {tuple(validation_part(labels, groups, 0.1, seed)[1]) for seed in range(4)}
    assert len(parts) > 1
    assert tuple(validation_part(labels, groups, 0.1, 2)[1]) in parts


def test_one_group_cannot_be_split():
    with pytest.raises(TrainingError, match=r"all 4 training videos are of one group.*--train\.validation 0"):
        validation_part(np.array([0, 1, 0, 1]), ["g"] * 4, 0.2, 0)


def test_a_group_that_holds_a_whole_class_is_never_taken():
    labels = np.array([0, 0, 1, 1, 1, 1])
    _, validation = validation_part(labels, ["a", "a", "b", "b", "c", "c"], 0.2, 0)
    assert set(labels[validation]) == {1}
    with pytest.raises(TrainingError, match=r"each of the 2 groups holds all training videos of some class.*--train\.validation 0"):
        validation_part(np.array([0, 0, 1, 1]), ["a", "a", "b", "b"], 0.5, 0)


def test_leave_one_group_out_tests_every_video_once():
    groups = ["b", "a", "b", "c"]
    parts = leave_one_group_out(groups)
    assert [part.name for part in parts] == ["group a", "group b", "group c"]
    assert sorted(np.concatenate([part.test for part in parts])) == [0, 1, 2, 3]
    assert all(not set(part.train) & set(part.test) and len(part.train) + len(part.test) == 4 for part in parts)


def test_cross_validation_needs_groups():
    with pytest.raises(TrainingError, match="1 of 2 videos have no group"):
        leave_one_group_out(["a", ""])
    with pytest.raises(TrainingError, match="all 2 videos are of one group"):
        leave_one_group_out(["a", "a"])


def _list(*splits):
    return VideoList(tuple(Video(str(n), Path(str(n)), "x", split) for n, split in enumerate(splits)), ("x",))


def test_the_lists_own_split_is_used():
    part = list_part(_list("test", "train", "val", "", "train"))
    assert (part.train.tolist(), part.validation.tolist(), part.test.tolist()) == ([1, 4], [2], [0])
    assert list_part(_list("", "")).train.tolist() == [0, 1]
    with pytest.raises(TrainingError, match=r"none of the 2 videos is in the split train .the list has test, val"):
        list_part(_list("val", "test"))
