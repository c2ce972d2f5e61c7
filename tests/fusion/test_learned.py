import dataclasses
import json

import numpy as np
import pytest
from scipy.special import log_softmax, softmax
from sklearn.linear_model import LogisticRegression

from fusion.fitting import cross_entropy, fit_stacking, fit_weights, group_folds
from fusion.fuse import fuse
from fusion.learned import Learned, apply, cross_fit, learn
from fusion.recipes import RECIPES, follow
from fusion.results import judge
from fusion.spec import FuseSpec, LearnSpec
from fusion.words import what
from store.errors import AlignmentError, ScoreError, SpecError
from store.names import NameRules
from store.scores import ScoreTable

IDS = tuple(f"g{index // 4:02d}/v{index:03d}" for index in range(240))
GROUPS = {name: name[:3] for name in IDS}


@pytest.fixture
def streams(make_table) -> dict[str, ScoreTable]:
    """A stream that knows much, one that knows little, and one on quite another scale."""
    tables = {"rgb": make_table(0, ids=IDS, gain=2.0), "flow": make_table(1, ids=IDS, gain=0.5)}
    svm = make_table(2, ids=IDS, gain=1.5, kind="decision_values")
    return tables | {"idt": dataclasses.replace(svm, values=svm.values / 30)}


def stacked(tables) -> tuple[np.ndarray, np.ndarray]:
    return np.stack([table.values.astype(np.float64) for table in tables.values()]), tables["rgb"].labels


def test_weights_are_where_the_cross_entropy_is_least(streams):
    inputs, labels = stacked(streams)
    weights = fit_weights(inputs, labels)
    least = cross_entropy(log_softmax(np.einsum("tvc,t->vc", inputs, weights), axis=1), labels)
    for change in np.vstack([np.eye(3), -np.eye(3)]) * 0.02:
        other = cross_entropy(log_softmax(np.einsum("tvc,t->vc", inputs, weights * (1 + change)), axis=1), labels)
        assert other >= least - 1e-9
    assert weights[0] > weights[1] > 0
    assert weights[2] > 10 * weights[0]  # which undoes the scale


def test_one_inputs_weight_is_the_logistic_regression_on_its_scores():
    """With two classes, softmax(w s) is the logistic function of w (s_1 - s_0)."""
    generator = np.random.default_rng(0)
    labels = generator.integers(0, 2, 400)
    values = generator.normal(size=(400, 2))
    values[np.arange(400), labels] += 1
    model = LogisticRegression(C=1e9, fit_intercept=False, tol=1e-10).fit(values[:, 1:] - values[:, :1], labels)
    assert fit_weights(values[None], labels)[0] == pytest.approx(model.coef_[0, 0], rel=1e-4)


def test_a_useless_input_gets_no_negative_weight(make_table):
    good = make_table(0, ids=IDS, gain=2.0)
    values = np.stack([good.values, -good.values]).astype(np.float64)
    assert fit_weights(values[1:], good.labels)[0] == 0


def test_stacking_slopes_are_right_and_a_strong_penalty_gives_the_shared_weights(streams):
    inputs, labels = stacked(streams)
    weights, bias = fit_stacking(inputs, labels, 1e4)
    np.testing.assert_allclose(weights, np.repeat(fit_weights(inputs, labels)[:, None], 6, axis=1), rtol=1e-3)
    np.testing.assert_allclose(bias, 0, atol=1e-4)
    weights, bias = fit_stacking(inputs, labels, 1e-3)
    shared = fit_weights(inputs, labels)[:, None]

    def total(w, b):
        found = cross_entropy(log_softmax(np.einsum("tvc,tc->vc", inputs, w) + b, axis=1), labels)
        return found + 1e-3 * (((w / shared - 1) ** 2).sum() + (b**2).sum())

    generator = np.random.default_rng(0)
    for _ in range(20):
        assert total(weights + 0.01 * shared * generator.normal(size=(3, 6)), bias + 0.01 * generator.normal(size=6)) > total(weights, bias)


