"""SVM heads: scikit-learn's decision values through the same runs as every other head."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.svm import LinearSVC

from store.scores import ScoreTable
from store.videos import write_csv
from temporal.answers import best_guesses, guesses_text
from temporal.experiment import train_list
from temporal.heads.svm import GRID
from temporal.picture import picture
from temporal.predict import predict
from temporal.predict_command import predict as predict_command
from temporal.run_dir import METRICS, SCORES, WEIGHTS
from temporal.sequences import Sequences
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec
from temporal.train import class_scores, fit, refit


def _sequences(num_videos: int, classes: int, clips: int = 4, width: int = 6, seed: int = 0) -> Sequences:
    """Videos of Gaussian classes; in groups of ``classes`` videos."""
    generator = np.random.default_rng(seed)
    labels = np.arange(num_videos) % classes
    centres = np.random.default_rng(7).normal(size=(classes, width))
    rows = centres[labels][:, None] + 1.5 * generator.normal(size=(num_videos, clips, width))
    names, groups = (
        tuple(f"{seed}-{number}" for number in range(num_videos)),
        tuple(f"g{number // classes}" for number in range(num_videos)),
    )
    starts = np.arange(num_videos) * clips
    return Sequences(names, rows.reshape(-1, width).astype(np.float32), starts, np.full(num_videos, clips), labels, groups)


def _spec(name: str = "svm_mean", **params) -> RunSpec:
    return RunSpec(SequenceSpec(sampling="all"), HeadSpec(name=name, params=params), TrainSpec(seed=3))


def _pooled(sequences: Sequences, pool: str, normalise: bool = True) -> np.ndarray:
    videos = sequences.rows.reshape(len(sequences), -1, sequences.width).astype(np.float64)
    pooled = {
        "svm_mean": videos.mean(1),
        "svm_max": videos.max(1),
        "svm_mean_std": np.concatenate([videos.mean(1), videos.std(1)], axis=1),
    }[pool]
    return pooled / np.linalg.norm(pooled, axis=1, keepdims=True) if normalise else pooled


def _scores(fitted, sequences: Sequences, spec: RunSpec) -> np.ndarray:
    from temporal.batches import padded

    return class_scores(fitted.head, padded(sequences, fitted.projection, spec.sequence, "cpu"), "decision_values")


@pytest.mark.parametrize(("name", "normalise"), [("svm_mean", "l2"), ("svm_max", "l2"), ("svm_mean_std", "none")])
def test_decision_values_are_scikit_learns(name, normalise):
    training, test = _sequences(60, 3), _sequences(30, 3, seed=1)
    spec = _spec(name, c=0.5, normalise=normalise)
    fitted = fit(training, None, spec, 3)
    features = [_pooled(part, name, normalise == "l2") for part in (training, test)]
    svm = LinearSVC(C=0.5, dual="auto", random_state=3).fit(features[0], training.labels)
    np.testing.assert_allclose(_scores(fitted, test, spec), svm.decision_function(features[1]), atol=2e-3)
    assert fitted.history[0]["converged"]


def test_two_classes_have_opposite_values_and_an_absent_class_the_lowest():
    training = _sequences(40, 2)
    spec = _spec(c=1)
    values = _scores(fit(training, None, spec, 3), training, spec)
    np.testing.assert_allclose(values[:, 0], -values[:, 1], atol=1e-6)
    np.testing.assert_allclose(values[:, 2], -1, atol=1e-6)


def test_the_validation_part_chooses_c_and_a_refit_keeps_it():
    training, validation = _sequences(60, 3), _sequences(30, 3, seed=1)
    spec = _spec()
    fitted = fit(training, validation, spec, 3)
    assert [record["c"] for record in fitted.history] == list(GRID)
    accuracies = []
    for c in GRID:
        svm = LinearSVC(C=c, dual="auto", random_state=3).fit(_pooled(training, "svm_mean"), training.labels)
        accuracies.append(svm.score(_pooled(validation, "svm_mean"), validation.labels))
    assert [record["val_accuracy"] for record in fitted.history] == pytest.approx(accuracies)
    assert fitted.best_epoch == int(np.argmax(accuracies)) + 1
    again = refit(fitted, training, spec, 3, "cpu", None)
    assert [record["c"] for record in again.history if record["phase"] == "refit"] == [GRID[fitted.best_epoch - 1]]


def test_a_run_is_saved_without_pickle_and_predicts(order_store, order_values, order_videos, make_store, tmp_path):
    spec = replace(_spec("svm_mean_std"), train=TrainSpec(validation=0.25, refit=True))
    run = train_list([order_store], order_videos, spec, tmp_path / "svm").runs[0]
    assert run.scores().kind == "decision_values"
    assert ScoreTable.load(run.path / SCORES).kind == "decision_values"
    assert len((run.path / METRICS).read_text().splitlines()) == len(GRID) + 1
    np.testing.assert_allclose(predict(run, [order_store], order_videos.select("test")).values, run.scores().values, atol=1e-6)
    assert b"pickle" not in (run.path / WEIGHTS).read_bytes()
    assert set(run.head()[0].state_dict()) == {"classifier.weight", "classifier.bias"}


def test_what_a_fit_gives_does_not_depend_on_other_fits_beside_it():
    """liblinear has one generator a process; more features than videos make it use it."""
    training = _sequences(60, 3, width=80)
    threads = torch.get_num_threads()
    torch.set_num_threads(4)
    try:
        fits = [fit(training, _sequences(30, 3, width=80, seed=1), _spec(), 3) for _ in range(3)]
    finally:
        torch.set_num_threads(threads)
    alone = fit(training, None, _spec(c=fits[0].history[fits[0].best_epoch - 1]["c"]), 3)
    for found in [*fits[1:], alone]:
        assert torch.equal(found.head.classifier.weight, fits[0].head.classifier.weight)


def test_predictions_show_decision_values_which_are_no_probabilities(order_store, order_videos, tmp_path):
    run = train_list([order_store], order_videos, replace(_spec(c=1), train=TrainSpec(validation=0)), tmp_path / "svm").runs[0]
    table = run.scores()
    guesses = best_guesses(table, 2)
    first = table.ids[0]
    assert [guess.value for guess in guesses[first]] == sorted(table.values[0].tolist(), reverse=True)
    assert f"{guesses[first][0].value:+.2f}  {guesses[first][0].name}" in guesses_text(guesses)
    assert "%" not in guesses_text(guesses)
    assert picture(table, dict.fromkeys(table.ids, "unseen"), {}, 5).startswith(b"\x89PNG")
    write_csv(order_videos, tmp_path / "list.csv")
    words = [run.path, tmp_path / "list.csv", "--json", "--top", "1", "--features", order_store.path]
    shown = CliRunner().invoke(predict_command, [str(word) for word in words], catch_exceptions=False)
    line = json.loads(shown.stdout.splitlines()[0])["top"][0]
    assert set(line) == {"class", "decision_value"}
