import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from fusion.commands import evaluate, find_pictures, fuse, read_inputs, read_tables, read_weights, report, split_name
from store.errors import AlignmentError, ScoreError, SpecError
from store.files import sha256_file
from store.names import NameRules
from store.scores import ScoreTable


@pytest.fixture
def folder(make_table, tmp_path) -> Path:
    for seed, name in enumerate(["rgb", "flow"]):
        make_table(seed).save(tmp_path / f"{name}.npz")
    rows = [f"{name},{name}.avi,{make_table(0).classes[index % 6]},test," for index, name in enumerate(make_table(0).ids)]
    (tmp_path / "list.csv").write_text("\n".join(["id,path,label,split,group", *rows]) + "\n")
    dataclasses.replace(make_table(2), labels=None).save(tmp_path / "bare.npz")
    return tmp_path


def run(command, *arguments):
    result = CliRunner().invoke(command, [str(argument) for argument in arguments])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_fuse_writes_a_table_and_prints_its_accuracy(folder):
    result = run(fuse, f"rgb={folder / 'rgb.npz'}", f"flow={folder / 'flow.npz'}", "--rule", "sum", "-o", folder / "both.npz")
    fused = ScoreTable.load(folder / "both.npz")
    accuracy = np.mean(fused.values.argmax(axis=1) == fused.labels)
    line = next(line for line in result.output.splitlines() if line.startswith("both "))
    assert f"{100 * accuracy:.2f}" in line
    assert "sum of rgb, flow; on softmax" in line
    assert "wrote" in result.output
    assert fused.source["inputs"]["rgb"]["source"]["sha256"] == sha256_file(folder / "rgb.npz")
    assert fused.source["inputs"]["rgb"]["source"]["seed"] == 0


@pytest.mark.parametrize("weights", ["1,1.5", "flow=1.5,rgb=1"])
def test_weights_by_position_or_name(folder, weights):
    run(fuse, folder / "rgb.npz", folder / "flow.npz", "--rule=weighted", "--on=raw", "--weights", weights, "-o", folder / "w.npz")
    fused, a, b = (ScoreTable.load(folder / f"{name}.npz") for name in ("w", "rgb", "flow"))
    np.testing.assert_allclose(fused.values, a.values + 1.5 * b.values, rtol=1e-6, atol=1e-6)
    assert fused.source["weights"] == {"rgb": 1.0, "flow": 1.5}


def test_settings_may_come_from_a_file(folder):
    (folder / "fuse.toml").write_text('rule = "weighted"\n[weights]\nrgb = 1\nflow = 1.5\n')
    run(fuse, folder / "rgb.npz", folder / "flow.npz", "--config", folder / "fuse.toml", "-o", folder / "w.npz")
    assert ScoreTable.load(folder / "w.npz").source["weights"] == {"rgb": 1.0, "flow": 1.5}


def test_fusing_needs_no_labels(folder):
    other = dataclasses.replace(ScoreTable.load(folder / "rgb.npz"), labels=None)
    other.save(folder / "other.npz")
    result = run(fuse, folder / "bare.npz", folder / "other.npz", "-o", folder / "f.npz")
    assert "no labels, so no accuracy; give them by id with --list LIST" in result.output
    assert ScoreTable.load(folder / "f.npz").labels is None


def test_labels_from_a_list(folder):
    with pytest.raises(ScoreError, match="--list LIST"):
        run(evaluate, folder / "bare.npz")
    result = run(evaluate, folder / "bare.npz", "--list", folder / "list.csv")
    table = ScoreTable.load(folder / "bare.npz")
    assert f"{100 * np.mean(table.values.argmax(axis=1) == np.arange(40) % 6):.2f}" in result.output


def test_evaluate_as_json(folder):
    result = run(evaluate, folder / "rgb.npz", f"second={folder / 'flow.npz'}", "--json", "--samples", "50")
    data = json.loads(result.output)
    assert [table["name"] for table in data["tables"]] == ["rgb", "second"]
    assert data["tables"][0]["num_videos"] == 40
    assert np.array(data["tables"][0]["confusion"]).shape == (6, 6)
    assert set(data["comparisons"][0]) == {"first", "second", "difference", "interval", "test"}
    assert data["agreements"][0]["first"] == "rgb"
    assert data["bootstrap"] == {"samples": 50, "level": 0.95, "seed": 0, "drawn": "videos", "count": 40}


def test_whole_groups_of_the_list_are_drawn(folder):
    lines = [
        "id,path,label,group",
        *(f"v{row:02d},v{row:02d}.avi,{('run', 'jump', 'wave', 'clap', 'sit', 'stand')[row % 6]},film{row // 4}" for row in range(40)),
    ]
    (folder / "groups.csv").write_text("\n".join(lines))
    inputs = (evaluate, folder / "rgb.npz", folder / "flow.npz", "--samples", "50")
    few = "; intervals from fewer than 20 groups tend to be too narrow"
    assert f"50 bootstrap resamples of 10 groups, seed 0 (40 videos){few}\n" in run(*inputs, "--list", folder / "groups.csv").output
    assert "50 bootstrap resamples of 40 videos, seed 0\n" in run(*inputs, "--list", folder / "groups.csv", "--draw", "videos").output
    assert "50 bootstrap resamples of 40 videos, seed 0; a --list with groups" in run(*inputs, "--list", folder / "list.csv").output
    split = run(evaluate, f"a={folder / 'rgb.npz'},{folder / 'flow.npz'}", "--list", folder / "groups.csv", "--samples", "50")
    assert "resamples of 10 groups" in split.output
    run(report, folder / "rgb.npz", "--list", folder / "groups.csv", "-o", folder / "out", "--no-files")
    for name in ("report.html", "report.txt"):
        assert "1,000 bootstrap resamples of 10 groups" in (folder / "out" / name).read_text(encoding="utf-8")


