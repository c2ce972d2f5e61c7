import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusion.categories import by_category, categories_of, category_order, known, read_categories
from fusion.commands import evaluate, split_inputs
from fusion.results import judge
from fusion.spec import EvaluateSpec
from fusion.splits import judge_splits, splits_text
from store.errors import SpecError
from store.scores import ScoreTable
from store.videos import read_list

# the numbers of classes that the two data sets' own pages give
PUBLISHED = {
    "ucf101": {
        "Human-Object Interaction": 20,
        "Body-Motion Only": 16,
        "Human-Human Interaction": 5,
        "Playing Musical Instruments": 10,
        "Sports": 50,
    },
    "hmdb51": {
        "General facial actions": 4,
        "Facial actions with object manipulation": 3,
        "General body movements": 19,
        "Body movements with object interaction": 18,
        "Body movements for human interaction": 7,
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_categories_are_the_published_ones(name: str) -> None:
    path = Path(__file__).parents[2] / "fusion" / "categories" / f"{name}.csv"
    found = list(read_categories(path).values())
    assert {category: found.count(category) for category in found} == PUBLISHED[name]
    assert known() == ["hmdb51", "ucf101"]


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_official_class_has_one(name: str, shared_data: Path) -> None:
    classes = read_list(shared_data / "splits" / name).classes
    assert categories_of("", classes) == categories_of(name, classes)  # found by itself
    assert categories_of("none", classes) is None


def test_categories_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "c.csv"
    path.write_text("class,category\nrun,legs\njump,legs\nwave,arms\nclap,arms\nsit,legs\nstand,legs\n")
    classes = ("run", "jump", "wave", "clap", "sit", "stand")
    assert categories_of(str(path), classes) == ("legs", "legs", "arms", "arms", "legs", "legs")
    assert categories_of("", classes) is None
    assert category_order(("legs", "arms", "legs")) == [0, 2, 1]
    with pytest.raises(SpecError, match=r"1 classes have no category in .*c.csv: swim"):
        categories_of(str(path), (*classes, "swim"))
    for text in ("", "a,b\n1,2\n", "class,category\nrun\n", "class,category\nrun,legs\nrun,arms\n"):
        path.write_text(text)
        with pytest.raises(SpecError, match=r"c\.csv"):
            read_categories(path)
    with pytest.raises(SpecError, match="known data sets: hmdb51, ucf101"):
        categories_of("ucf102", classes)


def test_figures_of_a_category_by_their_definition() -> None:
    generator = np.random.default_rng(0)
    labels, predicted = generator.integers(0, 5, 300), generator.integers(0, 5, 300)
    categories = ("a", "b", "a", "c", "b")
    confusion = np.zeros((5, 5), int)
    np.add.at(confusion, (labels, predicted), 1)
    of = np.array(categories)
    for row in by_category(confusion, categories):
        inside = of[labels] == row.name
        assert row.num_videos == inside.sum()
        assert row.num_classes == categories.count(row.name)
        assert row.accuracy == pytest.approx((predicted == labels)[inside].mean())
        assert row.category_accuracy == pytest.approx((of[predicted] == of[labels])[inside].mean())


def test_one_table_may_be_compared_with_every_other(tables) -> None:
    results = judge(tables, EvaluateSpec(against="rgb", samples=100))
    assert [(row.first, row.second) for row in results.comparisons] == [(name, "rgb") for name in tables if name != "rgb"]
    right = {name: table.values.argmax(axis=1) == table.labels for name, table in tables.items()}
    for row in results.comparisons:
        assert row.difference == pytest.approx(right[row.first].mean() - right["rgb"].mean())
        assert (row.test.only_first, row.test.only_second) == (
            (right[row.first] & ~right["rgb"]).sum(),
            (~right[row.first] & right["rgb"]).sum(),
        )
    with pytest.raises(SpecError, match="no table 'x' to compare with; tables: rgb"):
        judge(tables, EvaluateSpec(against="x"))


def test_the_mean_of_splits_and_its_interval(make_table) -> None:
    """Splits share videos: a resample takes each video as often in every split, which a plain computation repeats."""
    sizes = ((0, 40), (20, 60), (30, 90))
    splits = []
    for seed, (first, last) in enumerate(sizes):
        ids = tuple(f"v{index:02d}" for index in range(first, last))
        labels = np.arange(first, last) % 6
        splits.append({"a": make_table(seed, ids=ids, labels=labels), "b": make_table(seed + 9, ids=ids, labels=labels, gain=2.0)})
    judged = judge_splits(splits, EvaluateSpec(samples=200, seed=3))
    hits = {name: [split[name].values.argmax(axis=1) == split[name].labels for split in splits] for name in "ab"}
    means = {row.name: row for row in judged.means}
    assert judged.reference == "b"
    for name in "ab":
        assert means[name].top1 == pytest.approx(np.mean([one.mean() for one in hits[name]]))
    assert means["a"].gain == pytest.approx(means["a"].top1 - means["b"].top1)
    assert means["b"].gain is None
    from fusion.bootstrap import resamples

    draws = []
    for counts in np.concatenate(list(resamples(90, 200, 3))).astype(int):
        drawn = np.repeat(np.arange(90), counts)
        shares = [hit[drawn[(drawn >= first) & (drawn < last)] - first].mean() for hit, (first, last) in zip(hits["a"], sizes, strict=True)]
        draws.append(np.mean(shares))
    low, high = np.quantile(draws, [0.025, 0.975])
    assert (means["a"].top1_interval.low, means["a"].top1_interval.high) == pytest.approx((low, high), abs=1e-6)
    assert "50 videos are tested in more than one split" in splits_text(judged)
    with pytest.raises(SpecError, match="split 2 has the tables a, the first one a, b"):
        judge_splits([splits[0], {"a": splits[1]["a"]}])


def test_the_mean_of_three_splits_is_one_command(make_table, tmp_path: Path) -> None:
    for split in range(3):
        for seed, name in enumerate(("rgb", "flow")):
            make_table(seed + 10 * split, ids=tuple(f"s{split}v{row}" for row in range(40))).save(tmp_path / f"{name}{split}.npz")
    inputs = [f"{name}=" + ",".join(str(tmp_path / f"{name}{split}.npz") for split in range(3)) for name in ("rgb", "flow")]
    result = CliRunner().invoke(evaluate, [*inputs, "--samples", "50"], catch_exceptions=False)
    assert "split 1  split 2  split 3  mean of 3" in result.output
    tables = [ScoreTable.load(tmp_path / f"flow{split}.npz") for split in range(3)]
    mean = 100 * np.mean([(table.values.argmax(axis=1) == table.labels).mean() for table in tables])
    assert f"{mean:.2f}" in next(line for line in result.output.splitlines() if line.startswith("flow"))
    data = json.loads(CliRunner().invoke(evaluate, [*inputs, "--samples", "50", "--json"], catch_exceptions=False).output)
    assert data["means"][1]["top1"] == pytest.approx(mean / 100)
    assert len(data["splits"]) == 3
    with pytest.raises(SpecError, match="different numbers of splits: a 2, b 1"):
        split_inputs(("a=x,y", "b=z"))
    assert split_inputs(("a=x", "b=y")) == []


def test_named_classes(make_table, tmp_path: Path) -> None:
    table = make_table(0)
    table.save(tmp_path / "rgb.npz")
    result = CliRunner().invoke(evaluate, [str(tmp_path / "rgb.npz"), "--class", "wave", "--samples", "20"], catch_exceptions=False)
    place = table.classes.index("wave")
    right = 100 * (table.values.argmax(axis=1) == table.labels)[table.labels == place].mean()
    line = next(line for line in result.output.splitlines() if line.startswith("wave"))
    assert line.split()[1:] == [str((table.labels == place).sum()), f"{right:.1f}"]
    with pytest.raises(SpecError, match="no class 'wav'; did you mean 'wave'"):
        CliRunner().invoke(evaluate, [str(tmp_path / "rgb.npz"), "--class", "wav"], catch_exceptions=False)
