"""Folders that cannot be written to are told before the work, a full disk by the name of the file."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from click.testing import CliRunner

import cli
from store.errors import ScoreError
from store.files import check_writable, naming, write_text
from store.videos import write_csv


@contextmanager
def room_for(num_bytes: int) -> Iterator[None]:
    """No file may become larger: the system's error then names no file, like that of a disk without room."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (num_bytes, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.fixture
def words(order_videos, order_store, tmp_path: Path) -> list[str]:
    """List and features, as commands take them."""
    write_csv(order_videos, tmp_path / "list.csv")
    return [str(tmp_path / "list.csv"), "--features", str(order_store.path), "--sequence.steps", "8", "--train.epochs", "1"]


def _fails(command: list[object]) -> OSError:
    told = CliRunner().invoke(cli.cli, list(map(str, command)))
    assert isinstance(told.exception, OSError), told.output
    assert "epochs" not in told.stderr
    return told.exception


def test_an_error_of_writing_names_the_file(tmp_path: Path) -> None:
    with room_for(100), pytest.raises(OSError, match=r"large: '.*/deep/notes\.txt'$"):
        write_text(tmp_path / "deep" / "notes.txt", "x" * 200)
    assert list((tmp_path / "deep").iterdir()) == []
    with pytest.raises(OSError, match=r"^in words of its own$"), naming(tmp_path):
        raise OSError("in words of its own")


def test_what_cannot_be_written_to_is_known_before(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    check_writable(tmp_path, tmp_path / "new" / "deep", tmp_path / "file")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    with pytest.raises(NotADirectoryError, match=r"'.*/file/x\.npz'$"):
        check_writable(tmp_path / "file" / "x.npz")
    with room_for(0), pytest.raises(OSError, match=rf"'{tmp_path}/x'$"):
        check_writable(tmp_path / "x")
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_commands_look_before_they_work(words, tmp_path: Path) -> None:
    assert CliRunner().invoke(cli.cli, ["train-head", *words, "--name", "one", "--out", str(tmp_path)]).exit_code == 0
    (tmp_path / "file").write_text("")
    bad, predict = tmp_path / "file" / "in", ["predict", tmp_path / "one", *words[:3]]
    for command in (
        ["train-head", *words, "--name", "x", "--out", bad],
        ["sweep", *words, "--name", "x", "--out", bad, "--grid", "head.hidden=2"],
        [*predict, "-o", bad / "x.npz"],
        [*predict, "--picture", bad / "x.png"],
        [*predict, "--keep-features", bad],
        ["report", tmp_path / "one" / "scores.npz", "-o", bad],
    ):
        assert str(_fails(command).filename).startswith(str(bad))
    told = CliRunner().invoke(cli.cli, [*map(str, predict), "-o", str(tmp_path / "x.csv")])
    assert isinstance(told.exception, ScoreError)


def test_a_disk_that_becomes_full_is_told_by_file(words, tmp_path: Path) -> None:
    with room_for(20):
        told = CliRunner().invoke(cli.cli, ["train-head", *words, "--name", "one", "--out", str(tmp_path)])
    assert isinstance(told.exception, OSError)
    assert str(told.exception.filename).startswith(str(tmp_path / ".one."))
