"""Sweeps: figures against the runs' own tables, the ranking, resuming, failures, clusters, what is written."""

import csv
import json
import os
import re
import signal
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner, Result

from store.errors import Interrupted, SpecError, SpecMismatchError
from store.scores import ScoreTable
from store.videos import VideoList, write_csv
from temporal import cluster as clusters
from temporal import many
from temporal.grid import Setting
from temporal.many import Plan, SeedFigures, Trained, hits, loss_sum, setting_name
from temporal.run_dir import Run
from temporal.spec import HeadSpec, RunSpec
from temporal.sweep import Row, ranked
from temporal.sweep_commands import sweep
from temporal.sweep_plot import shown

FAST = ["--train.epochs", "3", "--sequence.steps", "8", "--train.validation", "0.25", "--head.hidden", "4", "--jobs", "1"]
GRID = ["--grid", "head.name=mean,gru", "--grid", "train.learning_rate=1e-3,1e-2", "--seeds", "0,1"]


@pytest.fixture
def run_sweep(order_store, order_videos: VideoList, tmp_path: Path) -> Callable[..., Result]:
    """``run_sweep(*arguments, code=0, name="s")``: on the small store, into ``tmp_path/sweeps/<name>``."""
    write_csv(order_videos, tmp_path / "list.csv")

    def run(*arguments: object, code: int = 0, name: str = "s", features: Path | None = order_store.path) -> Result:
        words = [tmp_path / "list.csv", "--name", name, "--out", tmp_path / "sweeps", *arguments]
        words += ["--features", features] if features else []
        result = CliRunner().invoke(sweep, [str(word) for word in words])
        if result.exception and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == code, result.output
        return result

    return run


def test_a_sweep_tells_what_its_runs_tell(run_sweep, tmp_path: Path) -> None:
    shown = run_sweep(*GRID, *FAST)
    data = json.loads((tmp_path / "sweeps/s/sweep.json").read_text())
    assert [row["rank"] for row in data["settings"]] == [1, 2, 3, 4]
    assert data["ranked_by"] == "validation accuracy"
    for row in data["settings"]:
        runs = [Run.open(Path(row["run"]) / f"seed-{seed}") for seed in (0, 1)]
        tables = [run.validation_scores() for run in runs]
        accuracies = [float(np.mean(table.values.argmax(1) == table.labels)) for table in tables]
        assert row["val_accuracy"] == {"mean": np.mean(accuracies), "deviation": pytest.approx(np.std(accuracies, ddof=1))}
        losses = [min(line["val_loss"] for line in run.history()) for run in runs]  # the kept epoch is the one of the lowest loss
        assert row["val_loss"]["mean"] == pytest.approx(np.mean(losses), rel=1e-5)
        assert row["test_top1"]["mean"] == pytest.approx(np.mean([run.result["top1"] for run in runs]))
        assert {run.spec.train.seed for run in runs} == {0, 1}
    keys = [(-row["val_accuracy"]["mean"], row["val_loss"]["mean"]) for row in data["settings"]]
    assert keys == sorted(keys)
    assert "mean ± deviation of 2 seeds (0, 1); ranked by the accuracy (ties by its loss) of the validation part" in shown.stdout
    assert re.search(r"^1 +(gru|mean) ", shown.stdout, re.MULTILINE)


def test_what_is_written(run_sweep, tmp_path: Path) -> None:
    run_sweep(*GRID, *FAST)
    folder = tmp_path / "sweeps/s"
    lines = list(csv.DictReader((folder / "sweep.csv").open()))
    assert len(lines) == 8
    assert {line["seed"] for line in lines} == {"0", "1"}
    assert set(lines[0]) == {
        "rank",
        "head.name",
        "train.learning_rate",
        "seed",
        "val_accuracy",
        "val_loss",
        "epochs",
        "test_top1",
        "run",
        "failure",
    }
    table = (folder / "sweep.md").read_text()
    assert "| rank | head.name | train.learning_rate | validation % | validation loss | epochs | test % |" in table
    assert (folder / "sweep.png").read_bytes().startswith(b"\x89PNG")
    assert b"</svg>" in (folder / "sweep.svg").read_bytes()