def test_the_calibration_error_is_printed(folder):
    header, row, *_ = run(evaluate, folder / "rgb.npz").output.splitlines()
    table = ScoreTable.load(folder / "rgb.npz")
    p = np.exp(table.values.astype(float))
    p /= p.sum(axis=1, keepdims=True)
    right, confidence = table.values.argmax(axis=1) == table.labels, p.max(axis=1)
    bins = (confidence * 15).astype(int)
    error = sum(abs((right - confidence)[bins == number].sum()) for number in range(15)) / 40
    assert "calibration error" in header
    assert f"  {100 * error:.1f}  raw class scores" in row


def test_report_writes_three_files_and_prints_the_table(folder):
    result = run(report, folder / "rgb.npz", folder / "flow.npz", "-o", folder / "out", "--title", "Two streams", "--samples=50")
    assert "<h1>Two streams</h1>" in (folder / "out" / "report.html").read_text(encoding="utf-8")
    assert json.loads((folder / "out" / "report.json").read_text(encoding="utf-8"))["bootstrap"]["samples"] == 50
    assert "rgb" in (folder / "out" / "report.txt").read_text(encoding="utf-8")
    assert "raw class scores" in result.output


def test_report_with_pictures_from_a_folder(folder):
    import cv2

    (folder / "frames").mkdir()
    for name in ScoreTable.load(folder / "rgb.npz").ids:
        cv2.imwrite(str(folder / "frames" / f"{name}.jpg"), np.zeros((30, 40, 3), np.uint8))
    run(report, folder / "rgb.npz", "-o", folder / "out", "--frames", folder / "frames", "--no-files")
    assert "data:image/jpeg" in (folder / "out" / "report.html").read_text(encoding="utf-8")


def test_pictures_cannot_come_from_outside_the_folder(tmp_path):
    (tmp_path / "frames").mkdir()
    (tmp_path / "secret.jpg").write_bytes(b"x")
    (tmp_path / "frames" / "a.png").write_bytes(b"x")
    assert find_pictures(tmp_path / "frames", "../secret") == []
    assert find_pictures(tmp_path / "frames", str(tmp_path / "secret")) == []
    assert find_pictures(tmp_path / "frames", "a") == [tmp_path / "frames" / "a.png"]


def test_names_of_inputs(tmp_path):
    assert split_name("rgb=a/b.npz") == ("rgb", Path("a/b.npz"))
    assert split_name("a/b.npz") == ("b", Path("a/b.npz"))
    odd = tmp_path / "lr=0.1.npz"
    odd.write_bytes(b"")
    assert split_name(str(odd)) == ("lr=0.1", odd)
    assert split_name(f"x={odd}") == ("x", odd)
    with pytest.raises(SpecError, match=r"'rgb=' is no input; write NAME=FILE\.npz"):
        split_name("rgb=")


def test_inputs_that_cannot_be_used(folder):
    with pytest.raises(SpecError, match="two inputs are called 'rgb'"):
        read_tables((str(folder / "rgb.npz"), f"rgb={folder / 'flow.npz'}"))
    with pytest.raises(SpecError, match=r"there is no score table .*missing\.npz"):
        read_tables((str(folder / "missing.npz"),))
    (folder / "text.npz").write_text("hello")
    with pytest.raises(ScoreError, match=r"text\.npz"):
        read_tables((str(folder / "text.npz"),))
    (folder / "short.csv").write_text("id,path,label,split,group\nv00,v00.avi,run,test,\n")
    with pytest.raises(AlignmentError, match=r"39 ids are not in the list \(which holds ids like 'v00'\): 'v01'"):
        read_inputs((str(folder / "rgb.npz"),), folder / "short.csv", None, NameRules())


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("1", "1 weights for 2 inputs"),
        ("1,2,3", "3 weights for 2 inputs"),
        ("a=1,2", "name all of them or none"),
        ("a=x,b=1", "write NAME=NUMBER"),
    ],
)
def test_weights_that_cannot_be_used(text, words):
    with pytest.raises(SpecError, match=words):
        read_weights(text, ("a", "b"))


def test_wrong_usage_exits_with_2(folder):
    assert run(fuse, "-o", folder / "x.npz").exit_code == 2
    assert run(fuse, folder / "rgb.npz", folder / "flow.npz").exit_code == 2


def test_an_input_with_two_weights_is_an_error(folder):
    inputs = (fuse, folder / "rgb.npz", folder / "flow.npz", "--rule", "weighted", "-o", folder / "f.npz")
    with pytest.raises(SpecError, match="rgb has more than one"):
        run(*inputs, "--weights", "rgb=1,flow=1,rgb=5")


def test_a_file_whose_name_has_commas_is_one_file(folder):
    (folder / "rgb.npz").rename(folder / "hog,hof.npz")
    assert "40 videos" in run(evaluate, f"a={folder / 'hog,hof.npz'}", f"b={folder / 'flow.npz'}", "--samples", "20").output
