"""From samples to videos, against loops in numpy."""

import numpy as np
import pytest

from store.scores import ScoreTable
from temporal.scoring import score_kind, video_scores
from temporal.spec import HeadSpec, RunSpec, SequenceSpec

OWNERS = np.array([0, 0, 0, 1, 2, 2])


@pytest.mark.parametrize("scale", [1.0, 500.0])  # softmaxes that are 0 in float32, whose logarithm must be finite all the same
def test_probabilities_of_a_videos_samples_are_averaged(scale):
    values = (np.random.default_rng(0).normal(size=(6, 4)) * scale).astype(np.float32)
    shifted = values.astype(np.longdouble) - values.max(axis=1, keepdims=True)
    softmax = np.exp(shifted) / np.exp(shifted).sum(axis=1, keepdims=True)
    expected = [np.log(softmax[np.equal(OWNERS, video)].mean(axis=0)) for video in range(3)]
    found = video_scores(values, OWNERS, "log_probs")
    np.testing.assert_allclose(found, np.array(expected, dtype=np.float64), rtol=1e-5, atol=1e-6)
    ScoreTable(("a", "b", "c"), ("w", "x", "y", "z"), found, "log_probs")  # which checks that they sum to 1


def test_decision_values_are_averaged_and_scores_stay():
    values = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    expected = [values[np.equal(OWNERS, video)].mean(axis=0) for video in range(3)]
    np.testing.assert_allclose(video_scores(values, OWNERS, "decision_values"), expected, rtol=1e-5)
    assert video_scores(values, np.arange(6), "scores") is values


def test_the_kind_follows_from_samples_and_head():
    assert score_kind(RunSpec()) == "scores"
    assert score_kind(RunSpec(SequenceSpec(samples="clips"))) == "log_probs"
    assert score_kind(RunSpec(SequenceSpec(samples="windows"), HeadSpec(name="svm_mean"))) == "decision_values"