@pytest.mark.parametrize("method", ["weights", "stacking", "temperature"])
def test_learned_from_some_and_applied_to_others(method, streams, make_table, shuffled, tmp_path):
    learned = learn(streams, LearnSpec(method=method))
    assert learned.loss_after < learned.loss_before
    learned.save(tmp_path / "l.json")
    assert Learned.load(tmp_path / "l.json") == learned
    others = {
        name: dataclasses.replace(table, ids=tuple(f"new{row}" for row in range(240)), labels=None) for name, table in streams.items()
    }
    fused = apply(learned, others)
    assert fused.kind == "log_probs"
    assert fused.labels is None
    moved = apply(learned, {name: shuffled(table, seed) for seed, (name, table) in enumerate(others.items())})
    rows, columns = [moved.ids.index(name) for name in fused.ids], [moved.classes.index(name) for name in fused.classes]
    np.testing.assert_array_equal(moved.values[np.ix_(rows, columns)], fused.values)
    again = learn({name: shuffled(table, seed) for seed, (name, table) in enumerate(streams.items())}, LearnSpec(method=method))
    np.testing.assert_array_equal(apply(again, others).values, fused.values)
    assert fused.source["cross_fitted"] is False
    assert fused.source["learned_from"]["videos"] == 240


def test_learned_weights_are_applied_as_the_formula_says(streams):
    learned = learn(streams, LearnSpec())
    others = {name: dataclasses.replace(table, ids=tuple(f"n{row}" for row in range(240))) for name, table in streams.items()}
    expected = log_softmax(sum(learned.weights[name] * table.values.astype(np.float64) for name, table in streams.items()), axis=1)
    np.testing.assert_allclose(apply(learned, others).values, expected, atol=1e-5)


def test_a_temperature_calibrates(streams, make_table):
    loud = {"rgb": dataclasses.replace(streams["rgb"], values=streams["rgb"].values * 20)}
    learned = learn(loud, LearnSpec(method="temperature"))
    fresh = {"rgb": dataclasses.replace(make_table(9, ids=tuple(f"n{row}" for row in range(240)), gain=2.0))}
    fresh["rgb"] = dataclasses.replace(fresh["rgb"], values=fresh["rgb"].values * 20)
    calibrated = apply(learned, fresh)
    before, after = (judge({"t": table}).tables[0].calibration for table in (fresh["rgb"], calibrated))
    assert after < before / 2
    np.testing.assert_array_equal(calibrated.values.argmax(axis=1), fresh["rgb"].values.argmax(axis=1))
    assert learned.weights["rgb"] == pytest.approx(
        1 / 20 * learn({"rgb": streams["rgb"]}, LearnSpec(method="temperature")).weights["rgb"], rel=1e-3
    )


def test_a_fusion_never_meets_the_videos_it_was_learned_from(streams):
    learned = learn(streams, LearnSpec(), GROUPS)
    with pytest.raises(AlignmentError, match=r"learned from 240 of these 240 videos.*flattered"):
        apply(learned, streams)
    spelt = {name: dataclasses.replace(t, ids=tuple(f"{one}.avi" for one in IDS)) for name, t in streams.items()}
    with pytest.raises(AlignmentError, match="learned from 240"):
        apply(learned, spelt, NameRules(ids=("suffix",)))
    fresh = {name: dataclasses.replace(t, ids=tuple(f"n{row}" for row in range(240))) for name, t in streams.items()}
    with pytest.raises(AlignmentError, match=r"other videos of 1 groups of these \(g00\)"):
        apply(learned, fresh, groups={f"n{row}": "g00" for row in range(240)})
    with pytest.raises(SpecError, match="inputs called rgb, flow, idt, not a"):
        apply(learned, {"a": fresh["rgb"]})


