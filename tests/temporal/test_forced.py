"""``--force`` loses nothing before the new results are complete, and goes on where it was interrupted."""

from dataclasses import replace
from pathlib import Path

import pytest

from store.errors import Interrupted, TrainingError
from temporal.experiment import train_list
from temporal.forced import FORCED_SUFFIX
from temporal.spec import HeadSpec, RunSpec, SequenceSpec, TrainSpec

SPEC = RunSpec(SequenceSpec(steps=8), HeadSpec(name="gru", hidden=4), TrainSpec(epochs=2, validation=0.25, batch_size=8))
WIDER = replace(SPEC, head=replace(SPEC.head, hidden=5))
KINDS = pytest.mark.parametrize("kind", [{"cross_validate": True}, {"seeds": [0, 1]}], ids=["folds", "seeds"])


def _files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """Content and time of every file."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns) for path in found}


@KINDS
def test_what_cannot_be_trained_costs_nothing(order_store, order_videos, tmp_path, kind) -> None:
    train_list([order_store], order_videos, SPEC, tmp_path / "out/one", jobs=1, **kind)
    before = _files(tmp_path / "out/one")
    with pytest.raises(TrainingError, match="device 'cuda:77' cannot be used here"):
        train_list([order_store], order_videos, WIDER, tmp_path / "out/one", force=True, device="cuda:77", **kind)
    wide = replace(SPEC, sequence=replace(SPEC.sequence, projection="pca", width=4000))
    with pytest.raises(TrainingError, match="PCA to width 4000"):
        train_list([order_store], order_videos, wide, tmp_path / "out/one", force=True, jobs=1, **kind)
    assert _files(tmp_path / "out/one") == before


@KINDS
def test_an_interrupted_forced_command_keeps_what_it_has_finished(order_store, order_videos, tmp_path, kind) -> None:
    """The old results stay until the new ones are complete; the same command trains each head once, the next one all again."""
    one = tmp_path / "out/one"
    train_list([order_store], order_videos, SPEC, one, jobs=1, **kind)
    old = _files(one)
    commands, finished = 0, {}
    while True:
        asked = iter([False] * 5 + [True] * 100)
        commands += 1
        try:
            done = train_list([order_store], order_videos, WIDER, one, force=True, jobs=1, stopped=lambda asked=asked: next(asked), **kind)
            break
        except Interrupted:
            assert _files(one) == old
            aside = next((tmp_path / "out").glob(f"*{FORCED_SUFFIX}"))
            specs = {str(path.relative_to(aside / "one")): path.stat().st_mtime_ns for path in aside.rglob("spec.json")}
            assert finished.items() <= specs.items()
            finished = specs
    assert commands >= 2
    assert finished
    assert all(run.spec.head.hidden == 5 for run in done.runs)
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
    times = {name: time for name, (_, time) in _files(one).items()}
    assert finished.items() <= times.items()
    fresh = train_list([order_store], order_videos, WIDER, tmp_path / "fresh/one", jobs=1, **kind)
    assert {name: data for name, (data, _) in _files(one).items()} == {name: data for name, (data, _) in _files(fresh.path).items()}
    train_list([order_store], order_videos, WIDER, one, force=True, jobs=1, **kind)
    again = {name: time for name, (_, time) in _files(one).items()}
    assert all(again[name] > time for name, time in times.items())


@KINDS
def test_a_command_without_force_leaves_what_an_interrupted_forced_one_has_finished(order_store, order_videos, tmp_path, kind) -> None:
    one = tmp_path / "out/one"
    train_list([order_store], order_videos, SPEC, one, jobs=1, **kind)
    asked = iter([False] * 5 + [True] * 100)
    with pytest.raises(Interrupted):
        train_list([order_store], order_videos, WIDER, one, force=True, jobs=1, stopped=lambda: next(asked), **kind)
    finished = _files(next((tmp_path / "out").glob(f"*{FORCED_SUFFIX}")))
    assert any(name.endswith("spec.json") for name in finished)
    train_list([order_store], order_videos, SPEC, one, jobs=1, **kind)
    assert _files(next((tmp_path / "out").glob(f"*{FORCED_SUFFIX}"))) == finished


@KINDS
def test_killed_between_two_renames_it_has_lost_nothing(order_store, order_videos, tmp_path, kind, monkeypatch) -> None:
    """With the old results moved away and the new ones not yet in their place: the old command finds the old ones, the new one goes on."""
    one, rename = tmp_path / "out/one", Path.rename
    train_list([order_store], order_videos, SPEC, one, jobs=1, **kind)
    old = _files(one)

    def killed(path: Path, target: Path) -> Path:
        if FORCED_SUFFIX in str(path) and target.is_relative_to(one):
            raise KeyboardInterrupt
        return rename(path, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "rename", killed)
        with pytest.raises(KeyboardInterrupt):
            train_list([order_store], order_videos, WIDER, one, force=True, jobs=1, **kind)
    assert len(_files(one)) < len(old)
    new = {time for _, time in _files(tmp_path / "out").values()}
    train_list([order_store], order_videos, SPEC, one, jobs=1, **kind)
    found = _files(one)
    assert {name for name in old if found[name] != old[name]} <= {"summary.json"}  # which every command writes
    done = train_list([order_store], order_videos, WIDER, one, force=True, jobs=1, **kind)
    assert all(run.spec.head.hidden == 5 for run in done.runs)
    assert {time for name, (_, time) in _files(one).items() if name.endswith("spec.json")} <= new  # nothing was trained again
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["one"]
