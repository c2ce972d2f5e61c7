"""The commands train-head and predict: what they print, where they write, how they exit."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from store.errors import MissingFeaturesError, StoreError, TrainingError, UnknownNameError
from store.list_commands import whole_numbers
from store.scores import ScoreTable
from store.videos import VideoList, write_csv
from temporal.commands import accuracy_text, train_head
from temporal.predict_command import predict
from temporal.run_dir import SUMMARY, Run

FAST = ["--train.epochs", "2", "--head.hidden", "4", "--sequence.steps", "8", "--train.validation", "0.25"]


def invoke(command, *arguments, code: int = 0) -> Result:
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result


@pytest.fixture
def list_file(order_videos: VideoList, tmp_path: Path) -> Path:
    path = tmp_path / "list.csv"
    write_csv(order_videos, path)
    return path


def test_train_then_predict(list_file, order_store, tmp_path):
    trained = invoke(train_head, list_file, "--features", order_store.path, "--name", "one", "--out", tmp_path / "runs", *FAST)
    assert "top-1" in trained.stdout
    assert "of 8 videos" in trained.stdout
    assert "epochs" in trained.stderr
    run = Run.open(tmp_path / "runs" / "one")
    assert (run.spec.head.name, run.spec.head.hidden, run.spec.train.epochs) == ("gru", 4, 2)
    output = tmp_path / "all.npz"
    predicted = invoke(predict, run.path, list_file, "--features", order_store.path, "-o", output)
    table = ScoreTable.load(output)
    assert len(table.ids) == 24
    test, chosen = run.scores().ids, run.validation_scores().ids
    learned = set(table.ids) - {*test, *chosen}
    kinds = {"ids are not among those that the run was trained on": test, "validation part": chosen, "was trained on": learned}
    right = dict(zip(table.ids, table.values.argmax(1) == table.labels, strict=True))
    assert len(predicted.stdout.splitlines()) == 3
    for line, (words, ids) in zip(predicted.stdout.splitlines(), kinds.items(), strict=True):
        assert f"({sum(right[id_] for id_ in ids)} of {len(ids)} videos), videos" in line
        assert words in line


def test_predict_knows_what_a_run_was_trained_on(list_file, order_store, tmp_path):
    """After a refit nothing of the training videos is unseen; a run of an earlier version tells what it can."""
    arguments = [list_file, "--features", order_store.path]
    invoke(train_head, *arguments, "--name", "one", "--out", tmp_path, *FAST, "--train.refit")
    lines = invoke(predict, tmp_path / "one", *arguments).stdout.splitlines()
    assert "of 8 videos), videos whose ids are not among those that the run was trained on" in lines[0]
    assert "of 16 videos), videos that the run was trained on" in lines[1]
    assert len(lines) == 2
    told = [json.loads(line) for line in invoke(predict, tmp_path / "one", *arguments, "--json").stdout.splitlines()]
    assert [each["id"] for each in told if each["part"] == "unseen"] == list(Run.open(tmp_path / "one").scores().ids)
    data = json.loads((tmp_path / "one" / "spec.json").read_text())
    del data["digests"]
    (tmp_path / "one" / "spec.json").write_text(json.dumps(data))
    (tmp_path / "one" / "videos.json").unlink()
    lines = invoke(predict, tmp_path / "one", *arguments).stdout.splitlines()
    assert [line.partition("of ")[2].partition(" videos")[0] for line in lines] == ["8", "4", "12"]
    assert "does not tell whether it was trained on them" in lines[2]


def test_cross_validation_over_seeds_prints_the_mean(list_file, order_store, tmp_path):
    arguments = [
        list_file,
        "--features",
        order_store.path,
        "--name",
        "cv",
        "--out",
        tmp_path,
        "--cross-validate",
        "--seeds",
        "0,1",
        "--jobs",
        1,
    ]
    result = invoke(train_head, *arguments, *FAST, "--head.name", "mean")
    assert "mean of 2 seeds, deviation" in result.stdout
    assert set(json.loads((tmp_path / "cv" / SUMMARY).read_text())["seeds"]) == {"0", "1"}
    assert len(Run.open(tmp_path / "cv" / "seed-1").scores().ids) == 24
    assert invoke(train_head, *arguments, *FAST, "--head.name", "mean").stdout == result.stdout


def test_missing_features_are_an_error_or_exit_code_1(list_file, order_values, make_store, tmp_path):
    del order_values["v05"]
    store = make_store(order_values, "holes")
    arguments = [list_file, "--features", store.path, "--name", "one", "--out", tmp_path, *FAST]
    with pytest.raises(MissingFeaturesError, match="1 of 24 videos have no features"):
        invoke(train_head, *arguments)
    result = invoke(train_head, *arguments, "--allow-missing", code=1)
    assert "1 videos of the list have no features and were left out: v05" in result.stderr
    output = tmp_path / "scores.npz"
    invoke(predict, tmp_path / "one", list_file, "--features", store.path, "-o", output, "--allow-missing", code=1)
    assert "v05" not in ScoreTable.load(output).ids


def test_settings_come_from_a_file_and_flags_win(list_file, order_store, tmp_path):
    (tmp_path / "lstm.toml").write_text('[head]\nname = "lstm"\nhidden = 9\n[train]\nepochs = 1\nseed = 5\n')
    arguments = [list_file, "--features", order_store.path, "--name", "one", "--out", tmp_path, "--config", tmp_path / "lstm.toml"]
    invoke(train_head, *arguments, "--head.hidden", 3)
    spec = Run.open(tmp_path / "one").spec
    assert (spec.head.name, spec.head.hidden, spec.train.epochs, spec.train.seed) == ("lstm", 3, 1, 5)


def test_an_unknown_head_suggests(list_file, order_store, tmp_path):
    with pytest.raises(UnknownNameError, match=r"no head is called 'res_lstn'; did you mean res_lstm"):
        invoke(train_head, list_file, "--features", order_store.path, "--name", "x", "--out", tmp_path, "--head.name", "res_lstn")


def test_seeds_are_checked(list_file, order_store, tmp_path):
    assert whole_numbers("3, 1", "--seeds") == [3, 1]
    for wrong in ("1,1", "1,01", "a", "-1"):
        result = invoke(train_head, list_file, "--features", order_store.path, "--name", "x", "--out", tmp_path, "--seeds", wrong, code=2)
        assert "no list of different whole numbers" in result.output


def test_a_device_that_is_not_there_is_named(list_file, order_store, tmp_path):
    arguments = [list_file, "--features", order_store.path]
    with pytest.raises(TrainingError, match=r"device 'cuda:99' cannot be used here: \w+"):
        invoke(train_head, *arguments, "--name", "x", "--out", tmp_path, *FAST, "--device", "cuda:99")
    invoke(train_head, *arguments, "--name", "x", "--out", tmp_path, *FAST)
    with pytest.raises(TrainingError, match="device 'meta' cannot be used here"):
        invoke(train_head, *arguments, "--name", "y", "--out", tmp_path, *FAST, "--device", "meta")
    with pytest.raises(TrainingError, match="device 'cpuu' cannot be used here"):
        invoke(predict, tmp_path / "x", *arguments, "-o", tmp_path / "x.npz", "--device", "cpuu")


def test_a_name_is_no_path(list_file, order_store, tmp_path):
    for name in ("../elsewhere", "/tmp/elsewhere", "a/b"):
        with pytest.raises(StoreError, match="cannot be a file name"):
            invoke(train_head, list_file, "--features", order_store.path, "--name", name, "--out", tmp_path / "runs", *FAST)
    assert not (tmp_path / "elsewhere").exists()


def test_accuracy_in_words():
    assert accuracy_text(50 / 60, 60) == "top-1 83.33 % (50 of 60 videos)"
    assert accuracy_text(None, 60) == "60 videos scored, not all labelled"
    assert accuracy_text(None, 0) == "no test videos"