def test_the_same_command_trains_nothing_again_and_a_larger_grid_only_what_is_new(run_sweep, tmp_path: Path) -> None:
    run_sweep("--grid", "head.name=mean", *FAST)
    spec = next((tmp_path / "sweeps/s/runs").glob("*/seed-0/spec.json"))
    before, written = (tmp_path / "sweeps/s/sweep.json").read_bytes(), spec.stat().st_mtime_ns
    run_sweep("--grid", "head.name=mean", *FAST)
    assert (tmp_path / "sweeps/s/sweep.json").read_bytes() == before
    run_sweep("--grid", "head.name=mean,gru", *FAST)
    assert spec.stat().st_mtime_ns == written
    assert len(list((tmp_path / "sweeps/s/runs").iterdir())) == 2


def test_an_interrupted_sweep_goes_on(run_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_sweep(*GRID, *FAST, name="whole")
    trained, train_one = [], many.train_one

    def stop_at_third(work, plan, jobs, quiet=True, stopped=None):
        trained.append(work.path)
        if len(trained) == 3:
            raise Interrupted("SIGTERM: interrupted; run the command again")
        return train_one(work, plan, jobs, quiet)

    with monkeypatch.context() as patch:
        patch.setattr(many, "train_one", stop_at_third)
        with pytest.raises(Interrupted):
            run_sweep(*GRID, *FAST)
    assert len(list((tmp_path / "sweeps/s/runs").iterdir())) == 2
    assert run_sweep(*GRID, *FAST).stdout == whole.stdout


def test_a_setting_that_fails_is_recorded_and_the_others_go_on(run_sweep, tmp_path: Path) -> None:
    arguments = ["--grid", "sequence.width=3,4000", "--sequence.projection", "pca", *FAST]
    shown = run_sweep(*arguments, code=1)
    assert "failed sequence.width 4000: PCA to width 4000 needs at least" in shown.stdout
    rows = json.loads((tmp_path / "sweeps/s/sweep.json").read_text())["settings"]
    assert [(row["rank"], bool(row["failure"])) for row in rows] == [(1, False), (None, True)]
    assert "PCA to width 4000" in (tmp_path / "sweeps/s/sweep.md").read_text()


def _files(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file() and path.name != "lock"
    }


def test_a_sweep_of_another_list_or_of_other_features_is_refused(
    run_sweep, order_videos, order_store, order_values, make_store, tmp_path
) -> None:
    grid = ["--grid", "head.name=mean", *FAST]
    run_sweep(*grid)
    before = _files(tmp_path / "sweeps")
    write_csv(order_videos.subset([video.id for video in order_videos if video.id != "v22"]), tmp_path / "list.csv")
    with pytest.raises(SpecMismatchError, match=r"sweep of another list \(24 videos of 2 classes, now 23 videos of 2 classes\); choose"):
        run_sweep(*grid)
    write_csv(order_videos, tmp_path / "list.csv")
    flow = make_store(order_values, "flow").path
    with pytest.raises(SpecMismatchError, match=rf"sweep of other features \({order_store.path.name}, now {flow.name}\); choose another"):
        run_sweep(*grid, features=flow)
    assert _files(tmp_path / "sweeps") == before
    run_sweep("--grid", f"features={order_store.path},{flow}", *grid, features=None)  # a larger grid
    assert len(json.loads((tmp_path / "sweeps/s/sweep.json").read_text())["settings"]) == 2


def test_a_good_table_is_not_replaced_by_failures(run_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("temporal.sweep_files.SHOWN", 1)
    assert f"... and 1 more in {tmp_path / 'sweeps/s/sweep.csv'}" in run_sweep("--grid", "head.name=mean,max", *FAST).stdout
    weights = next((tmp_path / "sweeps/s/runs").rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    before = _files(tmp_path / "sweeps")
    shown = run_sweep("--grid", "head.name=mean,max", *FAST, code=1)
    assert "weights.safetensors is not the file that the run wrote" in shown.stdout
    assert re.search(r"^1 .*\nfailed  ?\S+ *$", shown.stdout, re.MULTILINE)
    assert "sweep.csv" not in shown.stdout  # which is of the sweep before
    assert "sweep.json and what belongs to it stay as they were: it has figures of 1 settings that fail now" in shown.stderr
    shown = run_sweep("--grid", "sequence.width=4000", "--sequence.projection", "pca", *FAST, code=1)
    assert "stay as they were: it has figures, and now all 1 settings fail" in shown.stderr
    assert _files(tmp_path / "sweeps") == before


def test_a_store_that_cannot_be_opened_now_is_named_as_the_cause(run_sweep, order_store, tmp_path: Path) -> None:
    grid, folder = ["--grid", "head.name=mean", *FAST], tmp_path / "sweeps/s"
    run_sweep(*grid)
    before = _files(folder)
    shown = run_sweep(*grid, features=tmp_path / "nope/rgb", code=1)
    assert f"{tmp_path / 'nope/rgb'} " in shown.stdout.partition("failed head.name mean: ")[2]
    assert "stay as they were: it has figures, and now all 1 settings fail" in shown.stderr
    assert _files(folder) == before
    run_sweep("--grid", f"features={order_store.path},{tmp_path / 'nope/rgb'}", *grid, features=None, code=1)
    assert json.loads((folder / "sweep.json").read_text())["stores"] == [many.store_name(order_store.path)]


def test_a_first_attempt_that_failed_protects_nothing(run_sweep, order_videos, make_store, order_values, tmp_path: Path) -> None:
    grid = ["--grid", "head.name=mean", *FAST]
    write_csv(order_videos.subset([video.id for video in order_videos if video.id != "v22"]), tmp_path / "list.csv")
    run_sweep(*grid, features=make_store({"other": order_values["v22"]}, "other").path, code=1)
    write_csv(order_videos, tmp_path / "list.csv")
    run_sweep(*grid)
    assert [row["rank"] for row in json.loads((tmp_path / "sweeps/s/sweep.json").read_text())["settings"]] == [1]


def test_a_damaged_table_stops_no_sweep(run_sweep, tmp_path: Path) -> None:
    file = tmp_path / "sweeps/s/sweep.json"
    run_sweep("--grid", "head.name=mean", *FAST)
    good = file.read_bytes()
    file.write_text(json.dumps({"settings": [7, "x", None]}))
    run_sweep("--grid", "head.name=mean", *FAST)
    assert file.read_bytes() == good


def test_pictures_of_an_earlier_table_do_not_stay(run_sweep, tmp_path: Path) -> None:
    run_sweep("--grid", "head.name=mean", *FAST)
    assert "](sweep.png)" in (tmp_path / "sweeps/s/sweep.md").read_text()
    run_sweep("--grid", "head.name=max", *FAST, "--train.validation", "0")
    assert sorted(path.name for path in (tmp_path / "sweeps/s").iterdir()) == ["runs", "sweep.csv", "sweep.json", "sweep.md"]
    assert "](sweep.png)" not in (tmp_path / "sweeps/s/sweep.md").read_text()


@pytest.mark.slow
def test_a_killed_worker_costs_its_setting_only(run_sweep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process that trains 6 units kills itself, as the system does when the memory is full."""
    monkeypatch.setattr(many, "_numbered", _numbered_or_killed)
    shown = run_sweep("--grid", "head.hidden=4,5,6", *FAST[:6], "--jobs", "2", code=1)
    assert "failed head.hidden 6: the process that trained it was killed, twice (out of memory?)" in shown.stdout
    assert len(re.findall(r"^[12] ", shown.stdout, re.MULTILINE)) == 2


def _numbered_or_killed(index, work, plan, stop_file):
    import os
    import signal

    if work.setting.spec.head.hidden == 6:
        os.kill(os.getpid(), signal.SIGKILL)
    return index, many.train_one(work, plan, 1)


def test_a_dask_cluster_gives_the_same_table(run_sweep, tmp_path: Path) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    alone = run_sweep(*GRID, *FAST, name="alone")
    options = {"n_workers": 2, "threads_per_worker": 1, "processes": False, "dashboard_address": None, "protocol": "inproc://"}
    with distributed.LocalCluster(**options) as cluster:
        shown = run_sweep(*GRID, *FAST[:-2], "--backend", "dask", "--scheduler", cluster.scheduler_address, name="cluster")
    assert shown.stdout == alone.stdout
    tables = [(tmp_path / "sweeps" / name / "sweep.md").read_text().replace(name, "") for name in ("alone", "cluster")]
    assert tables[0] == tables[1]


def divmod_of(number: int, by: int) -> tuple[int, int]:
    return divmod(number, by)


@pytest.mark.slow
def test_a_ray_cluster_gives_the_same_table_and_leaves_signals_alone(run_sweep, tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    alone = run_sweep(*GRID, *FAST, name="alone")
    told: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, _: told.append(number))
    try:
        results = clusters.in_ray("", 2, 0, divmod_of, [(7, 2), (9, 4)], lambda: False)
        first = next(results)
        os.kill(os.getpid(), signal.SIGTERM)
        assert sorted([first, *results]) == [(0, (3, 1), ""), (1, (2, 1), "")]
    finally:
        signal.signal(signal.SIGTERM, before)
    assert told == [signal.SIGTERM]
    assert list(clusters.in_ray("", 2, 0, divmod_of, [(7, 2)], lambda: True)) == []  # stopped before anything was begun
    with pytest.raises(SpecError, match="the Ray cluster has no GPU"):
        list(clusters.in_ray("", 2, 1, divmod_of, [(7, 2)], lambda: False))
    with pytest.raises(SpecError, match="a worker of the Ray cluster cannot train: ZeroDivisionError"):
        list(clusters.in_ray("", 2, 0, divmod_of, [(7, 0)], lambda: False))
    assert run_sweep(*GRID, *FAST[:-2], "--backend", "ray", name="cluster").stdout == alone.stdout


def test_a_ray_cluster_that_does_not_answer_is_named(run_sweep) -> None:
    pytest.importorskip("ray", reason="the extra ray is not installed")
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))  # and does not listen
        with pytest.raises(SpecError, match=r"no Ray cluster answers at 127\.0\.0\.1:\d+: .*refused"):
            run_sweep(*GRID, *FAST, "--backend", "ray", "--scheduler", f"127.0.0.1:{nobody.getsockname()[1]}")


def test_a_cluster_that_does_not_answer_is_named(run_sweep) -> None:
    pytest.importorskip("distributed", reason="the extra dask is not installed")
    with pytest.raises(SpecError, match="backend dask needs the address of a scheduler"):
        run_sweep(*GRID, *FAST, "--backend", "dask")


def test_a_cluster_without_workers_is_named(run_sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    distributed = pytest.importorskip("distributed", reason="the extra dask is not installed")
    monkeypatch.setattr(clusters, "WORKERS_SECONDS", 0.1)
    options = {"n_workers": 0, "processes": False, "dashboard_address": None, "protocol": "inproc://"}
    with (
        distributed.LocalCluster(**options) as cluster,
        pytest.raises(SpecError, match=r"has had no worker for 0\.1 seconds; start some with `dask worker"),
    ):
        run_sweep(*GRID, *FAST, "--backend", "dask", "--scheduler", cluster.scheduler_address)


def test_the_same_setting_twice_is_refused(run_sweep) -> None:
    with pytest.raises(SpecError, match=r"grid head.hidden has 04 twice"):
        run_sweep("--grid", "head.hidden=4,04", *FAST)


def test_test_figures_cannot_rank() -> None:
    """The worst on validation is perfect on test and stands last; without validation figures there is no rank."""

    def row(name: str, accuracy: float | None, loss: float | None, top1: float) -> Row:
        figures = SeedFigures(0, accuracy, loss, top1, 1, "")
        return Row(Setting({"x": name}, (), RunSpec()), Path(name), Trained((figures,)))

    rows = [row("worst", 0.1, 2.0, 1.0), row("none", None, None, 1.0), row("tie", 0.9, 0.5, 0.0), row("best", 0.9, 0.4, 0.0)]
    rows.insert(1, Row(Setting({"x": "failed"}, (), RunSpec()), Path("failed"), Trained(failure="no")))
    assert [(each.path.name, each.rank) for each in ranked(rows, "accuracy")] == [
        ("best", 1), ("tie", 2), ("worst", 3), ("none", None), ("failed", None),
    ]  # fmt: skip
    assert [each.path.name for each in ranked(rows, "loss")][:3] == ["best", "tie", "worst"]


def test_validation_figures_by_hand() -> None:
    values = np.array([[2.0, 0.0], [0.0, 1.0], [3.0, 1.0]], np.float32)
    table = ScoreTable(("a", "b", "c"), ("x", "y"), values, "scores", np.array([0, 1, 1]), {})
    assert hits(table) == 2
    expected = sum(np.log(np.exp(row).sum()) - row[label] for row, label in zip(values.astype(float), [0, 1, 1], strict=True))
    assert loss_sum(table) == pytest.approx(expected)
    assert loss_sum(ScoreTable(("a",), ("x", "y"), values[:1], "decision_values", np.array([0]), {})) is None


def test_a_folder_is_named_by_what_is_trained_not_by_how_it_was_asked_for(order_store, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(order_store.path.parent.parent)
    relative = order_store.path.relative_to(Path.cwd())
    short = relative.with_name("rgb")
    (tmp_path / "link").symlink_to(order_store.path.parent)
    plan, spec = Plan(), RunSpec()
    names = {setting_name(Setting({}, (path,), spec), plan) for path in (order_store.path, relative, short, tmp_path / "link" / "rgb")}
    assert len(names) == 1
    apart = replace(plan, together=False)
    assert setting_name(Setting({}, (short,), spec), apart) not in names
    svm = Setting({}, (short,), replace(spec, head=HeadSpec(name="svm_mean")))
    assert setting_name(svm, apart) == setting_name(svm, plan)  # which never trains together with others
    assert setting_name(Setting({}, (Path("nowhere"),), spec), plan) not in names


def test_one_setting_has_the_bits_that_it_has_among_others(run_sweep, tmp_path: Path) -> None:
    axis = ["--seeds", "0,1", "--head.hidden", "24"]
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        run_sweep("--grid", "head.name=gru", *FAST, *axis, name="one")
        run_sweep("--grid", "head.name=gru,max", *FAST, *axis, name="two")
    finally:
        torch.set_num_threads(threads)
    for scores in (tmp_path / "sweeps/one").rglob("scores.npz"):
        twin = tmp_path / "sweeps/two" / scores.relative_to(tmp_path / "sweeps/one")
        assert np.array_equal(ScoreTable.load(scores).values, ScoreTable.load(twin).values)


def test_cross_validation_ranks_by_all_validation_videos(run_sweep, tmp_path: Path) -> None:
    run_sweep("--grid", "head.name=mean", *FAST, "--cross-validate")
    row = json.loads((tmp_path / "sweeps/s/sweep.json").read_text())["settings"][0]
    folds = sorted(Path(row["run"]).glob("seed-0/folds/*"))
    tables = [Run.open(fold).validation_scores() for fold in folds]
    right = np.concatenate([table.values.argmax(1) == table.labels for table in tables])
    assert row["val_accuracy"]["mean"] == pytest.approx(right.mean())


def test_pictures_show_stores_by_their_names() -> None:
    assert shown("features", "/a/b/rgb-0123+/a/c/flow-4567") == "rgb-0123+flow-4567"
    assert shown("features", "features/mobilenet-farneback-tencrop-31a26ff3f924") == "mobilenet-farneback…31a26ff3f924"
    assert shown("head.hidden", "128") == "128"
