"""Run folders, cross-validation and prediction, from a store and a list to score tables."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from store.errors import MissingFeaturesError, SpecMismatchError, StoreError, TrainingError
from store.files import PARTIAL_SUFFIX
from store.scores import ScoreTable
from store.videos import VideoList
from temporal.experiment import train_list
from temporal.predict import predict
from temporal.run_dir import CURVES, FOLDS, METRICS, PROJECTION, SCORES, SPEC, SUMMARY, VALIDATION, VIDEOS, WEIGHTS, Run
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

QUICK = RunSpec(
    SequenceSpec(steps=8),
    HeadSpec(name="gru", hidden=8, dropout=0.1),
    TrainSpec(epochs=3, learning_rate=0.01, validation=0.25, batch_size=8),
)
RUN_FILES = (SPEC, WEIGHTS, PROJECTION, VIDEOS, METRICS, CURVES, SCORES, VALIDATION)


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _without_test_labels(videos: VideoList, shift: int) -> VideoList:
    """The same list with the labels of its test videos moved on by ``shift`` classes."""
    classes = videos.classes
    moved = [
        replace(video, label=classes[(classes.index(video.label) + shift) % len(classes)]) if video.split == "test" else video
        for video in videos
    ]
    return VideoList(tuple(moved), classes)


def test_a_run_is_complete_and_says_how_it_was_made(order_store, order_videos, tmp_path):
    outcome = train_list([order_store], order_videos, QUICK, tmp_path / "runs" / "one")
    run = outcome.runs[0]
    assert sorted(path.name for path in run.path.iterdir()) == sorted(RUN_FILES)
    assert run.spec == QUICK
    assert run.classes == ("ab", "ba")
    assert run.features == [{"name": order_store.path.name, "digest": order_store.digest, "level": "last"}]
    assert run.result["videos"] == {"train": 12, "validation": 4, "test": 8}
    assert [record["epoch"] for record in run.history()] == [1, 2, 3]
    table = run.scores()
    assert table.ids == tuple(video.id for video in order_videos if video.split == "test")
    assert table.kind == "scores"
    assert run.result["top1"] == (table.values.argmax(1) == table.labels).mean()
    held_out = set(run.validation_scores().ids)
    assert {video.group for video in order_videos if video.id in held_out} == set(run.result["validation_groups"])
    assert [path for path in run.path.parent.iterdir() if PARTIAL_SUFFIX in path.name] == []


def test_test_labels_influence_nothing(order_store, order_videos, tmp_path):
    spec = replace(QUICK, sequence=replace(QUICK.sequence, znorm=True, projection="pca", width=2), train=replace(QUICK.train, refit=True))
    runs = [train_list([order_store], _without_test_labels(order_videos, shift), spec, tmp_path / str(shift)).runs[0] for shift in (0, 1)]
    for name in (WEIGHTS, PROJECTION, METRICS):
        assert (runs[0].path / name).read_bytes() == (runs[1].path / name).read_bytes()
    tables = [run.scores() for run in runs]
    assert np.array_equal(tables[0].values, tables[1].values)
    assert not np.array_equal(tables[0].labels, tables[1].labels)
    assert np.array_equal(runs[0].validation_scores().values, runs[1].validation_scores().values)


def test_test_videos_without_labels_are_scored_all_the_same(order_store, order_videos, tmp_path):
    bare = VideoList(tuple(replace(v, label=None) if v.split == "test" else v for v in order_videos), order_videos.classes)
    run = train_list([order_store], bare, QUICK, tmp_path / "bare").runs[0]
    known = train_list([order_store], order_videos, QUICK, tmp_path / "known").runs[0]
    assert run.scores().labels is None
    assert run.result["top1"] is None
    assert np.array_equal(run.scores().values, known.scores().values)


def test_the_same_run_is_not_trained_twice_and_another_does_not_replace_it(order_store, order_videos, tmp_path):
    path = tmp_path / "one"
    train_list([order_store], order_videos, QUICK, path)
    before = {file.name: file.stat().st_mtime_ns for file in path.iterdir()}
    train_list([order_store], order_videos, QUICK, path)
    assert {file.name: file.stat().st_mtime_ns for file in path.iterdir()} == before
    wider = replace(QUICK, head=replace(QUICK.head, hidden=9))
    with pytest.raises(SpecMismatchError, match=r"spec\.head\.hidden 8, now 9.*--force"):
        train_list([order_store], order_videos, wider, path)
    assert train_list([order_store], order_videos, wider, path, force=True).runs[0].spec == wider


def test_a_folder_that_is_no_run_is_left_alone(order_store, order_videos, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("years of work")
    with pytest.raises(StoreError, match="mine is no run"):
        train_list([order_store], order_videos, QUICK, tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").exists()


def test_force_replaces_runs_and_nothing_else(order_store, order_videos, tmp_path):
    mine = tmp_path / "mine"
    (mine / FOLDS).mkdir(parents=True)
    (mine / SPEC).write_text("{}")
    (mine / "thesis.txt").write_text("years of work")
    before = _files(tmp_path)
    for folder in (mine, order_store.path):
        for cross_validate in (False, True):
            with pytest.raises(
                StoreError, match=r"is not replaced, for it is no run or more than a run \(it holds (thesis\.txt|failures, sh)"
            ):
                train_list([order_store], order_videos, QUICK, folder, cross_validate, force=True, jobs=1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / WEIGHTS).write_text("another program's")
    with pytest.raises(StoreError, match=r"is not replaced, for it is no run: it has no spec\.json"):
        train_list([order_store], order_videos, QUICK, tmp_path / "model", force=True)
    assert {name: data for name, data in _files(tmp_path).items() if not name.startswith("model")} == before
    (tmp_path / "empty").mkdir()
    (tmp_path / "torn" / FOLDS).mkdir(parents=True)
    (tmp_path / "torn" / SPEC).write_text("{")
    for name in ("empty", "torn"):
        assert train_list([order_store], order_videos, QUICK, tmp_path / name, force=True).runs[0].spec == QUICK


def test_a_cross_validation_that_replaces_a_run_keeps_nothing_of_it(order_store, order_videos, tmp_path):
    train_list([order_store], order_videos, QUICK, tmp_path / "one")
    run = train_list([order_store], order_videos, QUICK, tmp_path / "one", cross_validate=True, force=True, jobs=1).runs[0]
    assert sorted(path.name for path in run.path.iterdir()) == sorted([SPEC, CURVES, SCORES, FOLDS])
    with pytest.raises(StoreError, match="no scores of a validation part"):
        run.validation_scores()


def test_a_seed_left_alone_trains_as_it_would_among_others(order_store, order_videos, tmp_path, monkeypatch):
    import torch

    import temporal.parallel as parallel

    threads = []
    original = parallel.train_part

    def noting(*arguments):
        threads.append(torch.get_num_threads())
        return original(*arguments)

    monkeypatch.setattr(parallel, "train_part", noting)
    before = torch.get_num_threads()
    torch.set_num_threads(3)
    try:
        for seeds in ([0], [0, 1]):
            train_list([order_store], order_videos, QUICK, tmp_path / "many", seeds=seeds, jobs=1)
        train_list([order_store], order_videos, QUICK, tmp_path / "one")
    finally:
        torch.set_num_threads(before)
    assert threads == [1, 1, 3]


def test_predict_repeats_the_test_scores(order_store, order_videos, tmp_path):
    spec = replace(QUICK, sequence=replace(QUICK.sequence, projection="pca", width=2))
    run = train_list([order_store], order_videos, spec, tmp_path / "one").runs[0]
    table = predict(Run.open(run.path), [order_store], order_videos.select("test"))
    assert table.ids == run.scores().ids
    np.testing.assert_allclose(table.values, run.scores().values, atol=1e-6)
    assert table.source["run_digest"] == run.digest


@pytest.mark.parametrize("file", [WEIGHTS, "projection.npz"])
@pytest.mark.parametrize("damage", ["missing", "cut"])
def test_a_half_deleted_or_damaged_run_is_said(order_store, order_videos, tmp_path, file, damage):
    spec = replace(QUICK, sequence=replace(QUICK.sequence, projection="pca", width=2))
    run = train_list([order_store], order_videos, spec, tmp_path / "one").runs[0]
    if damage == "missing":
        (run.path / file).unlink()
    else:
        (run.path / file).write_bytes((run.path / file).read_bytes()[:50])
    said = {"missing": f"one is incomplete: it has no {file}", "cut": f"one/{file} is not the file that the run wrote"}[damage]
    with pytest.raises(StoreError, match=rf"{said}.*; remove \S+one and run the command that trained it again"):
        predict(run, [order_store], order_videos)


def test_predict_refuses_features_of_another_spec(order_store, order_videos, make_store, tmp_path):
    run = train_list([order_store], order_videos, QUICK, tmp_path / "one").runs[0]
    other = make_store({"v00": np.zeros((8, 6), np.float32)}, "other")
    with pytest.raises(SpecMismatchError, match=f"{order_store.digest[:12]}.*{other.digest[:12]}"):
        predict(run, [other], order_videos.subset(["v00"]))
    with pytest.raises(SpecMismatchError, match=r"trained on 1 feature store.*not 2"):
        predict(run, [order_store, order_store], order_videos)


def test_videos_without_features_are_an_error_or_left_out_by_name(make_store, order_values, order_videos, tmp_path):
    del order_values["v03"], order_values["v23"]
    store = make_store(order_values, "holes")
    with pytest.raises(MissingFeaturesError, match=r"2 of 24 videos have no features.*v03, v23"):
        train_list([store], order_videos, QUICK, tmp_path / "one")
    outcome = train_list([store], order_videos, QUICK, tmp_path / "one", allow_missing=True)
    assert outcome.missing == ("v03", "v23")
    assert outcome.runs[0].result["missing"] == ["v03", "v23"]
    assert "v23" not in outcome.runs[0].scores().ids


def test_cross_validation_scores_every_video_once_and_does_not_depend_on_jobs(order_store, order_videos, tmp_path):
    alone = train_list([order_store], order_videos, QUICK, tmp_path / "a" / "cv", cross_validate=True, jobs=1).runs[0]
    together = train_list([order_store], order_videos, QUICK, tmp_path / "b" / "cv", cross_validate=True, jobs=2).runs[0]
    assert sorted(alone.scores().ids) == sorted(video.id for video in order_videos)
    assert np.array_equal(alone.scores().values, together.scores().values)
    assert len(alone.result["folds"]) == 6
    fold = Run.open(alone.path / FOLDS / "fold-02")
    assert set(fold.scores().ids) == {video.id for video in order_videos if video.group == "g2"}
    assert not set(fold.validation_scores().ids) & set(fold.scores().ids)
    with pytest.raises(StoreError, match="cross-validation and has no single head"):
        predict(alone, [order_store], order_videos)


def test_a_folds_test_labels_influence_nothing_in_it(order_store, order_videos, tmp_path):
    moved = VideoList(
        tuple(replace(v, label={"ab": "ba", "ba": "ab"}[v.label]) if v.group == "g2" else v for v in order_videos), order_videos.classes
    )
    folds = []
    for name, videos in (("true", order_videos), ("moved", moved)):
        train_list([order_store], videos, QUICK, tmp_path / name, cross_validate=True, jobs=1)
        folds.append(Run.open(tmp_path / name / FOLDS / "fold-02"))
    assert (folds[0].path / WEIGHTS).read_bytes() == (folds[1].path / WEIGHTS).read_bytes()
    assert (folds[0].path / METRICS).read_bytes() == (folds[1].path / METRICS).read_bytes()
    assert np.array_equal(folds[0].scores().values, folds[1].scores().values)


def test_an_interrupted_cross_validation_resumes_fold_by_fold(order_store, order_videos, tmp_path, monkeypatch):
    import temporal.parallel as parallel

    whole = train_list([order_store], order_videos, QUICK, tmp_path / "whole" / "cv", cross_validate=True, jobs=1).runs[0]
    trained = []
    original = parallel.train_part

    def die_in_the_third(task, *rest):
        trained.append(task.path.name)
        if len(trained) == 3:
            raise KeyboardInterrupt
        return original(task, *rest)

    monkeypatch.setattr(parallel, "train_part", die_in_the_third)
    path = tmp_path / "cut" / "cv"
    with pytest.raises(KeyboardInterrupt):
        train_list([order_store], order_videos, QUICK, path, cross_validate=True, jobs=1)
    other = replace(QUICK, head=replace(QUICK.head, hidden=9))
    with pytest.raises(SpecMismatchError, match=r"fold-00 was made from other settings .spec\.head\.hidden 8, now 9"):
        train_list([order_store], order_videos, other, path, cross_validate=True, jobs=1)
    resumed = train_list([order_store], order_videos, QUICK, path, cross_validate=True, jobs=1).runs[0]
    assert trained == [f"fold-{number:02d}" for number in (0, 1, 2, 2, 3, 4, 5)]
    assert _files(resumed.path) == _files(whole.path)


def test_several_seeds_are_runs_of_their_own(order_store, order_videos, tmp_path):
    outcome = train_list([order_store], order_videos, QUICK, tmp_path / "many", seeds=[0, 4], jobs=1)
    assert [run.spec.train.seed for run in outcome.runs] == [0, 4]
    assert [run.path.name for run in outcome.runs] == ["seed-0", "seed-4"]
    summary = json.loads((tmp_path / "many" / SUMMARY).read_text())
    assert summary["mean"] == pytest.approx(np.mean(outcome.accuracies()))
    assert not np.array_equal(outcome.runs[0].scores().values, outcome.runs[1].scores().values)
    with pytest.raises(StoreError, match="holds the runs of several seeds"):
        train_list([order_store], order_videos, QUICK, tmp_path / "many")


def test_mid_fusion_trains_from_two_stores(order_store, order_values, order_videos, make_store, tmp_path):
    flow = make_store(order_values, "flow")
    spec = replace(QUICK, sequence=replace(QUICK.sequence, mid="product"))
    run = train_list([order_store, flow], order_videos, spec, tmp_path / "mid").runs[0]
    assert [entry["name"] for entry in run.features] == [order_store.path.name, flow.path.name]
    with pytest.raises(SpecMismatchError, match="was trained on features"):
        predict(run, [flow, order_store], order_videos)


def test_val_videos_of_the_list_decide_when_to_stop(order_store, order_videos, tmp_path):
    videos = VideoList(tuple(replace(v, split="val") if v.group == "g1" else v for v in order_videos), order_videos.classes)
    run = train_list([order_store], videos, QUICK, tmp_path / "val").runs[0]
    assert set(run.validation_scores().ids) == {video.id for video in videos if video.split == "val"}
    assert run.result["videos"] == {"train": 12, "validation": 4, "test": 8}


def test_one_group_cannot_give_a_validation_part(order_store, order_videos, tmp_path):
    videos = VideoList(tuple(replace(v, group="g") for v in order_videos), order_videos.classes)
    with pytest.raises(TrainingError, match=r"of one group.*--train\.validation 0"):
        train_list([order_store], videos, QUICK, tmp_path / "one")
    fixed = replace(QUICK, train=replace(QUICK.train, validation=0.0))
    run = train_list([order_store], videos, fixed, tmp_path / "one").runs[0]
    assert run.result["epochs"] == 3
    with pytest.raises(StoreError, match="no scores of a validation part"):
        run.validation_scores()


def test_what_the_list_leaves_open_is_said(order_store, order_videos, tmp_path):
    bare = VideoList(tuple(replace(v, group="", split="" if v.group == "g0" else v.split) for v in order_videos), order_videos.classes)
    outcome = train_list([order_store], bare, QUICK, tmp_path / "bare")
    assert outcome.notes == (
        "4 videos of the list are in no split and were left out",
        "12 training videos have no group; each counted as its own when the validation part was cut",
    )
    assert train_list([order_store], order_videos, QUICK, tmp_path / "grouped").notes == ()


@pytest.mark.parametrize("file", ["scores.npz", "weights.safetensors", "projection.npz"])
def test_a_run_that_lost_a_file_does_not_pass_for_complete(order_store, order_videos, tmp_path, file):
    train_list([order_store], order_videos, QUICK, tmp_path / "run")
    (tmp_path / "run" / file).unlink()
    with pytest.raises(StoreError, match=rf"run is incomplete: it has no {file}; .* --force"):
        train_list([order_store], order_videos, QUICK, tmp_path / "run")


def test_videos_in_no_split_need_no_features(make_store, order_values, order_videos, tmp_path):
    unused = [replace(video, split="") if video.id in ("v00", "v01") else video for video in order_videos]
    store = make_store({id_: values for id_, values in order_values.items() if id_ not in ("v00", "v01")})
    outcome = train_list([store], VideoList(tuple(unused), order_videos.classes), QUICK, tmp_path / "run")
    assert outcome.notes[0] == "2 videos of the list are in no split and were left out"
    assert not set(outcome.runs[0].scores().ids) & {"v00", "v01"}


def test_score_files_hold_no_pickle(order_store, order_videos, tmp_path):
    run = train_list([order_store], order_videos, QUICK, tmp_path / "one").runs[0]
    with np.load(run.path / PROJECTION, allow_pickle=False) as file:
        assert file.files == []
    assert ScoreTable.load(run.path / SCORES).classes == run.classes


def test_validation_videos_of_the_list_are_never_lost_in_silence(order_store, order_videos, tmp_path):
    marked = VideoList(tuple(replace(v, split="val") if v.group == "g3" else v for v in order_videos), order_videos.classes)
    fixed = replace(QUICK, train=replace(QUICK.train, validation=0.0))
    outcome = train_list([order_store], marked, fixed, tmp_path / "fixed")
    assert any("4 validation videos of the list are not used" in note for note in outcome.notes)
    assert outcome.runs[0].result["videos"]["train"] == 12
    both = train_list([order_store], marked, replace(fixed, train=replace(fixed.train, refit=True)), tmp_path / "both")
    assert both.runs[0].result["videos"] == {"train": 16, "validation": 0, "test": 8}
    assert both.notes == ()
    data = json.loads((both.path / SPEC).read_text())
    assert data["identity"].pop("trained_on") == "training and validation videos"  # a run from before it trained on them is another one
    del data["digests"]
    (both.path / SPEC).write_text(json.dumps(data))
    with pytest.raises(SpecMismatchError, match="trained_on"):
        train_list([order_store], marked, replace(fixed, train=replace(fixed.train, refit=True)), tmp_path / "both")
    whole = train_list([order_store], order_videos, fixed, tmp_path / "whole")
    assert np.array_equal(both.runs[0].scores().values, whole.runs[0].scores().values)
    with pytest.raises(TrainingError, match=r"train\.validation is 0 and the list has no validation videos"):
        train_list([order_store], order_videos, replace(fixed, train=replace(fixed.train, refit=True)), tmp_path / "none")
