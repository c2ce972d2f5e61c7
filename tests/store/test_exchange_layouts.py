"""What every layout must keep, over the registry: a new layout is one new file and gets these tests."""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import FeatureError, Interrupted, PipelineError, SpecError, StoreError
from store.exchange import LAYOUTS
from store.exchange.exporter import ExportOptions, ExportSummary, export_features
from store.exchange.importer import ImportOptions, ImportSummary, import_features
from store.exchange.layout import Source
from store.exchange.sidecar import FILE, read_sidecar
from store.exchange.spec import ImportSpec
from store.features import FeatureStore
from store.layout import Features
from store.options import resolve

IDS = ("a", "class one/v_1.avi", "class one/v_2.avi", "ü/日本語", "b/c/d/e")
KINDS: dict[str, dict[str, tuple[str, tuple[int, ...]]]] = {
    "one": {"high": ("float16", (8,))},
    "two": {"low.1": ("float32", (4,)), "High": ("float32", (6,))},
    "crops": {"fc": ("float32", (10, 5))},
    "maps": {"map": ("float32", (3, 2, 2))},
    "numbers": {"score": ("float32", ())},
    "mixed": {"score": ("float16", ()), "vector": ("float32", (3,))},
}
PAIRS = [(layout, kind) for layout in LAYOUTS for kind in KINDS]


def make_store(root: Path, kind: str, ids: tuple[str, ...] = IDS, seed: int = 0) -> FeatureStore:
    store = FeatureStore.create(root, "made", {"kind": kind, "seed": seed})
    rng = np.random.default_rng(seed)
    with store.writer() as writer:
        for video_id in ids:
            rows = int(rng.integers(1, 6))
            first = np.sort(rng.choice(1000, rows, replace=False)).astype(np.int64)
            frames = np.stack([first, first + 16], 1)
            values = {name: rng.standard_normal((rows, *shape)).astype(dtype) for name, (dtype, shape) in KINDS[kind].items()}
            writer.add(video_id, Features(values, frames, frames / 24.97 + 0.1))
    return store


def export(store: FeatureStore, out: Path, layout: str, **options: Any) -> ExportSummary | None:
    """The summary; None for a layout that says it cannot hold such levels."""
    try:
        return export_features(store, out, ExportOptions(layout, **options))
    except SpecError:
        assert not out.exists(), "what is refused must leave nothing behind"
        return None


