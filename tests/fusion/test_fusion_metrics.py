import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import balanced_accuracy_score, confusion_matrix, top_k_accuracy_score

from fusion import bootstrap, metrics
from store.errors import ScoreError


@pytest.fixture(scope="module")
def case() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 12, 400)
    values = generator.normal(size=(400, 12))
    values[np.arange(400), labels] += 1.2
    return values.astype(np.float32), labels


@pytest.mark.parametrize("ties", ["wrong", "index"])
@pytest.mark.parametrize("k", [1, 2, 5, 12])
def test_top_k_equals_scikit_learn(case, k, ties):
    values, labels = case
    expected = 1.0 if k == 12 else top_k_accuracy_score(labels, values, k=k, labels=np.arange(12))
    assert metrics.topk_accuracy(values, labels, k, ties) == pytest.approx(expected)


def test_confusion_and_class_accuracy_equal_scikit_learn(case):
    values, labels = case
    result = metrics.evaluate(values, labels, samples=10)
    np.testing.assert_array_equal(result.confusion, confusion_matrix(labels, values.argmax(axis=1)))
    assert result.mean_class == pytest.approx(balanced_accuracy_score(labels, values.argmax(axis=1)))
    np.testing.assert_array_equal(result.counts, np.bincount(labels))
    assert result.top1 == pytest.approx(np.trace(result.confusion) / 400)


def test_a_constant_row_is_never_right():
    values, labels = np.zeros((3, 4)), np.array([0, 1, 3])
    assert metrics.topk_accuracy(values, labels, 1) == 0
    assert metrics.topk_accuracy(values, labels, 3) == 0
    assert metrics.topk_accuracy(values, labels, 4) == 1
    np.testing.assert_array_equal(metrics.predictions(values, labels), [1, 0, 0])
    np.testing.assert_array_equal(metrics.order(values, labels), [[1, 2, 3, 0], [0, 2, 3, 1], [0, 1, 2, 3]])


def test_ties_by_index_are_what_argmax_does():
    values, labels = np.array([[1.0, 1, 0], [1, 1, 0], [0, 0, 0]]), np.array([0, 1, 2])
    np.testing.assert_array_equal(metrics.ranks(values, labels, "index"), [0, 1, 2])
    np.testing.assert_array_equal(metrics.ranks(values, labels, "wrong"), [1, 1, 2])
    np.testing.assert_array_equal(metrics.predictions(values, labels, "index"), values.argmax(axis=1))
    np.testing.assert_array_equal(metrics.order(values, labels, "index"), [[0, 1, 2]] * 3)


@pytest.mark.parametrize("ties", ["wrong", "index"])
def test_predictions_ranks_and_order_agree_on_many_ties(ties):
    generator = np.random.default_rng(1)
    values, labels = generator.integers(0, 3, (500, 5)).astype(np.float32), generator.integers(0, 5, 500)
    ranks, order = metrics.ranks(values, labels, ties), metrics.order(values, labels, ties)
    np.testing.assert_array_equal(order[np.arange(500), ranks], labels)
    np.testing.assert_array_equal(order[:, 0], metrics.predictions(values, labels, ties))


def test_classes_without_videos_are_left_out_of_the_mean():
    values, labels = np.array([[1.0, 0, 0], [1, 0, 0]]), np.array([0, 1])
    result = metrics.evaluate(values, labels, samples=5)
    np.testing.assert_array_equal(result.per_class, [1, 0, np.nan])
    assert result.mean_class == 0.5
    assert result.top5 == 1


def test_one_class_is_always_right():
    assert metrics.evaluate(np.zeros((2, 1)), np.array([0, 0]), samples=5).top1 == 1


def test_bootstrap_means_equal_the_resamples_taken_one_by_one(case):
    values, labels = case
    hits = metrics.ranks(values, labels) == 0
    means, class_means = bootstrap.bootstrap_means(hits, 20, seed=3), bootstrap.bootstrap_class_means(hits, labels, 12, 20, seed=3)
    counts = np.concatenate(list(bootstrap.resamples(400, 20, seed=3))).astype(int)
    assert counts.shape == (20, 400)
    for row, mean, class_mean in zip(counts, means, class_means, strict=True):
        drawn = np.repeat(np.arange(400), row)
        assert len(drawn) == 400
        assert mean == pytest.approx(hits[drawn].mean())
        expected = np.mean([hits[drawn][labels[drawn] == label].mean() for label in np.unique(labels[drawn])])
        assert class_mean == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("named", [40, 25])
