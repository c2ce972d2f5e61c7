"""store import and store export as a user types them, up to training on features that another tool made."""

import csv
import json
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import cli
from store.exchange import importer
from store.features import FeatureStore
from store.scores import ScoreTable

Run = Callable[..., tuple[int, str, str]]
CLASSES = ("jump", "run", "walk")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Run:
    """``run(*arguments) -> exit code, stdout, stderr`` of the command line, in this process."""

    def call(*arguments: object) -> tuple[int, str, str]:
        capsys.readouterr()
        monkeypatch.setattr("sys.argv", ["actioncache", *map(str, arguments)])
        with pytest.raises(SystemExit) as ended:
            cli.main()
        told = capsys.readouterr()
        return int(str(ended.value.code)), told.out, told.err

    return call


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Thirty .npy files of three classes whose features differ by class, and a list of the videos they were made of."""
    rng = np.random.default_rng(0)
    with (tmp_path / "videos.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["id", "label", "split", "group"])
        for number in range(30):
            label = CLASSES[number % 3]
            path = tmp_path / "features_of_others" / label / f"v{number:02}.npy"
            path.parent.mkdir(parents=True, exist_ok=True)
            np.save(path, (rng.standard_normal((int(rng.integers(4, 9)), 12)) * 0.1 + np.eye(12)[number % 3]).astype("f4"))
            rows.writerow([f"{label}/v{number:02}.mp4", label, "train" if number < 21 else "test", f"g{number // 3}"])
    return tmp_path / "features_of_others"


def imported(run: Run, *arguments: object) -> Path:
    code, out, err = run("store", "import", *arguments, "--json")
    assert code == 0, err + out
    return Path(json.loads(out)["store"])


def test_from_files_of_another_tool_to_scores(run: Run, tree: Path, tmp_path: Path) -> None:
    videos = tmp_path / "list.csv"
    assert run("list", tmp_path / "videos.csv", "-o", videos)[0] == 0
    origin = "made by hand, class in the first dimensions"
    store = imported(run, tree, "--layout", "npy", "--origin", origin, "--list", videos, "--name", "hand", "--out", tmp_path / "f")
    assert store.name.startswith("hand-")
    assert FeatureStore.open(store).spec["imported"]["origin"] == origin
    options = ("--head.name", "mean", "--train.epochs", "60", "--train.learning-rate", "0.05", "--out", tmp_path / "runs")
    code, _, err = run("train-head", videos, "--features", store, "--name", "hand", *options)
    assert code == 0, err
    code, _, err = run("predict", tmp_path / "runs/hand", videos, "--features", store, "-o", tmp_path / "scores.npz")
    assert code == 0, err
    scores = ScoreTable.load(tmp_path / "scores.npz")
    predicted = [scores.classes[best] for best in scores.values.argmax(1)]
    assert predicted == [video_id.split("/")[0] for video_id in scores.ids]


def test_ten_crops_are_trained_on_by_their_mean(run: Run, tree: Path, tmp_path: Path) -> None:
    for path in tree.rglob("*.npy"):
        rows = np.load(path)
        np.save(path, np.repeat(rows[:, None], 10, 1) + np.linspace(-1, 1, 10, dtype="f4")[None, :, None])
    (tmp_path / "crops.list").write_text("".join(f"{path}\n" for path in sorted(tree.rglob("*.npy"))))
    store = imported(
        *(run, tmp_path / "crops.list", "--layout", "tencrop", "--origin", "x", "--root", tree, "--list", tmp_path / "videos.csv"),
        *("--timing.stride", 16, "--timing.fps", 30, "--out", tmp_path / "f"),
    )
    options = ("--head.name", "mean", "--train.epochs", "2", "--out", tmp_path / "runs", "--name", "x")
    code, _, err = run("train-head", tmp_path / "videos.csv", "--features", store, *options)
    assert code == 2
    assert "--sequence.inner mean takes their mean" in err
    code, _, err = run("train-head", tmp_path / "videos.csv", "--features", store, *options, "--sequence.inner", "mean")
    assert code == 0, err


def test_failures_and_missing_videos_decide_the_exit_code(run: Run, tree: Path, tmp_path: Path) -> None:
    arguments = ("store", "import", tree, "--layout", "npy", "--origin", "x", "--out", tmp_path / "f")
    data = (tree / "run/v01.npy").read_bytes()
    (tree / "run/v01.npy").write_bytes(data[:-1])
    code, out, err = run(*arguments)
    assert code == 1
    assert "29 done, 0 were there already, 1 failed, of 30 videos found" in out
    assert "failed run/v01: " in out
    assert "import 30/30 videos" in err
    (tree / "run/v01.npy").write_bytes(data)
    code, out, _ = run(*arguments)
    assert (code, "1 done, 29 were there already, 0 failed" in out) == (0, True)
    np.save(tree / "walk/v02.npy", np.ones((3, 12), "f4"))
    code, out, _ = run(*arguments)
    assert code == 1
    assert "failed walk/v02: is in" in out
    assert "with other values or times, and stays as it is there" in out
    assert run(*arguments, "--no-compare")[0] == 0
    (tmp_path / "more.csv").write_text("id\nrun/v01.mp4\nrun/unknown.mp4\n")
    code, out, _ = run(*arguments, "--list", tmp_path / "more.csv")
    assert code == 1
    assert "1 videos of the list are neither found nor in the store:\n  run/unknown.mp4" in out
    assert "note: 29 videos found are not in the list: jump/v00, " in out


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--layout", "npy"], "say with --origin where the features come from"),
        (["--origin", "x"], "say with --layout how the source is laid out: c3d, hdf5, npy, npz, tencrop"),
        (["--origin", "x", "--layout", "ncy"], "no layout is called 'ncy'; did you mean npy"),
        (["--origin", "x", "--layout", "npy", "--crops", "5"], "layout npy makes no use of --crops"),
        (["--origin", "x", "--layout", "npy", "--keys", "../x"], "level '../x' cannot be a file name"),
        (["--origin", "x", "--layout", "npy", "--keys", "fps"], "keys name fps: such arrays say when rows were"),
        (["--origin", "x", "--layout", "npy", "--level", "a b"], "level 'a b' cannot be a file name"),
        (["--origin", "x", "--layout", "npy", "--timing.fps", "25"], "give --timing.stride too"),
        (["--origin", "x", "--layout", "npy", "--root", "."], "is no list of paths, so --root says nothing"),
        (["--origin", "x", "--layout", "c3d"], "holds no file such as 000016.fc6-1 (it holds 30 x .npy)"),
        (["--origin", "x", "--layout", "hdf5"], "holds no .h5 or .hdf5 or .hdf file (it holds 30 x .npy)"),
        (["--origin", "x", "--layout", "npy", "--name", "../up"], "store name '../up' cannot be a file name"),
    ],
)
def test_wrong_usage_is_exit_code_2_and_leaves_nothing(run: Run, tree: Path, tmp_path: Path, arguments: list[str], words: str) -> None:
    code, _, err = run("store", "import", tree, *arguments, "--out", tmp_path / "f")
    assert code == 2
    assert words in err
    assert not (tmp_path / "f").exists()
    assert not list(tmp_path.glob("up*"))


def test_sigterm_publishes_what_is_finished_and_the_same_command_goes_on(
    run: Run, tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load, loaded = importer.load, []

    def slow(reader: object, item: object) -> object:
        loaded.append(item)
        if len(loaded) == 7:
            signal.raise_signal(signal.SIGTERM)
        return load(reader, item)  # type: ignore[arg-type]

    monkeypatch.setattr(importer, "load", slow)
    arguments = ("store", "import", tree, "--layout", "npy", "--origin", "x", "--out", tmp_path / "f")
    code, _, err = run(*arguments)
    assert code == 3
    assert "SIGTERM: publishing what is complete" in err
    assert "interrupted with 23 of 30 videos left" in err
    (path,) = (tmp_path / "f").iterdir()
    assert len(FeatureStore.open(path)) == 7
    code, out, _ = run(*arguments)
    assert (code, "23 done, 7 were there already, 0 failed" in out) == (0, True)


@pytest.mark.parametrize("layout", ["npy", "npz", "hdf5", "c3d"])
def test_export_and_back(run: Run, tree: Path, tmp_path: Path, layout: str) -> None:
    store = imported(run, tree, "--layout", "npy", "--origin", "first", "--timing.stride", 8, "--timing.fps", 25, "--out", tmp_path / "f")
    code, out, err = run("store", "export", store, tmp_path / "out", "--layout", layout)
    assert code == 0, err
    assert "30 done, 0 were there already, 0 failed, of 30" in out
    facts = json.loads((tmp_path / "out/actioncache.json").read_text())
    assert (facts["store"]["digest"], facts["store"]["spec"]["imported"]["origin"]) == (FeatureStore.open(store).digest, "first")
    assert "30 were there already" in run("store", "export", store, tmp_path / "out", "--layout", layout)[1]
    back = FeatureStore.open(imported(run, tmp_path / "out", "--out", tmp_path / "back"))
    first = FeatureStore.open(store)
    assert sorted(back.ids()) == sorted(first.ids())
    for video_id in first.ids():
        assert np.array_equal(back.get(video_id).values["features"], first.get(video_id).values["features"])
        assert np.array_equal(back.get(video_id).frames, first.get(video_id).frames)
    assert "which was imported: first" in back.spec["imported"]["origin"]


def test_export_of_a_list_for_code_that_wants_plain_files(run: Run, tree: Path, tmp_path: Path) -> None:
    videos = tmp_path / "videos.csv"
    store = imported(run, tree, "--layout", "npy", "--origin", "x", "--dtype", "float16", "--list", videos, "--out", tmp_path / "f")
    (tmp_path / "some.csv").write_text("id\nrun/v01.mp4\nrun/gone.mp4\n")
    arguments = ("store", "export", store, tmp_path / "out", "--layout", "npy", "--plain", "--strip-suffix", "--float32")
    code, out, _ = run(*arguments, "--list", tmp_path / "some.csv")
    assert code == 1
    assert "1 videos of the list are not in the store:\n  run/gone.mp4" in out
    assert sorted(path.name for path in (tmp_path / "out").rglob("*") if path.is_file()) == ["actioncache.json", "v01.npy"]
    found = np.load(tmp_path / "out/run/v01.npy")
    assert found.dtype == np.float32
    assert np.array_equal(found, np.load(tree / "run/v01.npy").astype("f2").astype("f4"))
    code, _, err = run("store", "export", store, tmp_path / "c3d", "--layout", "c3d")
    assert code == 2
    assert "blobs hold float32: --float32 converts" in err
    code, _, err = run("store", "export", store, tmp_path / "out", "--layout", "npy", "--level", "fc7")
    assert "has no level fc7; it has features" in err
    assert not (tmp_path / "c3d").exists()


def test_layouts_lists_what_there_is(run: Run) -> None:
    code, out, _ = run("store", "layouts")
    assert code == 0
    for words in ("npy\n", "tencrop\n", "c3d\n", "hdf5\n", "npz\n", "--timing.base", "--crop-files"):
        assert words in out
