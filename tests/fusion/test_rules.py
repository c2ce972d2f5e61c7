import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from scipy.stats import rankdata

from fusion.fuse import fuse
from fusion.rules import RULES
from fusion.spec import FuseSpec
from store.errors import AlignmentError, SpecError, UnknownNameError
from store.scores import ScoreTable

WEIGHTS = {"a": 1.0, "b": 1.5}


def spec_of(rule: str, **changes) -> FuseSpec:
    return FuseSpec(rule=rule, weights=WEIGHTS if RULES.get(rule).weights == "required" else {}, **changes)


def unit(values):
    return values / np.sqrt((values**2).sum(axis=1, keepdims=True))


@pytest.fixture
def pair(make_table) -> dict[str, ScoreTable]:
    return {"a": make_table(0), "b": make_table(1)}


@pytest.mark.parametrize("rule", RULES.names())
def test_order_of_rows_and_columns_changes_nothing(rule, pair, shuffled):
    straight = fuse(pair, spec_of(rule))
    for seed in range(3):
        moved = fuse({name: shuffled(table, seed + place) for place, (name, table) in enumerate(pair.items())}, spec_of(rule))
        assert moved.ids != straight.ids
        rows, columns = [moved.ids.index(name) for name in straight.ids], [moved.classes.index(name) for name in straight.classes]
        np.testing.assert_array_equal(moved.values[np.ix_(rows, columns)], straight.values)
        assert [moved.classes[moved.labels[row]] for row in rows] == [straight.classes[label] for label in straight.labels]


@pytest.mark.parametrize("rule", RULES.names())
def test_every_output_says_how_it_was_made(rule, pair):
    fused = fuse(pair, spec_of(rule))
    assert fused.source["rule"] == rule
    assert fused.source["softmax"] is (fused.source["footing"] in ("softmax", "log_softmax"))
    assert fused.source["spec"]["rule"] == rule
    assert fused.source["inputs"]["b"] == {"kind": "scores", "videos": 40, "source": {"seed": 1}}
    if RULES.get(rule).weights == "required":
        assert fused.source["weights"] == WEIGHTS


@pytest.mark.parametrize("rule", RULES.names())
def test_labels_play_no_part_in_the_result(rule, pair):
    bare = {name: ScoreTable(t.ids, t.classes, t.values, t.kind, None, t.source) for name, t in pair.items()}
    fused = fuse(bare, spec_of(rule))
    assert fused.labels is None
    np.testing.assert_array_equal(fused.values, fuse(pair, spec_of(rule)).values)


def test_the_formulas(pair):
    a, b = (table.values.astype(np.float64) for table in pair.values())
    p, q = softmax(a, axis=1), softmax(b, axis=1)
    probabilities = {
        ("sum", "default"): (p + q) / 2,
        ("average", "default"): (p + q) / 2,
        ("product", "default"): p * q / (p * q).sum(axis=1, keepdims=True),
        ("geometric", "default"): np.sqrt(p * q) / np.sqrt(p * q).sum(axis=1, keepdims=True),
        ("weighted", "default"): (p + 1.5 * q) / 2.5,
        ("maximum", "softmax"): np.maximum(p, q) / np.maximum(p, q).sum(axis=1, keepdims=True),
    }
    for (rule, on), expected in probabilities.items():
        np.testing.assert_allclose(softmax(fuse(pair, spec_of(rule, on=on)).values, axis=1), expected, rtol=2e-6, err_msg=rule)
    scores = {
        ("raw_sum", "default"): a + b,
        ("weighted", "raw"): a + 1.5 * b,
        ("maximum", "raw"): np.maximum(a, b),
        ("normalised", "default"): (unit(a) + unit(b)) / 2,
        ("rank", "default"): (rankdata(a, axis=1) + rankdata(b, axis=1)) / 2 - 1,
    }
    for (rule, on), expected in scores.items():
        np.testing.assert_allclose(fuse(pair, spec_of(rule, on=on)).values, expected, rtol=1e-5, atol=1e-6, err_msg=rule)


def test_optional_weights(pair):
    a, b = (table.values.astype(np.float64) for table in pair.values())
    spec = FuseSpec(rule="normalised", weights={"b": 0.25, "a": 0.75})  # by name, whatever the order
    np.testing.assert_allclose(fuse(pair, spec).values, 0.75 * unit(a) + 0.25 * unit(b), rtol=1e-5, atol=1e-6)
    mixed = fuse(pair, FuseSpec(rule="geometric", weights={"a": 3, "b": 1})).values
    np.testing.assert_allclose(mixed, log_softmax(0.75 * log_softmax(a, axis=1) + 0.25 * log_softmax(b, axis=1), axis=1), atol=1e-5)