def test_whole_groups_are_drawn_with_all_of_their_videos(case, named):
    values, labels = case
    hits = metrics.ranks(values, labels) == 0
    ids = [f"v{row}" for row in range(400)]
    groups = {name: f"film {row % 40}" for row, name in enumerate(ids) if row % 40 < named}
    units = bootstrap.whole_groups(ids, groups)
    assert units.count == named + (400 - 10 * named)  # a video without a group is one by itself
    means, class_means = (
        f(hits, *more, 30, 3, units) for f, more in ((bootstrap.bootstrap_means, ()), (bootstrap.bootstrap_class_means, (labels, 12)))
    )
    for row, mean, class_mean in zip(
        np.concatenate(list(bootstrap.resamples(units.count, 30, 3))).astype(int), means, class_means, strict=True
    ):
        drawn = np.concatenate([np.flatnonzero(units.of == unit) for unit in np.repeat(np.arange(units.count), row)])
        assert mean == pytest.approx(hits[drawn].mean())
        expected = np.mean([hits[drawn][labels[drawn] == label].mean() for label in np.unique(labels[drawn])])
        assert class_mean == pytest.approx(expected, rel=1e-6)


def test_intervals_of_videos_alike_within_groups_are_as_wide_as_the_groups_say():
    hits = np.repeat(np.arange(100) % 5 != 0, 10)  # all ten videos of a group are right, or none
    units = bootstrap.whole_groups([str(row) for row in range(1000)], {str(row): f"g{row // 10}" for row in range(1000)})
    assert bootstrap.bootstrap_means(hits, 4000, 0, units).std() == pytest.approx(np.sqrt(0.8 * 0.2 / 100), rel=0.05)


def test_bootstrap_interval_is_as_wide_as_the_binomial_says():
    hits = np.arange(1000) % 5 != 0  # 80 %
    draws = bootstrap.bootstrap_means(hits, 4000, seed=0)
    assert draws.std() == pytest.approx(np.sqrt(0.8 * 0.2 / 1000), rel=0.05)
    spread = bootstrap.interval(draws, 0.95)
    assert spread.high - spread.low == pytest.approx(2 * 1.96 * np.sqrt(0.8 * 0.2 / 1000), rel=0.06)
    np.testing.assert_array_equal(draws, bootstrap.bootstrap_means(hits, 4000, seed=0))
    assert not np.array_equal(draws, bootstrap.bootstrap_means(hits, 4000, seed=1))


def test_resamples_in_blocks_have_bounded_size(monkeypatch):
    monkeypatch.setattr(bootstrap, "_BLOCK_BYTES", 8 * 50 * 3)
    assert [block.shape for block in bootstrap.resamples(50, 7, seed=0)] == [(3, 50), (3, 50), (1, 50)]


@pytest.mark.parametrize(("only_first", "only_second"), [(0, 0), (1, 0), (9, 3), (30, 30), (252, 30), (3, 400)])
def test_mcnemar_equals_the_exact_binomial_test(only_first, only_second):
    first = np.repeat([True, False, True, False], [only_first, only_second, 7, 5])
    second = np.repeat([False, True, True, False], [only_first, only_second, 7, 5])
    total = only_first + only_second
    expected = binomtest(only_first, total).pvalue if total else 1.0
    result = metrics.mcnemar(first, second)
    assert (result.only_first, result.only_second) == (only_first, only_second)
    assert result.p == pytest.approx(expected, rel=1e-9)


def test_agreement():
    first, second = np.array([1, 1, 0, 0, 1], bool), np.array([1, 0, 1, 0, 1], bool)
    shares = metrics.agreement(first, second)
    assert shares == pytest.approx({"both": 0.4, "only_first": 0.2, "only_second": 0.2, "neither": 0.2, "either": 0.8})


def test_calibration_error_by_its_definition(case):
    values, labels = case
    p = np.exp(values) / np.exp(values).sum(axis=1, keepdims=True)
    confidence, right = p.max(axis=1), p.argmax(axis=1) == labels
    expected = 0.0
    for low in np.arange(10) / 10:
        inside = (confidence >= low) & (confidence < low + 0.1)
        if inside.any():
            expected += inside.mean() * abs(right[inside].mean() - confidence[inside].mean())
    assert metrics.calibration_error(p, labels, bins=10) == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize(
    ("values", "labels", "words"),
    [
        (np.zeros((2, 3)), np.array([0]), "do not fit"),
        (np.zeros((0, 3)), np.array([], int), "do not fit"),
        (np.array([[0, np.nan]]), np.array([0]), r"not finite \(first: row 0\)"),
        (np.zeros((2, 3)), np.array([0, 3]), r"label 3 in row 1 is outside 0\.\.2"),
        (np.zeros((2, 3)), np.array([-1, 0]), "label -1 in row 0"),
    ],
)
def test_scores_and_labels_that_do_not_fit(values, labels, words):
    with pytest.raises(ScoreError, match=words):
        metrics.evaluate(values, labels)


def test_questions_without_an_answer():
    with pytest.raises(ScoreError, match="top-0"):
        metrics.topk_accuracy(np.zeros((1, 2)), np.array([0]), 0)
    with pytest.raises(ScoreError, match="level of an interval is 1"):
        bootstrap.interval(np.zeros(3), 1)
    with pytest.raises(ScoreError, match="0 bootstrap samples"):
        bootstrap.bootstrap_means(np.ones(3), 0)
    with pytest.raises(ScoreError, match="same videos"):
        metrics.mcnemar(np.ones(3, bool), np.ones(4, bool))