def test_without_leaves_out_videos_and_their_groups(streams):
    learned = learn(streams, LearnSpec(), GROUPS, without=["g03/v012", "g05/v020"])
    assert len(learned.ids) == 240 - 8
    assert not {"g03", "g05"} & set(learned.groups)
    with pytest.raises(ScoreError, match="none of the 240 videos is left"):
        learn(streams, LearnSpec(), GROUPS, without=IDS)


@pytest.mark.parametrize("method", ["weights", "stacking", "temperature"])
def test_cross_fitting_says_so_and_uses_no_video_for_its_own_score(method, streams):
    fused = cross_fit(streams, LearnSpec(method=method, penalty=0.01), GROUPS, folds=4)
    assert fused.source["cross_fitted"] is True
    assert "cross-fitted in 4 folds by group" in what(judge({"x": fused}).tables[0])
    labels = streams["rgb"].labels.copy()
    fold_of = group_folds([GROUPS[name] for name in IDS], 4, 0)
    labels[fold_of == 2] = (labels[fold_of == 2] + 1) % 6
    lying = {name: dataclasses.replace(table, labels=labels) for name, table in streams.items()}
    other = cross_fit(lying, LearnSpec(method=method, penalty=0.01), GROUPS, folds=4)
    np.testing.assert_array_equal(other.values[fold_of == 2], fused.values[fold_of == 2])  # whose labels alone were changed
    assert not np.array_equal(other.values, fused.values)


def test_groups_are_needed_and_stay_together(streams):
    with pytest.raises(AlignmentError, match=r"240 of 240 videos have no group .*--list"):
        cross_fit(streams, LearnSpec(), {})
    with pytest.raises(ScoreError, match="60 groups cannot be dealt into 61 folds"):
        cross_fit(streams, LearnSpec(), GROUPS, folds=61)
    groups = ["a"] * 50 + ["b"] * 3 + ["c"] * 4 + ["d"] * 40
    folds = group_folds(groups, 2, 0)
    assert all(len(set(folds[[place for place, one in enumerate(groups) if one == name]])) == 1 for name in "abcd")


def test_stacking_needs_the_same_classes(streams, make_table):
    learned = learn(streams, LearnSpec(method="stacking", penalty=0.1))
    other = make_table(3, classes=("a", "b", "c"))
    with pytest.raises(AlignmentError, match="not the 3 of these tables"):
        apply(learned, dict.fromkeys(streams, other))
    plain = learn(streams, LearnSpec())
    assert apply(plain, dict.fromkeys(streams, other)).classes == ("a", "b", "c")


def test_files_that_are_no_learned_fusion(tmp_path):
    for text in ("", "[1]", '{"format": "x"}', json.dumps({"format": "actioncache-learned-1", "spec": {}, "inputs": ["a"]}), "[" * 100_000):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(SpecError, match="is no learned fusion"):
            Learned.load(tmp_path / "a.json")


def test_temperatures_divide_before_the_softmax(make_table):
    a, b = make_table(0), make_table(1)
    fused = fuse({"a": a, "b": b}, FuseSpec(rule="sum", temperatures={"b": 2.0}))
    expected = softmax(a.values, axis=1) + softmax(b.values.astype(float) / 2, axis=1)
    np.testing.assert_allclose(softmax(fused.values, axis=1), expected / 2, rtol=1e-5)
    assert fused.source["temperatures"] == {"a": 1.0, "b": 2.0}
    with pytest.raises(SpecError, match="a temperature means nothing"):
        fuse({"a": a, "b": b}, FuseSpec(rule="normalised", temperatures={"b": 2.0}))
    with pytest.raises(SpecError, match="given for c but the inputs are a, b"):
        fuse({"a": a, "b": b}, FuseSpec(rule="sum", temperatures={"c": 2.0}))
    with pytest.raises(SpecError, match="must be above 0"):
        FuseSpec(temperatures={"a": 0.0})


