"""--dry-run: what would be done, by packets and a few timed videos; nothing on the disk."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from extract.commands import extract
from store.features import FeatureStore

Encode = Callable[..., Path]
LENGTHS = (40, 9, 33, 1, 25, 70)


@pytest.fixture(scope="module")
def listed(tmp_path_factory: pytest.TempPathFactory, encode_video: Encode) -> Path:
    """A list of videos of ``LENGTHS`` frames, and two that cannot be read."""
    folder = tmp_path_factory.mktemp("videos")
    names = []
    for number, length in enumerate(LENGTHS):
        frames = np.random.default_rng(number).integers(0, 256, (length, 64, 80, 3), np.uint8)
        names.append(encode_video(folder / f"v{number}.mp4", frames).name)
    (folder / "empty.mp4").touch()
    (folder / "list.txt").write_text("\n".join([*names, "empty.mp4", "missing.mp4"]))
    return folder / "list.txt"


def run(listed: Path, out: Path, *arguments: str) -> Result:
    command = [str(listed), "--preset", "tiny-clips", "--weights", "random:0", "--out", str(out), "--workers", "1", *arguments]
    return CliRunner().invoke(extract, command)


def test_a_dry_run_tells_what_a_run_then_does(listed: Path, tmp_path: Path) -> None:
    dry = run(listed, tmp_path / "out", "--dry-run", "--json")
    assert dry.exit_code == 1  # two videos cannot be read
    coming = json.loads(dry.stdout)
    assert not (tmp_path / "out").exists()
    assert (coming["todo"], coming["skipped"], coming["failed"], coming["timed"]) == (len(LENGTHS) + 2, 0, 0, 4)
    assert coming["clips"] == sum(max(1, (length - 8) // 4 + 1) for length in LENGTHS)
    assert {video: reason.split(": ")[-1].split(" (")[0].split(";")[0] for video, reason in coming["unreadable"].items()} == {
        "empty.mp4": "the file is empty",
        "missing.mp4": "no such file",
    }
    assert 0 < coming["seconds"] < 600
    assert "network" in coming["shares"] or "decode" in coming["shares"]

    done = json.loads(run(listed, tmp_path / "out", "--json").stdout)
    assert (done["store"], done["clips"]) == (coming["store"], coming["clips"])
    store = FeatureStore.open(Path(coming["store"]))
    values = sum(level.nbytes for video in store.ids() for level in store.get(video).values.values())
    spans = sum(store.get(video).frames.nbytes + store.get(video).times.nbytes for video in store.ids())
    assert coming["bytes"] == values + spans

    again = run(listed, tmp_path / "out", "--dry-run", "--json")
    assert again.exit_code == 0
    left = json.loads(again.stdout)
    assert (left["todo"], left["skipped"], left["failed"], left["clips"], left["seconds"]) == (0, len(LENGTHS), 2, 0, None)


def test_a_dry_run_in_words(listed: Path, tmp_path: Path) -> None:
    text = run(listed, tmp_path, "--dry-run", "--part", "1/2").stdout
    lines = text.splitlines()
    assert lines[0].endswith(" (not there yet)")
    assert lines[1] == "4 to do, 0 are there already, 0 failed before"
    assert lines[2].startswith(f"{sum(max(1, (length - 8) // 4 + 1) for length in LENGTHS[::2])} clips, 0.0 MB of features")
    assert "on this machine, going by 3 videos (" in lines[3]
    assert lines[4].startswith("unreadable empty.mp4: ")
    assert lines[-1] == "nothing was written"


def test_long_videos_are_timed_in_part(listed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("extract.dry_run.TIMED_SECONDS", 0.0)  # the first clips are enough
    coming = json.loads(run(listed, tmp_path, "--dry-run", "--json").stdout)
    assert coming["timed"] == coming["partly"] == 1
    assert 0 < coming["seconds"] < 600
    text = run(listed, tmp_path, "--dry-run").stdout
    assert "on this machine, going by 1 videos, 1 of them in part (" in text


@pytest.mark.parametrize("pool", ["mean", "none"])
def test_bytes_are_those_that_a_run_then_stores(listed: Path, tmp_path: Path, pool: str) -> None:
    clips = ["--clips.rule", "looped", "--clips.length", "5", "--clips.stride", "3", "--clips.pool", pool]
    command = [str(listed), "--preset", "tiny", "--weights", "random:0", "--out", str(tmp_path), "--workers", "1", *clips, "--json"]
    coming = json.loads(CliRunner().invoke(extract, [*command, "--levels", "block2,block3", "--dry-run"]).stdout)
    done = json.loads(CliRunner().invoke(extract, [*command, "--levels", "block2,block3"]).stdout)
    store = FeatureStore.open(Path(done["store"]))
    features = [store.get(video) for video in store.ids()]
    stored = sum(array.nbytes for each in features for array in (*each.values.values(), each.frames, each.times))
    assert coming["bytes"] == stored


def test_a_list_of_which_nothing_can_be_read(listed: Path, tmp_path: Path) -> None:
    bad = listed.with_name("bad.txt")
    bad.write_text("empty.mp4\nmissing.mp4\n")
    result = run(bad, tmp_path, "--dry-run")
    assert result.exit_code == 1
    assert "0 clips\n" in result.stdout


def test_the_summary_tells_clips_rate_and_how_busy_the_device_was(listed: Path, tmp_path: Path) -> None:
    lines = run(listed, tmp_path).stdout.splitlines()
    assert lines[1] == "6 done, 0 were there already, 2 failed, of 8"
    assert [entry.split()[0] for entry in lines[2].removeprefix("seconds: ").split(", ")][-2:] == ["publish", "total"]
    assert {"decode", "crops", "network", "store"} <= {entry.split()[0] for entry in lines[2].removeprefix("seconds: ").split(", ")}
    assert " clips/s; the device was busy " in lines[3]
