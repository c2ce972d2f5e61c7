"""Papers reproduced: published numbers against the papers' texts, figures and fusions against numpy, what is left out, the page."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import Packages
from store.errors import SpecError
from store.layout import Level
from store.scores import ScoreTable
from store.videos import VideoList, write_csv
from temporal.many import Plan
from temporal.papers import PAPERS, Fuse, Train, load_paper
from temporal.papers.inputs import Facts
from temporal.reproduce import Measured, Reproduction
from temporal.reproduce_commands import gather, reproduce
from temporal.reproduce_files import markdown_text

TEXTS = {"lakhal2018": "lakhal2018_residual_stacked_rnns", "zheng2017": "zheng2017_mrrn"}
TEXTS |= {"iqbal2017": "iqbal2017_recurrent_residual_networks"}
SMALL = ["--quick", "--seeds", "0,1", "--jobs", "1", "--train.epochs", "2", "--train.validation", "0.25"]


@pytest.fixture
def run(order_videos: VideoList, tmp_path: Path) -> Callable[..., Result]:
    """``run(paper, *arguments, code=0)`` on the small list, into ``tmp_path/reproduced``."""
    write_csv(order_videos, tmp_path / "list.csv")

    def command(paper: str, *arguments: object, code: int = 0) -> Result:
        words = [paper, tmp_path / "list.csv", "--out", tmp_path / "reproduced", *arguments, *SMALL]
        result = CliRunner().invoke(reproduce, [str(word) for word in words], obj=Packages())
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return command


@pytest.fixture
def streams(make_store, order_values) -> dict[str, Path]:
    """Two streams, 24 wide."""
    generator = np.random.default_rng(1)
    wide = {name: generator.normal(size=(6, 24)).astype(np.float32) for name in ("rgb", "flow")}
    return {name: make_store({id_: rows @ wide[name] for id_, rows in order_values.items()}, name).path for name in wide}


def results(folder: Path) -> dict:
    return json.loads((folder / "results.json").read_text())


def lines_of(data: dict, where: str) -> list[dict]:
    return next(table for table in data["tables"] if table["where"] == where)["lines"]


@pytest.mark.parametrize("name", PAPERS)
def test_published_numbers_stand_in_the_paper(name: str, shared_data: Path) -> None:
    file = shared_data.parent / "papers" / f"{TEXTS[name]}.txt"
    if not file.is_file():
        pytest.skip(f"no text of the paper at {file}")
    text = file.read_text(encoding="utf-8")
    numbers = {float(number) for number in re.findall(r"\d+\.\d+", text)}
    tables = load_paper(name).tables(Facts({}, {}, (), 9537, 200_000))
    published = [value for table in tables for line in table.lines for value in line.published.values()]
    assert len(published) >= 14
    for value in published:
        assert value in numbers or round(1 - value / 100, 3) in numbers, value


@pytest.mark.parametrize("name", PAPERS)
def test_nothing_given_means_everything_needs_something(name: str) -> None:
    paper = load_paper(name)
    facts = Facts({}, {}, (), 9537, 200_000)
    for table in paper.tables(facts):
        for line in table.lines:
            assert len(line.names) == len(table.columns)
            if table.curve:
                float(line.names[-1])
            if isinstance(line.how, Train):
                assert all(role in paper.roles for role, _ in line.how.inputs)
            assert isinstance(line.how, Train | Fuse | str)


def test_late_fusion_is_that_of_the_streams(run, streams, order_videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Product, sum and weighted sum against softmaxes multiplied and added in numpy; a foreign table that knows the truth decides."""
    paper = load_paper("lakhal2018")
    some = replace(paper, tables=lambda facts: paper.tables(facts)[-2:])
    monkeypatch.setattr("temporal.reproduce_commands.load_paper", lambda name: some)
    shown = run(
        "lakhal2018",
        "--features",
        f"rgb={streams['rgb']}",
        "--features",
        f"flow={streams['flow']}",
        "--scores",
        _truth(order_videos, tmp_path),
    )
    data = results(tmp_path / "reproduced/lakhal2018-quick")
    fusion = {(line["fusion"], line["by"]): line for line in lines_of(data, "Table 2")}
    single = {line["model"]: line for line in lines_of(data, "Table 5")}
    soft = {}
    for name, model in (("rgb", "RGB"), ("flow", "flow")):
        spec = single[model]["spec"]
        tables = [ScoreTable.load(path) for path in sorted(_runs(tmp_path, spec, streams[name]).glob("list/seed-*/scores.npz"))]
        assert len(tables) == 2
        values = np.stack([table.values.astype(np.float64) for table in tables])
        soft[name] = np.exp(values) / np.exp(values).sum(-1, keepdims=True)
        labels = tables[0].labels
        expected = 100 * (values.argmax(-1) == labels).mean(1)
        assert single[model]["by_split"]["list"] == pytest.approx(list(expected))
    fused = {"product": soft["rgb"] * soft["flow"], "sum": soft["rgb"] + soft["flow"], "1.5 flow + 1 RGB": 1.5 * soft["flow"] + soft["rgb"]}
    for rule, values in fused.items():
        assert fusion["late", rule]["by_split"]["list"] == pytest.approx(list(100 * (values.argmax(-1) == labels).mean(1)))
    product = fusion["late", "product"]
    assert product["published"] == {"HMDB-51": 68.0, "UCF-101": 92.5}
    assert product["top1"]["deviation"] == pytest.approx(np.std(product["by_split"]["list"], ddof=1))
    assert fusion["mid", "sum"]["spec"]["sequence"]["mid"] == "sum"
    assert single["Res-LSTM x IDT"]["top1"]["mean"] == 100
    assert "9 of 9 lines of 2 tables measured" in shown.stdout