def imported(out: Path, root: Path, **settings: Any) -> tuple[FeatureStore, ImportSummary]:
    """What an export is when it is read back by the settings beside it."""
    place, known = read_sidecar(out)
    path, summary = import_features(Source(place), resolve(ImportSpec, known, settings), ImportOptions(root))
    return FeatureStore.open(path), summary


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing here cuts the power."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(params=LAYOUTS.names())
def layout(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def fitting(layout: str, tmp_path: Path) -> Iterator[tuple[FeatureStore, Path]]:
    """A store that the layout can hold, and its export."""
    for kind in KINDS:
        store = make_store(tmp_path / kind, kind)
        if export(store, tmp_path / "out", layout) is not None:
            yield store, tmp_path / "out"
            return
    pytest.fail(f"layout {layout} holds none of the kinds of store here")


@pytest.mark.parametrize(("layout", "kind"), PAIRS)
def test_there_and_back_again_changes_no_bit(layout: str, kind: str, tmp_path: Path) -> None:
    store = make_store(tmp_path, kind)
    summary = export(store, tmp_path / "out", layout) or export(store, tmp_path / "out", layout, float32=True)
    if summary is None:
        return  # the layout says that it cannot hold such levels, and has written nothing
    assert (summary.done, summary.there, summary.failed, summary.missing) == (len(IDS), 0, {}, [])
    again, back = imported(tmp_path / "out", tmp_path / "again")
    assert (back.done, back.failed, back.rounded) == (len(IDS), {}, 0)
    assert sorted(again.ids()) == sorted(IDS)
    assert again.layout == store.layout
    timing = again.spec["imported"]["timing"]
    for video_id in IDS:
        first, second = store.get(video_id), again.get(video_id)
        assert all(first.values[name].tobytes() == second.values[name].tobytes() for name in first.values)
        if timing["frames"] == "files":
            assert np.array_equal(first.frames, second.frames)
        if timing["times"] == "files":
            assert np.array_equal(first.times, second.times)
    assert store.digest in again.spec["imported"]["origin"]


@pytest.mark.parametrize("layout", ["npy", "npz", "hdf5"])
def test_layouts_that_can_carry_frames_and_times_do(layout: str, tmp_path: Path) -> None:
    export(make_store(tmp_path, "two"), tmp_path / "out", layout)
    again, _ = imported(tmp_path / "out", tmp_path / "again")
    assert (again.spec["imported"]["timing"]["frames"], again.spec["imported"]["timing"]["times"]) == ("files", "files")


@pytest.mark.parametrize("layout", ["npy", "npz", "hdf5"])
def test_plain_files_hold_one_level_and_nothing_else(layout: str, tmp_path: Path) -> None:
    store = make_store(tmp_path, "two")
    with pytest.raises(SpecError, match=r"plain files hold one level; choose one of High, low.1 with --level"):
        export_features(store, tmp_path / "out", ExportOptions(layout, plain=True))
    export_features(store, tmp_path / "out", ExportOptions(layout, levels=["High"], plain=True))
    again, back = imported(tmp_path / "out", tmp_path / "again")
    assert (again.levels, back.done) == (("High",), len(IDS))
    assert again.spec["imported"]["timing"]["frames"] == "rows"
    assert all(np.array_equal(again.get(one).values["High"], store.get(one).values["High"]) for one in IDS)


def test_a_second_export_finds_everything_there(fitting: tuple[FeatureStore, Path], layout: str) -> None:
    store, out = fitting
    before = contents(out)
    summary = export_features(store, out, ExportOptions(layout))
    assert (summary.done, summary.there, summary.failed) == (0, len(IDS), {})
    assert contents(out) == before
    assert FILE in before


def test_other_files_are_never_replaced_unasked(fitting: tuple[FeatureStore, Path], layout: str, tmp_path: Path) -> None:
    store, out = fitting
    other = make_store(tmp_path / "other", store.spec["kind"], seed=1)
    (out / FILE).unlink()
    before = contents(out)
    try:
        summary = export_features(other, out, ExportOptions(layout))
    except StoreError as error:
        reasons = [str(error)]
    else:
        reasons = list(summary.failed.values())
        assert len(reasons) == len(IDS)
    assert all("stays as it is" in reason for reason in reasons)
    assert {path: data for path, data in contents(out).items() if path != FILE} == before
    summary = export_features(other, out, ExportOptions(layout, overwrite=True))
    assert summary.done == len(IDS)
    again, _ = imported(out, tmp_path / "again")
    level = other.levels[0]
    assert all(np.array_equal(again.get(one).values[level], other.get(one).values[level]) for one in IDS)


def test_an_export_of_another_store_is_not_mixed_in(fitting: tuple[FeatureStore, Path], layout: str, tmp_path: Path) -> None:
    store, out = fitting
    other = make_store(tmp_path / "other", store.spec["kind"], ("x",), seed=1)
    before = contents(out)
    with pytest.raises(StoreError, match=r"actioncache.json is there and tells of another export .* so nothing was written"):
        export_features(other, out, ExportOptions(layout))
    assert contents(out) == before


@pytest.mark.parametrize("bad", ["../../x", "/etc/x", "a/../../x", ".", "a//b"])
def test_ids_never_become_paths_unchecked(layout: str, bad: str, tmp_path: Path) -> None:
    out = tmp_path / "deep" / "out"
    refused = 0
    for kind in KINDS:
        with pytest.raises((StoreError, SpecError)) as caught:
            export_features(make_store(tmp_path / kind, kind, ("fine", bad)), out, ExportOptions(layout))
        refused += "cannot be names of files, so nothing was written" in str(caught.value)
        assert not (tmp_path / "deep").exists()
    assert refused


def test_a_second_import_finds_everything_there_and_tells_what_has_changed(
    fitting: tuple[FeatureStore, Path], layout: str, tmp_path: Path
) -> None:
    store, out = fitting
    again, _ = imported(out, tmp_path / "again")
    _, second = imported(out, tmp_path / "again")
    assert (second.done, second.there, second.failed) == (0, len(IDS), {})
    other = make_store(tmp_path / "other", store.spec["kind"], seed=1)
    known = read_sidecar(out)[1]
    export_features(other, tmp_path / "changed", ExportOptions(layout))
    before = {one: again.digests(one) for one in IDS}
    _, third = imported(tmp_path / "changed", tmp_path / "again", **{"origin": known["origin"]})
    again.refresh()
    assert (third.done, third.there) == (0, 0)
    assert all("with other values or times, and stays as it is there" in reason for reason in third.failed.values())
    assert {one: again.digests(one) for one in IDS} == before


def test_an_interrupted_import_keeps_what_is_finished_and_goes_on(fitting: tuple[FeatureStore, Path], tmp_path: Path) -> None:
    _, out = fitting
    place, known = read_sidecar(out)
    spec = resolve(ImportSpec, known)
    asked = itertools.count()
    with pytest.raises(Interrupted, match=rf"interrupted with {len(IDS) - 2} of {len(IDS)} videos left"):
        import_features(Source(place), spec, ImportOptions(tmp_path / "again"), lambda: next(asked) >= 2)
    (path,) = (tmp_path / "again").iterdir()
    assert len(FeatureStore.open(path)) == 2
    _, summary = import_features(Source(place), spec, ImportOptions(tmp_path / "again"))
    assert (summary.done, summary.there) == (len(IDS) - 2, 2)


def test_damage_is_a_failure_or_an_error_never_a_wrong_value(fitting: tuple[FeatureStore, Path], tmp_path: Path) -> None:
    store, out = fitting
    whole = contents(out)
    victim = max((path for path in whole if path != FILE and not path.endswith(".txt")), key=lambda path: len(whole[path]))
    number = itertools.count()
    for length in (0, 1, 10, len(whole[victim]) // 2, len(whole[victim]) - 1):
        (out / victim).write_bytes(whole[victim][:length])
        root = tmp_path / f"damaged{next(number)}"
        try:
            found, summary = imported(out, root)
        except PipelineError as error:
            told = str(error)
        else:
            told = ""
        if told:
            assert str(out) in told
            continue
        assert summary.failed, f"cut to {length} bytes and nothing said"
        assert summary.done + len(summary.failed) == len(IDS)
        assert set(found.failures()) == set(summary.failed)
        for one in found.ids():
            assert all(np.array_equal(array, store.get(one).values[name]) for name, array in found.get(one).values.items())


def test_an_empty_folder_and_one_that_is_not_there_are_errors(layout: str, tmp_path: Path) -> None:
    spec = ImportSpec(layout=layout, origin="x")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").mkdir()
    (tmp_path / "text" / "notes.txt").write_text("no features")
    for name, words in (("empty", "it holds nothing"), ("text", "it holds 1 x .txt"), ("gone", "there is no")):
        with pytest.raises(StoreError, match=words):
            import_features(Source(tmp_path / name), spec, ImportOptions(tmp_path / "f"))
    assert not (tmp_path / "f").exists()


def test_settings_that_a_layout_has_no_use_for_are_refused(layout: str, tmp_path: Path) -> None:
    others = {"keys": ("a",), "level": "x", "crops": 5, "crop_files": "separate", "rows_axis": 1, "squeeze": True}
    for name, value in others.items():
        if name not in LAYOUTS.get(layout).settings:
            with pytest.raises(SpecError, match=rf"layout {layout} makes no use of --{name.replace('_', '-')}"):
                import_features(Source(tmp_path), ImportSpec(layout=layout, origin="x", **{name: value}), ImportOptions(tmp_path))
    assert LAYOUTS.get(layout).settings <= {field.name for field in dataclasses.fields(ImportSpec)} | {"timing.base"}


def test_a_damaged_store_is_not_exported_as_if_it_were_whole(fitting: tuple[FeatureStore, Path], layout: str, tmp_path: Path) -> None:
    store, _ = fitting
    (shard,) = (store.path / "shards").glob("*.h5")
    data = bytearray(shard.read_bytes())
    at = data.find(store.get(IDS[0]).values[store.levels[0]].tobytes())
    assert at > 0
    data[at] ^= 1
    shard.write_bytes(data)
    summary = export_features(FeatureStore.open(store.path), tmp_path / "new", ExportOptions(layout))
    assert list(summary.failed) == [IDS[0]]
    assert "the bytes are not the ones that were written" in summary.failed[IDS[0]]
    assert summary.done == len(IDS) - 1


def test_a_list_decides_what_is_exported_and_what_is_missing(fitting: tuple[FeatureStore, Path], layout: str, tmp_path: Path) -> None:
    store, _ = fitting
    summary = export_features(store, tmp_path / "some", ExportOptions(layout, ids=[IDS[2], "gone", IDS[0]]))
    assert (summary.done, summary.missing) == (2, ["gone"])
    found, _ = imported(tmp_path / "some", tmp_path / "f")
    assert set(found.ids()) == {IDS[0], IDS[2]}
    with pytest.raises(StoreError, match="has features of none of the 1 videos asked for"):
        export_features(store, tmp_path / "none", ExportOptions(layout, ids=["gone"]))
    assert not (tmp_path / "none").exists()


def test_the_origin_is_required() -> None:
    with pytest.raises(SpecError, match="say with --origin where the features come from"):
        import_features(Source(Path()), ImportSpec(layout="npy"), ImportOptions(Path()))
    with pytest.raises(SpecError, match="say with --layout how the source is laid out: c3d, hdf5, npy"):
        import_features(Source(Path()), ImportSpec(origin="x"), ImportOptions(Path()))


def test_a_sidecar_that_cannot_be_understood_is_an_error(tmp_path: Path) -> None:
    for text in ("{", "[]", '{"format": 2}', '{"format": 1, "file": "../x", "import": {}}', '{"format": 1, "file": "", "import": 3}'):
        (tmp_path / FILE).write_text(text)
        with pytest.raises(StoreError, match=r"actioncache.json cannot be understood .* remove it to import by flags alone"):
            read_sidecar(tmp_path)


@pytest.mark.parametrize("names", [("rgb", "fast_rgb"), ("key_frames", "rgb")])
def test_npy_writes_no_names_that_cannot_be_told_apart(names: tuple[str, str], tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "made", {"names": names})
    with store.writer() as writer:
        frames = np.array([[0, 1]])
        writer.add("v", Features({name: np.ones((1, 2), np.float32) for name in names}, frames, frames / 25))
    with pytest.raises(SpecError, match="cannot be told apart at the end of a name; take them one at a time"):
        export_features(store, tmp_path / "out", ExportOptions("npy"))
    assert not (tmp_path / "out").exists()
    for name in names:
        export_features(store, tmp_path / f"out_{name}", ExportOptions("npy", levels=[name], plain=True))
        assert np.load(tmp_path / f"out_{name}/v.npy").tolist() == [[1, 1]]


def test_what_a_killed_export_left_is_removed_by_a_later_one(tmp_path: Path) -> None:
    store, out = make_store(tmp_path, "one"), tmp_path / "out"
    out.mkdir()
    killed, alive, foreign = (out / name for name in (".features.h5.0123abcd.partial", ".features.h5.89abcdef.partial", ".mine.h5.partial"))
    for path in (killed, alive, foreign):
        path.write_bytes(b"half")
    for path in (killed, foreign):
        os.utime(path, (0, 0))
    export(store, out, "hdf5")
    assert [path.exists() for path in (killed, alive, foreign)] == [False, True, True]


def test_c3d_does_not_order_what_has_no_order(tmp_path: Path) -> None:
    store = FeatureStore.create(tmp_path, "x", {})
    with store.writer() as writer:
        frames = np.array([[8, 24], [8, 24]])
        writer.add("v", Features({"fc6": np.zeros((2, 4), "f4")}, frames, frames / 25))
    summary = export_features(store, tmp_path / "out", ExportOptions("c3d"))
    assert "do not begin at ascending frames" in summary.failed["v"]
    assert issubclass(FeatureError, PipelineError)
