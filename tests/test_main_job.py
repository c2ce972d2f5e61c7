"""The commands as a user types them: the main job end to end, exit codes, interruption by SIGKILL."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cli
from store.features import FeatureStore
from store.scores import ScoreTable
from store.videos import Video, VideoList, write_csv

CLI = Path(__file__).resolve().parent.parent / "cli.py"


def actioncache(*arguments: str | Path, code: int = 0) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(CLI), *map(str, arguments)]
    result = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert result.returncode == code, f"exit code {result.returncode}\n{result.stdout}\n{result.stderr}"
    return result


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory, encode_video: Callable[..., Path]) -> Path:
    """A list of 16 short videos of two classes, bright squares moving right or left, in 8 groups."""
    folder = tmp_path_factory.mktemp("videos")
    random = np.random.default_rng(0)
    made = []
    for number in range(16):
        frames = random.integers(0, 60, (20, 64, 80, 3), np.uint8)
        for step in range(20):
            left = 2 + 3 * step if number % 2 else 60 - 3 * step
            frames[step, 20:40, max(left, 0) : left + 16] = 230
        name = f"{'right' if number % 2 else 'left'}/{number:02}.mp4"
        (folder / name).parent.mkdir(exist_ok=True)
        encode_video(folder / name, frames)
        made.append(Video(name, folder / name, name.split("/")[0], "train" if number < 12 else "test", f"g{number // 2}"))
    write_csv(VideoList(tuple(made), ("left", "right")), folder / "list.csv")
    return folder / "list.csv"


def test_help_is_fast_because_it_imports_no_torch() -> None:
    script = f"import sys; sys.path.insert(0, {str(CLI.parent)!r}); sys.argv = ['actioncache', '--help']\nimport cli\n"
    script += "try:\n    cli.main()\nfinally:\n    print(sorted({'torch', 'h5py', 'cv2', 'av', 'sklearn', 'numpy'} & set(sys.modules)))"
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.splitlines()[-1] == "[]"
    assert "train-head" in result.stdout


def test_from_videos_to_a_report(videos: Path, tmp_path: Path) -> None:
    stores = {}
    for stream, preset in {"rgb": "tiny", "flow": "tiny-flow"}.items():
        printed = actioncache(
            "extract", videos, "--preset", preset, "--weights", "random:0", "--out", tmp_path / "features", "--json"
        ).stdout
        summary = json.loads(printed)
        assert (summary["done"], summary["skipped"], summary["failed"]) == (16, 0, {})
        stores[stream] = summary["store"]
    for stream, store in stores.items():
        actioncache(
            *("train-head", videos, "--features", store, "--name", stream, "--out", tmp_path / "runs"),
            *("--head.name", "gru", "--head.hidden", "16", "--train.epochs", "5"),
        )
    predicted = tmp_path / "again.npz"
    actioncache("predict", tmp_path / "runs/rgb", videos, "--features", stores["rgb"], "-o", predicted)
    tables = [f"{stream}={tmp_path / 'runs' / stream / 'scores.npz'}" for stream in stores]
    scores = ScoreTable.load(tmp_path / "runs/rgb/scores.npz")
    np.testing.assert_allclose(ScoreTable.load(predicted).rows(scores.ids).values, scores.values, rtol=1e-6, atol=1e-6)
    assert len(scores) == 4
    actioncache("fuse", *tables, "--rule", "product", "-o", tmp_path / "product.npz")
    actioncache("frames", videos, "-o", tmp_path / "frames")
    actioncache("report", *tables, f"product={tmp_path / 'product.npz'}", "-o", tmp_path / "report", "--frames", tmp_path / "frames")
    page = (tmp_path / "report/report.html").read_text()
    assert "product of rgb, flow" in page
    assert "data:image" in page
    assert "http://" not in page.replace("http://www.w3.org/", "")
    assert "https://" not in page


def test_failures_are_told_by_the_exit_code_and_the_output(videos: Path, tmp_path: Path) -> None:
    listed = tmp_path / "list.csv"
    good = videos.parent / "left/00.mp4"
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(good.read_bytes()[: good.stat().st_size // 2])
    listed.write_text(f"id,path\ngood,{good}\ncut,{cut}\ngone,{tmp_path / 'gone.mp4'}\n")
    result = actioncache("extract", listed, "--preset", "tiny", "--weights", "random:0", "--out", tmp_path / "f", code=1)
    assert "1 done, 0 were there already, 2 failed, of 3" in result.stdout
    assert "failed gone [decode]" in result.stdout
    assert "no such file" in result.stdout
    assert "failed cut [decode]" in result.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--preset", "tiny"], "no weights were given for backbone tiny; choose"),
        (["--preset", "tinny", "--weights", "random:0"], "no preset is called 'tinny'; did you mean tiny"),
        (["--preset", "tiny", "--weights", "random:0", "--part", "5/4"], "part is '5/4'; write I/N"),
        (["--preset", "tiny", "--weights", "random:0", "--levels", "block9"], "has no level 'block9'; known"),
        (["--preset", "tiny", "--weights", "random:0", "--clips.rule", "often"], "Invalid value for '--clips.rule'"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_says_what_to_do(
    videos: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    words: str,
) -> None:
    monkeypatch.setattr("sys.argv", ["actioncache", "extract", str(videos), *arguments, "--out", str(tmp_path)])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2
    assert words in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_three_times_killed_and_resumed_gives_the_same_store(videos: Path, tmp_path: Path) -> None:
    settings = ["--preset", "tiny-flow", "--weights", "random:0", "--json"]
    whole = FeatureStore.open(Path(json.loads(actioncache("extract", videos, *settings, "--out", tmp_path / "whole").stdout)["store"]))
    killed = tmp_path / "killed" / whole.name
    command = [sys.executable, str(CLI), "extract", str(videos), *settings, "--out", str(killed.parent), "--publish-seconds", "0"]
    for _ in range(3):
        before = len(list(killed.glob("shards/*.h5")))
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(killed.glob("shards/*.h5"))) < before + 2:
            os.sched_yield()
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not FeatureStore.open(killed).verify(deep=True)
    summary = json.loads(actioncache(*command[2:]).stdout)
    assert summary["skipped"] >= 6
    assert summary["done"] + summary["skipped"] == 16
    resumed = FeatureStore.open(killed)
    assert sorted(resumed.ids()) == sorted(whole.ids())
    for video in whole.ids():
        ours, theirs = resumed.get(video), whole.get(video)
        assert all(np.array_equal(ours.values[level], theirs.values[level]) for level in theirs.values)
        assert np.array_equal(ours.frames, theirs.frames)
        assert np.array_equal(ours.times, theirs.times)


def test_sigterm_publishes_and_ends_with_code_3(videos: Path, tmp_path: Path) -> None:
    command = [sys.executable, str(CLI), "extract", str(videos), "--preset", "tiny", "--weights", "random:0", "--out", str(tmp_path)]
    process = subprocess.Popen([*command, "--publish-seconds", "0"], stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    while process.poll() is None and not list(tmp_path.glob("tiny-*/shards/*.h5")):
        os.sched_yield()
    process.send_signal(signal.SIGTERM)
    _, messages = process.communicate()
    assert process.returncode == 3, messages
    assert "run the command again" in messages
    (store,) = tmp_path.glob("tiny-*")
    assert len(FeatureStore.open(store)) >= 1
