"""Results of a paper's tables are not replaced by those of another list, nor by failures."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import Packages
from store.errors import SpecMismatchError
from store.videos import VideoList, write_csv
from temporal.papers import load_paper
from temporal.reproduce_commands import reproduce


def _files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_good_results_stay(make_store, order_values, order_videos, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wide = np.random.default_rng(1).normal(size=(6, 24)).astype(np.float32)
    store = make_store({id_: rows @ wide for id_, rows in order_values.items()}, "rgb").path
    paper = load_paper("lakhal2018")

    def one_line(facts):
        table = next(table for table in paper.tables(facts) if table.where == "Table 5")
        return (replace(table, lines=tuple(line for line in table.lines if line.names == ("RGB",))),)

    monkeypatch.setattr("temporal.reproduce_commands.load_paper", lambda name: replace(paper, tables=one_line))

    def run(code: int) -> Result:
        words = ["lakhal2018", tmp_path / "list.csv", "--out", tmp_path, "--features", f"rgb={store}", "--quick", "--seeds", "0"]
        words += ["--jobs", "1", "--train.epochs", "1", "--train.validation", "0.25"]
        told = CliRunner().invoke(reproduce, [str(word) for word in words], obj=Packages())
        if told.exception and not isinstance(told.exception, SystemExit):
            raise told.exception
        assert told.exit_code == code, told.output
        return told

    foreign = [replace(video, id=f"other-{video.id}") for video in order_videos]
    write_csv(VideoList(tuple(foreign), order_videos.classes), tmp_path / "list.csv")
    assert "0 of 1 lines of 1 tables measured, 1 failed" in run(1).stdout  # which protects nothing
    write_csv(order_videos, tmp_path / "list.csv")
    assert "1 of 1 lines" in run(0).stdout
    folder = tmp_path / "lakhal2018-quick"
    before = _files(folder)
    assert set(before) == {"index.html", "results.md", "results.json"}
    write_csv(order_videos.subset([video.id for video in order_videos if video.id != "v22"]), tmp_path / "list.csv")
    with pytest.raises(SpecMismatchError, match=r"results of another list \(list: 24 videos of 2 classes, now 23 of 2\); choose another"):
        run(2)
    write_csv(order_videos, tmp_path / "list.csv")
    weights = next(folder.rglob("weights.safetensors"))
    weights.write_bytes(weights.read_bytes()[:-1])
    told = run(1)
    assert "weights.safetensors is not the file that the run wrote" in told.stdout
    assert "results.json and the pages stay as they were: they have figures of 1 lines that fail now" in told.stderr
    assert _files(folder) == before
