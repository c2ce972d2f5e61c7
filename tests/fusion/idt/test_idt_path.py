"""From trajectory files to decision values by the commands: what is learned from what, resuming, failures, exit codes."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import cli
from fusion.idt import encode as encode_module
from fusion.idt import svm
from fusion.idt.codebook import Codebook
from fusion.idt.spec import SvmSpec
from fusion.idt.svm import Svm
from fusion.idt.train import train_list
from store.errors import Interrupted, PipelineError
from store.features import FeatureStore
from store.scores import ScoreTable
from store.trajectory_format import DESCRIPTORS, IMPROVED
from store.videos import Video, VideoList, write_csv

SMALL = ["--components", "4", "--sample", "600", "--iterations", "20", "--jobs", "1"]
CLASSES = ("wave", "run", "jump")
GROUPS = ("1", "2", "3")


def trajectories(label: int, seed: int, count: int = 120) -> np.ndarray:
    """Rows whose descriptors have a mean of their class's."""
    rows = np.random.default_rng(seed).random((count, IMPROVED.count)).astype(np.float32)
    means = np.random.default_rng(1000 + label).random(IMPROVED.count).astype(np.float32)
    rows[:, IMPROVED.header :] = 0.5 * rows[:, IMPROVED.header :] + means[IMPROVED.header :]
    rows[:, 0] = np.sort(np.random.default_rng(seed).integers(15, 80, count))
    return rows


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """Two videos of each class in each of three groups: ``ut.csv`` and ``tracks/``."""
    videos = [
        Video(
            f"{label}/{group}_{number}.avi", tmp_path / f"{label}/{group}_{number}.avi", label, "test" if group == "3" else "train", group
        )
        for label in CLASSES
        for group in GROUPS
        for number in (0, 1)
    ]
    write_csv(VideoList(tuple(videos), CLASSES), tmp_path / "list.csv")
    for seed, video in enumerate(videos):
        file = tmp_path / "tracks" / f"{video.id}.npy"
        file.parent.mkdir(parents=True, exist_ok=True)
        np.save(file, trajectories(CLASSES.index(str(video.label)), seed))
    return tmp_path


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["idt", *map(str, words)])


def encode(folder: Path, *more: object, name: str = "e") -> Result:
    tracks = ["--trajectories", folder / "tracks", "--origin", "synthetic", "--out", folder / "idt", "--name", name]
    return run("encode", folder / "list.csv", *tracks, *SMALL, *more)


def train(folder: Path, *more: object, name: str = "e", to: str = "run") -> Result:
    return run("train", folder / "list.csv", "--encoding", folder / "idt" / name, "--out", folder / "runs", "--name", to, *more)


def codebook(folder: Path, name: str = "e") -> Codebook:
    return Codebook.load(next((folder / "idt" / name / "codebooks").iterdir()))