def _truth(order_videos: VideoList, tmp_path: Path) -> str:
    """A table in another order, without labels, that is certain of the truth."""
    test = [video for video in order_videos if video.split == "test"][::-1]
    labels = np.array([("ab", "ba").index(video.label) for video in test])
    values = np.where(labels[:, None] == np.arange(2), 40.0, 0.0).astype(np.float32)
    ScoreTable(tuple(video.id for video in test), ("ab", "ba"), values, "decision_values", None, {}).save(tmp_path / "idt.npz")
    return f"idt={tmp_path / 'idt.npz'}"


def _runs(tmp_path: Path, spec: dict, store: Path) -> Path:
    """The folder that holds the runs of a spec (whatever the seed) on a store."""
    for file in (tmp_path / "reproduced").rglob("list/seed-0/spec.json"):
        identity = json.loads(file.read_text())["identity"]
        if identity["spec"] == {**spec, "train": {**spec["train"], "seed": 0}} and identity["features"][0]["name"] == store.name:
            return file.parent.parent.parent
    raise AssertionError(f"no run of {spec}")


def test_the_levels_of_zheng_are_fused_with_the_papers_weights(run, make_store, order_values, tmp_path: Path) -> None:
    generator = np.random.default_rng(2)
    mixed = {level: generator.normal(size=(6, 8)).astype(np.float32) for level in ("block2", "block3", "block4")}
    videos = {id_: {level: (rows @ mix).reshape(2, 4, 8) for level, mix in mixed.items()} for id_, rows in order_values.items()}
    store = make_store(videos, "levels")
    run("zheng2017", "--features", store.path)
    folder = tmp_path / "reproduced/zheng2017-quick"
    data = results(folder)
    assert [line["layers"] for line in lines_of(data, "Table 1")] == ["3", "4", "5"] * 3
    levels = {line["level"]: line for line in lines_of(data, "Table 2") if line["pooling"] == "mean"}
    assert (
        levels["low"]["spec"]["sequence"] | {"level": "block2", "samples": "clips", "sampling": "all"} == levels["low"]["spec"]["sequence"]
    )
    probabilities = 0
    for name, weight in (("high", 0.7), ("mid", 0.2), ("low", 0.1)):
        table = ScoreTable.load(_runs(tmp_path, levels[name]["spec"], store.path) / "list/seed-1/scores.npz")
        probabilities = probabilities + weight * np.exp(table.values.astype(np.float64))
    fused = lines_of(data, "Table 3")[1]
    assert fused["published"] == {"HMDB-51": 51.3, "UCF-101": 81.9}
    assert fused["by_split"]["list"][1] == pytest.approx(100 * (probabilities.argmax(1) == table.labels).mean())

    page = (folder / "index.html").read_text()
    assert page.count("<svg") == 3
    assert not re.search(r"""(src|href)=["'](?!#)""", page)
    assert f"{fused['top1']['mean']:.2f}" in page
    assert "81.38" in (folder / "results.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in folder.rglob("spec.json")}
    run("zheng2017", "--features", store.path)
    assert {path: path.stat().st_mtime_ns for path in folder.rglob("spec.json")} == before


def test_lines_without_their_inputs_are_left_out_and_say_what_they_need(run, make_store, order_values, tmp_path: Path) -> None:
    store = make_store({id_: {"block4": rows} for id_, rows in order_values.items()}, "levels")
    shown = run("iqbal2017", "--features", store.path)
    lines = lines_of(results(tmp_path / "reproduced/iqbal2017-quick"), "Table 1")
    assert [bool(line["top1"]) for line in lines] == [True] * 4 + [False] * 8
    assert {line["Z-norm"]: line["published"] for line in lines[:2]} == {"yes": {"UCF-101": 76.4}, "no": {"UCF-101": 76.3}}
    assert lines[3]["spec"]["sequence"]["znorm"] is False
    assert re.search(r"needs the level block3 of the levels features \(levels-\w+ has block4\); extract it, or say which", shown.stdout)
    assert "needs features: --features maps=STORE" in shown.stdout


def test_skips_read_the_maps_that_enter_their_first_unit() -> None:
    """Block 4 of ResNet-50 has three units, so four skips need maps that enter block 3."""
    _, positions, _, contexts = load_paper("iqbal2017").tables(Facts({}, {}, (), 9537, 200_000))
    levels = ["stem.map", "block1.map", "block3.map", "block3.map"]
    assert [line.how.inputs for line in positions.lines] == [(("maps", level),) for level in levels]
    assert [line.how.inputs for line in contexts.lines] == [(("levels", "block4"),), *[(("maps", f"block{n}.map"),) for n in (3, 3, 2)]]
    assert contexts.lines[3].how.varied["sequence.window"] == 5
    assert contexts.lines[3].how.base["train.batch_size"] == 95  # one per cent of the training videos


def test_a_batch_is_one_per_cent_of_the_training_windows() -> None:
    """200 videos of 20 maps and 100 of 5: windows of 2 without overlap."""
    facts = Facts({}, {}, (), 300, 200_000, clips={"maps": [20] * 200 + [5] * 100})
    kinds = load_paper("iqbal2017").tables(facts)[2]
    assert kinds.lines[0].how.base["train.batch_size"] == round(0.01 * (200 * 10 + 100 * 2))


def test_videos_of_no_split_are_no_training_videos(order_store, order_videos) -> None:
    """HMDB-51's flag 0."""
    videos = tuple(replace(video, split="" if video.group == "g0" else video.split) for video in order_videos)
    some = VideoList(videos, order_videos.classes)
    facts = gather(load_paper("lakhal2018"), [f"rgb={order_store.path}"], [], [], some, False, False)
    assert facts.training_videos == 12
    assert facts.clips == {"rgb": [8] * 12}
    without = VideoList(tuple(replace(video, split="") for video in order_videos), order_videos.classes)
    assert gather(load_paper("lakhal2018"), [f"rgb={order_store.path}"], [], [], without, False, False).training_videos == 24


def test_published_numbers_are_shown_in_full_and_beside_ours_of_their_split(order_store, order_videos) -> None:
    paper = load_paper("zheng2017")
    table = paper.tables(Facts({}, {}, (), 9537, 200_000))[0]
    measured = tuple(Measured(line, {"split-1": [0.5, 0.6], "split-2": [0.1, 0.2]}) for line in table.lines)
    done = Reproduction(paper, ((table, measured),), Plan((0, 1)), {"split-1": 10, "split-2": 10}, {}, {}, 51, False, 0)
    text = markdown_text(done, "command")
    assert "| 1024 units | 3 | 50.78 | 55.00 | 35.00 | 7.07 |" in text
    assert "| ours, split 1 | ours, all splits |" in text
    assert "The paper's numbers in these tables are of split 1; ours of that split stand beside them." in text
    one = replace(done, splits={"list": 10}, tables=((table, tuple(replace(each, top1={"list": [0.5]}) for each in measured)),))
    assert "are of split 1; ours are of what stands above" in markdown_text(one, "command")
    assert "| paper, HMDB-51 | ours | ± seeds |" in markdown_text(one, "command")


def test_sizes_that_the_features_do_not_allow_are_left_out() -> None:
    """D = 24 and 100 clips: PCA to 24 at most, and so is the paper's base size."""
    store = SimpleNamespace(layout=(Level("fc6", "float32", (24,)),), path=Path("rgb"), levels=("fc6",))
    tables = load_paper("lakhal2018").tables(Facts({"rgb": [store]}, {}, (), 10, 100))
    sizes = next(table for table in tables if table.title.startswith("Size"))
    assert [line.how for line in sizes.lines[:1]] == ["PCA to 256 needs features and training clips for it; here are 24 and 100"]
    steps = next(table for table in tables if table.where == "Table 1")
    assert {line.how.base["head.hidden"] for line in steps.lines} == {24}


def test_wrong_inputs_are_told(run, streams, tmp_path: Path) -> None:
    with pytest.raises(SpecError, match=r"--features 'depth=x' is not NAME=VALUE with a name this paper knows: rgb, flow"):
        run("lakhal2018", "--features", "depth=x")
    with pytest.raises(SpecError, match=r"there is no score table nothing.npz"):
        run("lakhal2018", "--features", streams["rgb"], "--scores", "idt=nothing.npz")
    with pytest.raises(SpecError, match=r"idt=idt-\{\}.npz: \{\} stands for the number of a split; give --splits"):
        run("lakhal2018", "--features", streams["rgb"], "--scores", "idt=idt-{}.npz")
    with pytest.raises(SpecError, match="this paper fuses with none"):
        run("zheng2017", "--features", streams["rgb"], "--scores", "idt=nothing.npz")
