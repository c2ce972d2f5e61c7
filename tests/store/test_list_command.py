"""The command ``list``."""

import json
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from store.errors import SpecError
from store.list_commands import list_command, list_options, parse_class_names
from store.video_list import VideoList
from store.videos import read_list

PATTERN = r"\d+_(?P<group>\d+)_(?P<label>\d)\.avi"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    videos = tmp_path / "videos"
    videos.mkdir()
    for name in ("0_1_1.avi", "1_1_0.avi", "2_2_1.avi"):
        (videos / name).touch()
    return videos


def test_a_list_from_names_becomes_csv(folder: Path, tmp_path: Path) -> None:
    output = tmp_path / "list.csv"
    run = CliRunner().invoke(
        list_command, [str(folder), "--pattern", PATTERN, "--class-names", "1=push,0=hug", "--output", str(output), "--check-files"]
    )
    assert run.exit_code == 0, run.output
    assert run.stdout.splitlines() == [
        "videos   3",
        "classes  2, 1 to 2 videos each: push, hug",
        "no split 3",
        "groups   2",
        "missing  0",
    ]
    videos = read_list(output)
    assert videos.classes == ("push", "hug")
    assert next((video.id, video.label, video.group) for video in videos) == ("0_1_1.avi", "push", "1")
    assert not videos.missing_files()


def test_missing_files_give_exit_code_one(tmp_path: Path) -> None:
    source = tmp_path / "list.csv"
    source.write_text("id,label,split\na.avi,run,train\n" + "".join(f"b{n}.avi,,test\n" for n in range(12)))
    (tmp_path / "a.avi").touch()
    run = CliRunner().invoke(list_command, [str(source), "--check-files"])
    assert run.exit_code == 1
    lines = run.stdout.splitlines()
    assert lines[0] == "videos   13 (12 without a label)"
    assert lines[2:4] == ["train    1", "test     12"]
    assert "missing  12" in lines
    assert f"  b0.avi: no {tmp_path / 'b0.avi'}" in lines
    assert lines[-1] == "  ... and 2 more"


def test_the_summary_as_json(folder: Path) -> None:
    run = CliRunner().invoke(list_command, [str(folder), "--pattern", PATTERN, "--json"])
    assert json.loads(run.stdout) == {"videos": 3, "labelled": 3, "classes": {"0": 1, "1": 2}, "splits": {"": 3}, "groups": 2}


def test_another_command_takes_a_list_the_same_way(folder: Path) -> None:
    @click.command()
    @list_options
    @click.option("--times", default=1)
    def count(videos: VideoList, times: int) -> None:
        click.echo(len(videos) * times)

    assert CliRunner().invoke(count, [str(folder), "--pattern", PATTERN, "--times", "2"]).stdout == "6\n"


@pytest.mark.parametrize("text", ["", "0", "0=", "=hug", "0=hug,", "0=hug,0=push"])
def test_class_names_that_cannot_be_read(text: str) -> None:
    with pytest.raises(SpecError, match="write CODE=NAME,CODE=NAME, each code once"):
        parse_class_names(text)


def test_class_names_keep_their_order() -> None:
    assert list(parse_class_names("1=push, 0 = shake=hands").items()) == [("1", "push"), ("0", "shake=hands")]