def test_from_files_to_decision_values(made: Path) -> None:
    result = encode(made, "--json")
    assert result.exit_code == 0, result.output
    summary = json.loads(result.stdout.splitlines()[-1])
    assert (summary["done"], summary["skipped"], summary["failed"], summary["trajectories"]) == (18, 0, {}, 18 * 120)
    store = FeatureStore.open(Path(summary["stores"][0]))
    assert store.levels == tuple(sorted(DESCRIPTORS))
    features = store.get("wave/1_0.avi")
    for name, width in DESCRIPTORS.items():
        assert features.values[name].shape == (1, 2 * 4 * (width // 2))
        np.testing.assert_allclose(np.linalg.norm(features.values[name]), 1, rtol=1e-5)
    assert train(made).exit_code == 0
    table = ScoreTable.load(made / "runs" / "run" / "scores.npz")
    assert table.kind == "decision_values"
    assert len(table) == 6
    assert table.labels is not None
    assert (table.values.argmax(1) == table.labels).all()
    assert run("score", made / "list.csv", "--run", made / "runs/run", "--features", store.path, "-o", made / "all.npz").exit_code == 0
    every = ScoreTable.load(made / "all.npz")
    np.testing.assert_allclose(every.rows(table.ids).values, table.values, rtol=1e-6)


def test_decision_values_are_those_of_an_svm_on_the_vectors_side_by_side(made: Path) -> None:
    from sklearn.svm import SVC

    store = FeatureStore.open(Path(json.loads(encode(made, "--json").stdout.splitlines()[-1])["stores"][0]))
    assert train(made, "--c", "3", "--descriptors", "hog,mbhx").exit_code == 0
    table = ScoreTable.load(made / "runs/run/scores.npz")
    svm = Svm.load(made / "runs/run/svm.npz")

    def vectors(ids: tuple[str, ...]) -> np.ndarray:
        return np.concatenate([store.read_rows(list(ids), level).values for level in ("hog", "mbhx")], 1).astype(np.float64)

    labels = np.array([CLASSES.index(name.split("/")[0]) for name in svm.train_ids])
    for position in range(3):
        machine = SVC(kernel="linear", C=3).fit(vectors(svm.train_ids), labels == position)
        np.testing.assert_allclose(table.values[:, position], machine.decision_function(vectors(table.ids)), atol=2e-3)


def test_nothing_of_a_test_video_enters_the_codebook_or_the_svm(made: Path) -> None:
    encode(made)
    train(made)
    for file in (made / "tracks").rglob("3_*.npy"):
        np.save(file, np.random.default_rng(7).random((90, IMPROVED.count)).astype(np.float32))
    text = (made / "list.csv").read_text().replace("3_0.avi,wave,test", "3_0.avi,jump,test")
    assert text != (made / "list.csv").read_text()
    (made / "list.csv").write_text(text)
    encode(made, name="other")
    train(made, name="other", to="other")
    assert codebook(made).digest() == codebook(made, "other").digest()
    assert not any("/3_" in name for name in codebook(made).train_ids)
    first, second = (Svm.load(made / "runs" / name / "svm.npz") for name in ("run", "other"))
    for level in DESCRIPTORS:
        np.testing.assert_array_equal(first.weights[level], second.weights[level])


def test_leave_one_group_out_scores_each_video_by_machines_that_never_saw_its_group(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert encode(made, "--cross-validate").exit_code == 0
    assert train(made).exit_code == 0
    table = ScoreTable.load(made / "runs/run/scores.npz")
    assert len(table) == 18
    assert table.labels is not None
    assert (table.values.argmax(1) == table.labels).mean() == 1
    for number, group in enumerate(GROUPS):
        machines = Svm.load(made / f"runs/run/folds/fold-{number:02d}/svm.npz")
        assert len(machines.train_ids) == 12
        assert not any(f"/{group}_" in name for name in machines.train_ids)
    scored = ("score", made / "list.csv", "--features", made / "idt", "-o", made / "x.npz", "--run")
    assert "whose SVMs are those of its 3 folds; give one of them" in str(run(*scored, made / "runs/run").exception)
    spec = made / "runs/run/spec.json"
    before = spec.read_bytes()
    with monkeypatch.context() as patch:  # killed after the scores were joined anew: no spec.json speaks of others
        patch.setattr("fusion.idt.train.digests_of", lambda *_: 1 / 0)
        assert isinstance(train(made).exception, ZeroDivisionError)
    assert not spec.exists()
    assert train(made).exit_code == 0
    assert spec.read_bytes() == before


def test_what_a_killed_run_left_of_a_file_is_no_obstacle(made: Path) -> None:
    encode(made)
    (made / "runs/run").mkdir(parents=True)
    (made / "runs/run/.svm.npz.0123abcd.partial").write_bytes(b"half")
    assert train(made).exit_code == 0
    (made / "runs/other").mkdir()
    (made / "runs/other/notes.txt").write_text("mine")
    assert "holds other things" in str(train(made, to="other").exception)


def test_products_of_all_pairs_in_batches(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode(made)
    store = FeatureStore.open(next((made / "idt/e").glob("split-*")))
    ids, levels = sorted(store.ids()), ("hog", "mbhx")
    vectors = np.concatenate([store.read_rows(ids, level, dtype="float32").values for level in levels], 1).astype(np.float64)
    for batch in (5, 256):
        monkeypatch.setattr(svm, "BATCH", batch)
        products = svm.gram(store, ids, levels)
        np.testing.assert_allclose(products, vectors @ vectors.T, atol=1e-6)
        np.testing.assert_array_equal(products, products.T)


def test_a_codebook_that_saw_a_test_video_is_refused(made: Path) -> None:
    encode(made)
    text = (made / "list.csv").read_text()
    (made / "list.csv").write_text(text.replace("1_0.avi,wave,train", "1_0.avi,wave,test"))
    result = train(made)
    assert result.exit_code != 0
    assert "the codebook was fitted to 1 videos that this list validates or tests on (wave/1_0.avi)" in str(result.exception)
    assert isinstance(result.exception, PipelineError)


def test_encoding_goes_on_where_it_was_interrupted(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    videos = json.loads(encode(made, "--json", name="whole").stdout.splitlines()[-1])
    real, seen = encode_module.encode_video, []

    def counted(video_id: str, *rest: object) -> object:
        seen.append(video_id)
        return real(video_id, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(encode_module, "encode_video", counted)
    asked = iter([False] * 30 + [True] * 100)
    from fusion.idt.spec import FisherSpec
    from store.videos import read_list

    spec = FisherSpec(components=4, sample=600, iterations=20)
    arguments = (read_list(made / "list.csv"), made / "tracks", made / "idt", "e", spec, False, "synthetic", 1, False)
    with pytest.raises(Interrupted, match="run the command again"):
        encode_module.encode_list(*arguments, lambda: next(asked))
    before = len(seen)
    assert 0 < before < 18
    summary = encode_module.encode_list(*arguments)
    assert (summary.done, summary.skipped, len(seen)) == (18 - before, before, 18)
    whole, parts = FeatureStore.open(Path(videos["stores"][0])), FeatureStore.open(summary.stores[0])
    assert all(whole.digests(name) == parts.digests(name) for name in whole.ids())


def test_files_that_cannot_be_read_are_recorded_and_the_rest_goes_on(made: Path) -> None:
    (made / "tracks/wave/3_0.avi.npy").write_bytes(b"broken")
    (made / "tracks/run/3_0.avi.npy").unlink()
    np.save(made / "tracks/run/3_1.avi.npy", np.zeros((0, 436), np.float32))
    result = encode(made, "--json")
    summary = json.loads(result.stdout.splitlines()[-1])
    assert result.exit_code == 1
    assert (summary["done"], sorted(summary["failed"]), summary["empty"]) == (16, ["run/3_0.avi", "wave/3_0.avi"], ["run/3_1.avi"])
    assert "3_0.avi.npy" in summary["failed"]["wave/3_0.avi"][1]
    again = json.loads(encode(made, "--json").stdout.splitlines()[-1])
    assert (again["done"], again["skipped"], sorted(again["failed"])) == (0, 16, ["run/3_0.avi", "wave/3_0.avi"])
    assert "2 of the videos have no Fisher vectors" in str(train(made).exception)
    assert train(made, "--allow-missing").exit_code == 0
    assert len(ScoreTable.load(made / "runs/run/scores.npz")) == 4
    np.save(made / "tracks/wave/3_0.avi.npy", trajectories(0, 50))
    np.save(made / "tracks/run/3_0.avi.npy", trajectories(1, 51))
    healed = encode(made)
    assert healed.exit_code == 0
    assert "2 done, 16 were there already, 0 failed" in healed.output


def test_two_processes_give_the_same_as_one(made: Path) -> None:
    one = json.loads(encode(made, "--json").stdout.splitlines()[-1])["stores"][0]
    two = json.loads(encode(made, "--json", "--jobs", "2", name="two").stdout.splitlines()[-1])["stores"][0]
    first, second = FeatureStore.open(Path(one)), FeatureStore.open(Path(two))
    assert first.digest == second.digest
    assert all(first.digests(name) == second.digests(name) for name in first.ids())


def test_a_run_is_kept_and_another_one_is_not_overwritten(made: Path) -> None:
    encode(made)
    train(made)
    before = (made / "runs/run/svm.npz").stat().st_mtime_ns
    assert train(made).exit_code == 0
    assert (made / "runs/run/svm.npz").stat().st_mtime_ns == before
    assert "was trained with other settings, videos or features (spec differ)" in str(train(made, "--c", "1").exception)


def test_svms_of_another_run_are_not_taken_for_its_own(made: Path) -> None:
    encode(made)
    train(made)
    train(made, "--c", "0.01", to="other")
    (made / "runs/other/svm.npz").replace(made / "runs/run/svm.npz")
    scored = run("score", made / "list.csv", "--run", made / "runs/run", "--features", made / "idt", "-o", made / "x.npz")
    for failed in (train(made), scored):
        assert "run/svm.npz is not the file that the run wrote" in str(failed.exception)


def test_wrong_use_is_told_in_words(made: Path) -> None:
    assert "holds features of another codebook" in str(_other_store(made).exception)
    assert "say what made these files" in str(
        run("encode", made / "list.csv", "--trajectories", made / "tracks", "--out", made / "x").exception
    )
    assert "are none of trajectory, hog" in str(encode(made, "--descriptors", "hog,sift").exception)
    assert "has no encoding.json" in str(train(made, "--encoding", made).exception)
    assert "use fewer --components" in str(encode(made, "--components", "500", "--sample", "501", name="many").exception)
    with pytest.raises(PipelineError):
        train_list(VideoList((), ()), made, made, "../out", SvmSpec())


def _other_store(made: Path) -> Result:
    encode(made)
    train(made)
    store = json.loads(encode(made, "--seed", "1", "--json", name="seed").stdout.splitlines()[-1])["stores"][0]
    return run("score", made / "list.csv", "--run", made / "runs/run", "--features", store, "-o", made / "x.npz")