def test_recipes_are_their_formulas(make_table):
    tables = {"rgb": make_table(0), "flow": make_table(1), "idt": make_table(2, kind="decision_values")}
    low, mid, high = make_table(3), make_table(4), make_table(5)
    r, f, i = (table.values.astype(np.float64) for table in tables.values())

    def unit(x):
        return x / np.linalg.norm(x, axis=1, keepdims=True)

    def best(values):
        return values.argmax(axis=1)

    two = {name: tables[name] for name in ("rgb", "flow")}
    levels = {"low": low, "mid": mid, "high": high}
    mixed = sum(weight * softmax(levels[name].values.astype(float), axis=1) for name, weight in (("low", 0.1), ("mid", 0.2), ("high", 0.7)))
    expected = {
        "late-product": (two, softmax(r, axis=1) * softmax(f, axis=1)),
        "late-sum": (two, softmax(r, axis=1) + softmax(f, axis=1)),
        "late-weighted": (two, softmax(r, axis=1) + 1.5 * softmax(f, axis=1)),
        "late-product-idt": (tables, softmax(r, axis=1) * softmax(f, axis=1) * softmax(i, axis=1)),
        "three-levels": (levels, mixed),
        "st-resnet": (two, r + f),
        "st-resnet-idt": (tables, unit(r + f) + unit(i)),
        "tsn": (two, r + 1.5 * f),
        "tsn-idt": (tables, 0.75 * unit(r + 1.5 * f) + 0.25 * unit(i)),
    }
    assert set(expected) == set(RECIPES)
    for name, (inputs, values) in expected.items():
        fused = follow(name, dict(reversed(list(inputs.items()))))
        np.testing.assert_array_equal(best(fused.values), best(values), err_msg=name)
        assert fused.source["recipe"]["name"] == name
    with pytest.raises(SpecError, match="takes inputs called rgb, flow, idt, not rgb, flow"):
        follow("tsn-idt", two)
    with pytest.raises(SpecError, match="there is no recipe 'x'"):
        follow("x", two)


def test_spellings_are_joined_only_when_asked_and_the_table_says_so(make_table):
    a = make_table(0, classes=("HandStandPushups", "jump", "wave", "clap", "sit", "stand"))
    b = make_table(1, ids=tuple(f"f/{name}.avi" for name in a.ids), classes=("HandstandPushups", *a.classes[1:]))
    with pytest.raises(AlignmentError, match=r"--match.ids folder,suffix .*(?s:.*)--match.classes case"):
        fuse({"a": a, "b": b}, "sum")
    fused = fuse({"a": a, "b": b}, FuseSpec(rule="sum", match=NameRules(("folder", "suffix"), ("case",))))
    assert (fused.ids, fused.classes) == (a.ids, a.classes)
    assert "40 ids as the first table spells them, ignoring folders before the name, suffixes" in fused.source["respelt"]["b"]
    assert "'HandstandPushups' is 'HandStandPushups'" in fused.source["respelt"]["b"]


def test_what_temperatures_cannot_do_is_said_before_anything_is_learned(streams):
    with pytest.raises(SpecError, match="--on l2 does not go with --method temperature"):
        LearnSpec(method="temperature", on="l2")
    for rule in ("raw_sum", "weighted", "normalised", "rank"):
        for call in (lambda spec: learn(streams, spec), lambda spec: cross_fit(streams, spec, {}, 2)):
            with pytest.raises(SpecError, match=f"rule {rule} does not combine probabilities .* use .*product"):
                call(LearnSpec(method="temperature", rule=rule))
    with pytest.raises(SpecError, match="did you mean product"):
        learn(streams, LearnSpec(method="temperature", rule="prodct"))


def test_a_temperature_follows_the_size_of_the_scores(make_table):
    table = make_table(3)
    large = dataclasses.replace(table, values=table.values * np.float32(1e8))
    small, found = (learn({"a": one}, LearnSpec(method="temperature")).weights["a"] for one in (table, large))
    assert found == pytest.approx(small / 1e8, rel=1e-3)