def test_ranks_share_ties():
    table = ScoreTable(("v",), ("a", "b", "c"), np.array([[1, 5, 1]], np.float32), "scores", None, {})
    np.testing.assert_array_equal(fuse({"x": table, "y": table}, "rank").values, [[0.5, 2, 0.5]])


def test_kinds_of_the_results(pair, make_table):
    kinds = {rule: fuse(pair, spec_of(rule)).kind for rule in RULES}
    assert kinds == {
        "average": "scores",
        "sum": "scores",
        "maximum": "scores",
        "weighted": "scores",
        "raw_sum": "scores",
        "product": "log_probs",
        "geometric": "log_probs",
        "normalised": "decision_values",
        "rank": "decision_values",
    }
    svm = {name: make_table(seed, kind="decision_values") for seed, name in enumerate("ab")}
    assert fuse(svm, "raw_sum").kind == "decision_values"


def test_three_tables(make_table):
    three = {name: make_table(seed) for seed, name in enumerate(["high", "mid", "low"])}
    weights = {"high": 0.7, "mid": 0.2, "low": 0.1}  # PAPERS C
    expected = sum(weight * softmax(three[name].values.astype(np.float64), axis=1) for name, weight in weights.items())
    fused = fuse(three, FuseSpec(rule="weighted", weights=weights))
    np.testing.assert_allclose(softmax(fused.values, axis=1), expected, rtol=2e-6)


def test_log_probabilities_and_logits_meet_on_softmax(pair, make_table):
    logits = make_table(1)
    values = log_softmax(logits.values, axis=1)
    as_log = ScoreTable(logits.ids, logits.classes, values, "log_probs", logits.labels, {})
    np.testing.assert_allclose(fuse({"a": pair["a"], "b": as_log}, "product").values, fuse(pair, "product").values, atol=1e-5)


def test_product_of_extreme_scores_neither_under_nor_overflows():
    values = np.array([[0.0, -2000.0, -3000.0], [3000.0, 0.0, 0.0]], np.float32)
    table = ScoreTable(("v", "w"), ("a", "b", "c"), values, "scores", None, {})
    fused = fuse({"x": table, "y": table}, "product")
    np.testing.assert_array_equal(fused.values, [[0, -4000, -6000], [0, -6000, -6000]])


def test_a_mixture_keeps_apart_what_float32_probabilities_would_tie():
    one = ScoreTable(("v",), ("a", "b", "c"), np.array([[30.0, 0, 0]], np.float32), "scores", None, {})
    two = ScoreTable(("v",), ("a", "b", "c"), np.array([[0, 25.0, 0]], np.float32), "scores", None, {})
    best = fuse({"one": one, "two": two}, "sum").values[0]
    assert best[0] > best[1] > best[2]
    tied = fuse({"one": one, "two": two}, FuseSpec(rule="sum", precision="float32")).values[0]
    assert tied[0] == tied[1]


def test_different_kinds_are_refused_on_raw_scores(pair, make_table):
    mixed = {"rgb": pair["a"], "idt": make_table(2, kind="decision_values")}
    with pytest.raises(AlignmentError, match=r"rgb holds scores, idt holds decision_values.*--as-is"):
        fuse(mixed, "raw_sum")
    assert fuse(mixed, FuseSpec(rule="raw_sum", as_is=True)).kind == "decision_values"
    assert fuse(mixed, "normalised").kind == "decision_values"
    assert "decision values" in fuse(mixed, "product").source["note"]


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        ({"rule": "weighted"}, "needs a weight per input, e.g. --weights a=1,b=1"),
        ({"rule": "product", "weights": {"a": 1, "b": 2}}, "takes no weights; rules that do: geometric, normalised, rank, weighted"),
        ({"rule": "weighted", "weights": {"a": 1, "c": 2}}, "given for a, c but the inputs are a, b"),
        ({"rule": "product", "on": "raw"}, "cannot be computed on raw scores"),
        ({"rule": "raw_sum", "on": "softmax"}, "cannot be computed on softmax scores"),
        ({"rule": "rank", "on": "raw"}, "cannot be computed on raw scores"),
    ],
)
def test_specs_that_do_not_fit(pair, spec, words):
    with pytest.raises(SpecError, match=words):
        fuse(pair, FuseSpec(**spec))


def test_specs_that_contradict_themselves(pair):
    with pytest.raises(SpecError, match="must not be negative"):
        FuseSpec(weights={"a": -1.0})
    with pytest.raises(SpecError, match="at least one must be above 0"):
        FuseSpec(weights={"a": 0.0})
    with pytest.raises(UnknownNameError, match="did you mean product"):
        fuse(pair, "produkt")
    with pytest.raises(SpecError, match="two or more tables; got 1"):
        fuse({"a": pair["a"]}, "product")


def test_every_rule_is_named_in_the_help():
    from dataclasses import fields

    text = next(field for field in fields(FuseSpec) if field.name == "rule").metadata["help"]
    assert all(rule in text for rule in RULES)
