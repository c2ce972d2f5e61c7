import numpy as np
import pytest

from fusion.examples import choose_examples
from fusion.figures import matrix
from fusion.results import hardest_confusions, judge
from fusion.spec import EvaluateSpec
from store.scores import ScoreTable


def test_examples_are_what_their_group_says(tables):
    results = judge(tables)
    groups = choose_examples(results, 3)
    best, single = results.table(results.best).predicted, results.table("flow").predicted
    row = {name: place for place, name in enumerate(results.aligned.ids)}
    assert next(iter(groups)) == "Right, where flow alone is wrong"
    for title, examples in groups.items():
        assert 1 <= len(examples) <= 3
        for example in examples:
            place = row[example.id]
            assert (best[place] == results.labels[place]) == title.startswith("Right")
            if "flow alone" in title:
                assert (single[place] == results.labels[place]) != title.startswith("Right")
            roles = {bar.name: bar.role for bar in example.bars}
            assert roles[example.predicted] == ("right" if example.predicted == example.truth else "wrong")
            assert roles[example.truth] in ("right", "truth")
            values = results.scores(results.best)[place].astype(float)
            expected = np.sort(np.exp(values) / np.exp(values).sum())[::-1][:5]
            np.testing.assert_allclose([bar.value for bar in example.bars][:5], expected, rtol=1e-5)
    assert choose_examples(judge(tables), 3) == groups
    assert choose_examples(judge(tables, EvaluateSpec(seed=1)), 3) != groups


def test_the_truth_is_shown_even_when_it_comes_last():
    values = np.arange(8, dtype=np.float32)[None]
    table = ScoreTable(("v",), tuple("abcdefgh"), values, "decision_values", np.array([0]))
    bars = choose_examples(judge({"svm": table}))["Wrong"][0].bars
    assert [(bar.name, bar.role) for bar in bars] == [
        ("h", "wrong"),
        ("g", "other"),
        ("f", "other"),
        ("e", "other"),
        ("d", "other"),
        ("a", "truth"),
    ]
    assert [bar.share for bar in bars] == pytest.approx([1, 6 / 7, 5 / 7, 4 / 7, 3 / 7, 0])


def test_examples_come_from_different_classes(make_table):
    table = make_table(0, labels=np.array([0] * 30 + [1, 2, 3, 4, 5] * 2), gain=20.0)
    chosen = choose_examples(judge({"rgb": table}), 6)["Right"]
    assert len({example.truth for example in chosen}) == 6


def test_matrix_fits_the_page_and_holds_every_video():
    for number in (2, 6, 51, 101):
        confusion = np.eye(number, dtype=int) * 3
        confusion[0, 1] = 1
        layout = matrix(confusion, tuple(f"class_number_{index}" for index in range(number)))
        assert layout.width <= 1160
        assert layout.font >= 8.5
        assert sum(cell.count for cell in layout.cells) == confusion.sum()
        assert [cell.right for cell in layout.cells].count(False) == 1


def test_hardest_confusions_are_ordered_by_count_then_share():
    confusion = np.array([[1, 2, 0], [0, 8, 2], [3, 1, 6]])
    found = [(item.true, item.predicted, item.count, item.videos, item.back) for item in hardest_confusions(confusion, ("a", "b", "c"))]
    assert found == [("c", "a", 3, 10, 0), ("a", "b", 2, 3, 0), ("b", "c", 2, 10, 1), ("c", "b", 1, 10, 2)]
