"""What a sweep by cross-validation reports of the settings that each fold chose: against the runs' own tables."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from store.videos import write_csv
from temporal.run_dir import Run
from temporal.sweep_commands import sweep

FAST = "--train.epochs 3 --sequence.steps 8 --train.validation 0.25 --head.hidden 4 --jobs 1 --cross-validate --seeds 0,1"


def test_each_fold_chooses_by_its_own_validation_videos(order_store, order_videos, tmp_path: Path) -> None:
    write_csv(order_videos, tmp_path / "list.csv")
    words = [
        tmp_path / "list.csv",
        "--features",
        order_store.path,
        "--name",
        "s",
        "--out",
        tmp_path,
        "--grid",
        "train.learning_rate=1e-1,1e-3",
    ]
    shown = CliRunner().invoke(sweep, [*map(str, words), "--head.name", "gru", *FAST.split()], catch_exceptions=False).stdout
    data = json.loads((tmp_path / "s/sweep.json").read_text())
    settings = sorted(data["settings"], key=lambda row: row["labels"]["train.learning_rate"] != "1e-1")  # in the grid's order
    right, choices = np.zeros((2, 24)), []
    for fold in range(6):
        keys = []
        for row in settings:
            runs = [Run.open(Path(row["run"]) / f"seed-{seed}/folds/fold-{fold:02d}") for seed in (0, 1)]
            tables = [run.validation_scores() for run in runs]
            loss = []
            for table in tables:
                shares = np.exp(table.values.astype(float))
                loss.append(-np.log((shares / shares.sum(1, keepdims=True))[np.arange(len(table)), table.labels]).mean())
            keys.append((-np.mean([np.mean(table.values.argmax(1) == table.labels) for table in tables]), np.mean(loss), runs))
        best = min(range(2), key=lambda at: keys[at][:2])
        choices.append(settings[best]["labels"]["train.learning_rate"])
        for seed, run in enumerate(keys[best][2]):
            table = run.scores()
            right[seed, fold * 4 : fold * 4 + 4] = table.values.argmax(1) == table.labels
    found = data["chosen_in_each_fold"]
    assert list(found["settings"].values()) == [f"train.learning_rate {choice}" for choice in choices]
    np.testing.assert_allclose(found["test_top1"]["mean"], right.mean())
    np.testing.assert_allclose(found["test_top1"]["deviation"], right.mean(1).std(ddof=1))
    assert f"report {100 * right.mean():.2f} ± {100 * right.mean(1).std(ddof=1):.2f} instead" in shown


@pytest.mark.parametrize(("lost", "first"), [("group", False), ("group", True), ("video", False)])
def test_no_figure_where_stores_lack_different_videos(make_store, order_store, order_values, order_videos, tmp_path, lost, first) -> None:
    """Whichever store comes first in the grid; the other ranks and figures stay."""
    write_csv(order_videos, tmp_path / "list.csv")
    gone = [f"v{number:02d}" for number in (range(4) if lost == "group" else [1])]
    lacking = make_store({id_: values for id_, values in order_values.items() if id_ not in gone}, name="lacking")
    stores = [lacking.path, order_store.path] if first else [order_store.path, lacking.path]
    words = [tmp_path / "list.csv", "--grid", f"features={stores[0]},{stores[1]}", "--allow-missing", "--name", "s", "--out", tmp_path]
    fast = [*FAST.replace("epochs 3", "epochs 1").split()[:-2], "--head.name", "mean"]
    done = CliRunner().invoke(sweep, [*map(str, words), *fast], catch_exceptions=False)
    assert done.exit_code == 1
    assert "there is none to report instead: the settings were tested on different videos" in done.stdout
    data = json.loads((tmp_path / "s/sweep.json").read_text())
    assert "chosen_in_each_fold" not in data
    assert [row["rank"] for row in data["settings"]] == [1, 2]
