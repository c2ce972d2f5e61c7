"""Fitting: what it learns, that a seed decides it, that it refuses what cannot work."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from store.errors import TrainingError
from temporal import train
from temporal.batches import padded
from temporal.projection import fit_projection
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.train import class_scores, fit, refit


def order_sequences(num_videos: int = 80, clips: int = 6, width: int = 6, seed: int = 0) -> Sequences:
    """Two classes that differ only in which of two events comes first; see conftest.make_order_features."""
    generator = np.random.default_rng(seed)
    events = np.random.default_rng(99).normal(size=(2, width)).astype(np.float32)
    rows = np.zeros((num_videos, clips, width), dtype=np.float32)
    for number in range(num_videos):
        first, second = sorted(generator.choice(clips, size=2, replace=False))
        rows[number, first], rows[number, second] = events[number % 2], events[1 - number % 2]
    return Sequences(
        tuple(f"{seed}-{number}" for number in range(num_videos)),
        rows.reshape(-1, width),
        np.arange(num_videos) * clips,
        np.full(num_videos, clips),
        np.arange(num_videos) % 2,
        tuple(f"g{number // 4}" for number in range(num_videos)),
    )


def spec_for(head: str = "gru", output: str = "mean", **train) -> RunSpec:
    settings = {"epochs": 40, "validation": 0.0, "learning_rate": 0.01, "batch_size": 20} | train
    return RunSpec(
        SequenceSpec(sampling="all"),
        HeadSpec(name=head, hidden=6 if "res" in head else 12, layers=2, output=output, dropout=0.0),
        TrainSpec(**settings),
    )


def accuracy(spec: RunSpec, training: Sequences, test: Sequences) -> float:
    fitted = fit(training, None, spec, 2)
    return float((class_scores(fitted.head, padded(test, fitted.projection, spec.sequence, "cpu")).argmax(1) == test.labels).mean())


@pytest.mark.parametrize(
    ("head", "output"),
    [("lstm", "last"), ("gru", "last"), ("res_lstm", "last"), ("res_gru", "last"), ("gru", "mean"), ("res_lstm", "mean")],
)
def test_recurrent_heads_learn_the_order_of_events(head, output):
    assert accuracy(spec_for(head, output), order_sequences(), order_sequences(seed=1)) >= 0.95


@pytest.mark.parametrize("head", ["mean", "mean_std", "max"])
def test_pooling_heads_cannot(head):
    assert 0.3 <= accuracy(spec_for(head), order_sequences(), order_sequences(seed=1)) <= 0.7


@pytest.mark.parametrize("optimizer", ["rmsprop", "adam", "adamw", "sgd"])
def test_every_optimizer_lowers_the_loss(optimizer):
    history = fit(order_sequences(40), None, spec_for(optimizer=optimizer, epochs=15, learning_rate=0.005), 2).history
    assert history[-1]["train_loss"] < history[0]["train_loss"]


def _weights(fitted) -> dict[str, torch.Tensor]:
    return fitted.head.state_dict()


def test_a_seed_decides_the_result_and_global_generators_stay():
    spec = replace(spec_for(epochs=4), head=HeadSpec(name="gru", hidden=5, dropout=0.4))
    torch.manual_seed(1)
    before = torch.get_rng_state()
    numpy_before = np.random.get_state()[1].copy()  # noqa: NPY002
    first = fit(order_sequences(20), None, spec, 2)
    assert torch.equal(torch.get_rng_state(), before)
    assert np.array_equal(np.random.get_state()[1], numpy_before)  # noqa: NPY002
    torch.manual_seed(2)
    again = fit(order_sequences(20), None, spec, 2)
    other = fit(order_sequences(20), None, replace(spec, train=replace(spec.train, seed=1)), 2)
    assert first.history == again.history
    assert all(torch.equal(value, _weights(again)[key]) for key, value in _weights(first).items())
    assert any(not torch.equal(value, _weights(other)[key]) for key, value in _weights(first).items())


@pytest.mark.parametrize("head", ["mean", "mean_std", "max"])
def test_pooling_once_gives_the_bits_of_pooling_in_every_epoch(head, monkeypatch):
    training, validation = order_sequences(40), order_sequences(20, seed=2)
    once = fit(training, validation, spec_for(head, epochs=4), 2)
    monkeypatch.setattr(train, "pooled", lambda _, data: data)
    every = fit(training, validation, spec_for(head, epochs=4), 2)
    assert once.history == every.history
    assert all(torch.equal(value, _weights(every)[key]) for key, value in _weights(once).items())


def test_early_stopping_keeps_the_best_epochs_weights():
    training, validation = order_sequences(40), order_sequences(20, seed=2)
    validation = replace(validation, labels=np.random.default_rng(0).integers(0, 2, 20))  # cannot be learned: validation loss must rise
    spec = spec_for(epochs=60, patience=5)
    fitted = fit(training, validation, spec, 2)
    losses = [record["val_loss"] for record in fitted.history]
    assert fitted.best_epoch == 1 + int(np.argmin(losses))
    assert len(losses) == fitted.best_epoch + 5 < 60
    scores = class_scores(fitted.head, padded(validation, fitted.projection, spec.sequence, "cpu")).astype(np.float64)
    log_sums = np.log(np.exp(scores).sum(1))
    assert np.mean(log_sums - scores[np.arange(20), validation.labels]) == pytest.approx(min(losses), rel=1e-5)


def test_refit_trains_anew_on_everything_for_the_epochs_found():
    everything = order_sequences(40)
    spec = spec_for(epochs=8, patience=3)
    fitted = fit(everything.subset(range(28)), everything.subset(range(28, 40)), spec, 2)
    again = refit(fitted, everything, spec, 2, "cpu", None)
    direct = fit(everything, None, replace(spec, train=replace(spec.train, epochs=fitted.best_epoch)), 2)
    assert all(torch.equal(value, _weights(direct)[key]) for key, value in _weights(again).items())
    assert [record["phase"] for record in again.history[-fitted.best_epoch :]] == ["refit"] * fitted.best_epoch


def test_projections_are_fitted_on_training_features_only():
    everything = order_sequences(40)
    training, validation = everything.subset(range(20)), everything.subset(range(20, 40))
    spec = replace(spec_for(epochs=1), sequence=SequenceSpec(znorm=True, projection="pca", width=3))
    fitted = fit(training, validation, spec, 2)
    expected = fit_projection(everything.rows[:120], spec.sequence)
    np.testing.assert_array_equal(fitted.projection.mean, expected.mean)
    np.testing.assert_array_equal(fitted.projection.components, expected.components)
    np.testing.assert_allclose(fitted.projection.mean, everything.rows[:120].mean(0), atol=1e-6)


def test_untrainable_parts_are_refused_in_words():
    good = order_sequences(8)
    with pytest.raises(TrainingError, match="there is 1 training video"):
        fit(good.subset([0]), None, spec_for(), 2)
    with pytest.raises(TrainingError, match="all 4 training videos are of one class"):
        fit(good.subset([0, 2, 4, 6]), None, spec_for(), 2)
    with pytest.raises(TrainingError, match="2 training videos have no label: 0-1, 0-3"):
        fit(replace(good, labels=np.array([0, -1, 0, -1, 0, 1, 0, 1])), None, spec_for(), 2)


def test_a_loss_that_is_no_number_is_an_error():
    wild = order_sequences(8)
    with pytest.raises(TrainingError, match=r"training loss became (nan|inf) in epoch \d+; lower --train\.learning-rate"):
        fit(replace(wild, rows=wild.rows * np.float32(1e38)), None, spec_for("mean", optimizer="sgd", gradient_clip=0.0), 2)
