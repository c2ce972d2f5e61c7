"""Trees and lists of ``.npy`` as other tools write them, made here by numpy alone, and real ones where the shared data are."""

import json
import os
import pickle
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from store.errors import ListError, PipelineError, SpecError, StoreError
from store.exchange.importer import ImportSummary
from store.features import FeatureStore
from store.videos import Video, VideoList

RunImport = Callable[..., tuple[FeatureStore, ImportSummary]]
RNG = np.random.default_rng(3)


def floats(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


def save(path: Path, array: np.ndarray) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, array, allow_pickle=True)
    return array


# --- .npy


def test_a_tree_of_npy_keeps_the_folders_in_the_ids(tmp_path: Path, run_import: RunImport) -> None:
    made = {name: save(tmp_path / "in" / f"{name}.npy", floats(3, 4)) for name in ("a/v", "b/v", "top", "a/deep/x.mp4")}
    save(tmp_path / "in" / ".hidden" / "v.npy", floats(3, 4))
    store, summary = run_import(tmp_path / "in", "npy", tmp_path / "f")
    assert sorted(store.ids()) == sorted(made)
    assert summary.done == 4
    for name, array in made.items():
        assert np.array_equal(store.get(name).values["features"], array)
    assert store.spec["imported"]["timing"]["frames"] == "rows"
    assert store.spec["imported"]["origin"] == "a test"


def test_every_file_that_cannot_be_imported_is_a_recorded_failure_and_the_rest_goes_on(tmp_path: Path, run_import: RunImport) -> None:
    folder = tmp_path / "in"
    good = floats(3, 4)
    for name, array in {
        "a_good": good,
        "width": floats(3, 5),
        "ints": np.ones((3, 4), int),
        "objects": np.array([{"a": 1}], object),
        "empty": np.ones((0, 4), "f4"),
        "nan": np.where(np.eye(3, 4, dtype=bool), np.nan, good).astype("f4"),
        "large": np.full((3, 4), 1e300),
        "half": good.astype("f2"),
    }.items():
        save(folder / f"{name}.npy", array)
    data = (folder / "a_good.npy").read_bytes()
    (folder / "cut.npy").write_bytes(data[:-1])
    (folder / "long.npy").write_bytes(data + b"x")
    (folder / "nothing.npy").write_bytes(b"")
    (folder / "pickled.npy").write_bytes(pickle.dumps(good))
    for name, text in {
        "claims": b"{'descr': '<f4', 'fortran_order': False, 'shape': (10000000000, 4096), }",
        "nested": b"(" * 5000,
    }.items():
        (folder / f"{name}.npy").write_bytes(b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
    (folder / "link.npy").symlink_to(tmp_path / "nowhere")
    os.mkfifo(folder / "pipe.npy")
    store, summary = run_import(folder, "npy", tmp_path / "f")
    assert store.ids() == ["a_good"]
    words = {
        "width": "levels are features float32 [N, 5]; this store holds features float32 [N, 4]",
        "ints": "array features holds int64: whole numbers are labels or positions, not features",
        "objects": "holds object, which is not read (Python objects would run code)",
        "empty": "is empty: shape [0, 4]",
        "nan": "row 0: nan among 3 values that are not finite",
        "large": "row 0: 1e+300 is too large for float32; 12 such values",
        "half": "levels are features float16 [N, 4]",
        "cut": "claims 12 numbers of 4 bytes, but holds 47 bytes",
        "long": "claims 12 numbers of 4 bytes, but holds 49 bytes",
        "nothing": "is not a .npy file that can be read",
        "pickled": "the magic string is not correct",
        "claims": "claims 40960000000000 numbers of 4 bytes, but holds 0 bytes",
        "nested": "has no header of numpy's",
        "link": "there is no file",
        "pipe": "pipe.npy is not a regular file",
    }
    assert summary.failed.keys() == words.keys()
    for name, text in words.items():
        assert text in summary.failed[name], summary.failed[name]
        assert not summary.failed[name].startswith(f"{name}:"), "the id is told once"
    recorded = store.failures()
    assert recorded.keys() == words.keys()
    assert (recorded["cut"].stage, recorded["cut"].path) == ("import", str(folder / "cut.npy"))
    (folder / "cut.npy").write_bytes(data)
    store, summary = run_import(folder, "npy", tmp_path / "f")
    assert (summary.done, summary.there, len(summary.failed)) == (1, 1, 14)
    assert "cut" not in store.failures()


def test_keys_as_suffix_and_as_folder(tmp_path: Path, run_import: RunImport) -> None:
    rgb, flow = save(tmp_path / "s/a/v_rgb.npy", floats(3, 4)), save(tmp_path / "s/a/v_flow.npy", floats(3, 4))
    save(tmp_path / "s/a/w_rgb.npy", floats(3, 4))
    save(tmp_path / "s/a/x_rgb.npy", floats(3, 4))
    save(tmp_path / "s/a/x_flow.npy", floats(2, 4))
    save(tmp_path / "s/labels.npy", floats(3))
    store, summary = run_import(tmp_path / "s", "npy", tmp_path / "f", keys=["rgb", "flow"])
    assert np.array_equal(store.get("a/v").values["rgb"], rgb)
    assert np.array_equal(store.get("a/v").values["flow"], flow)
    assert summary.failed == {
        "a/w": "there is no file for flow, only for rgb",
        "a/x": "its levels have different numbers of rows: flow has 2, rgb has 3; import them one at a time (--keys), as stores of "
        "their own",
    }
    assert summary.notes == ["1 files are of none of the keys flow, rgb: labels"]
    save(tmp_path / "d/rgb/a/v.npy", rgb)
    save(tmp_path / "d/flow/a/v.npy", flow)
    again, _ = run_import(tmp_path / "d", "npy", tmp_path / "f", keys=["flow", "rgb"], place="folder")
    assert np.array_equal(again.get("a/v").values["flow"], flow)
    assert again.digest != store.digest


def test_the_order_of_the_keys_is_no_difference(tmp_path: Path, run_import: RunImport) -> None:
    save(tmp_path / "in/v_rgb.npy", floats(3, 4))
    save(tmp_path / "in/v_flow.npy", floats(3, 4))
    assert (
        run_import(tmp_path / "in", "npy", tmp_path / "f", keys=["rgb", "flow"])[0].path
        == run_import(tmp_path / "in", "npy", tmp_path / "f", keys=["flow", "rgb"])[0].path
    )


def test_files_of_video_features_are_not_taken_for_videos(tmp_path: Path, run_import: RunImport) -> None:
    for key, array in {"resnet": floats(3, 4), "fps": np.array(25.0), "timestamps_ms": np.arange(3) * 40.0}.items():
        save(tmp_path / f"in/v_{key}.npy", array)
    with pytest.raises(SpecError, match=r"--keys resnet; if every array is one video, say --place none"):
        run_import(tmp_path / "in", "npy", tmp_path / "f")
    store, _ = run_import(tmp_path / "in", "npy", tmp_path / "f", keys=["resnet"])
    assert store.get("v").frames.tolist() == [[0, 1], [1, 2], [2, 3]]
    np.testing.assert_allclose(store.get("v").times, [[0, 0.04], [0.04, 0.08], [0.08, 0.12]])


def test_a_video_that_lacks_the_times_that_others_have_fails(tmp_path: Path, run_import: RunImport) -> None:
    for name in ("a", "b"):
        save(tmp_path / f"in/{name}_x.npy", floats(2, 4))
    save(tmp_path / "in/a_timestamps_ms.npy", np.array([0.0, 40.0]))
    save(tmp_path / "in/a_fps.npy", np.array(25.0))
    _, summary = run_import(tmp_path / "in", "npy", tmp_path / "f", keys=["x"])
    assert summary.failed == {
        "b": "nothing beside the features says which frames its rows are, as it does for others (timing.frames files)"
    }


@pytest.mark.parametrize(
    ("name", "settings", "frames", "seconds"),
    [
        ("resnet/v_GGSY1Qvo990_resnet34_64_None", {}, [[0, 1], [1, 2], [354, 355]], 355 / 19.62),
        ("resnet/v_GGSY1Qvo990_resnet101_1_1", {}, [[0, 1], [1, 2], [17, 18]], 18.0),
        ("i3d/v_GGSY1Qvo990_None_raft_24_12_15", {"length": 24}, [[0, 24], [12, 36], [240, 264]], 264 / 15),
        ("i3d/v_GGSY1Qvo990_None_pwc_24_24_25", {"length": 24}, [[0, 24], [24, 48], [408, 432]], 432 / 25),
        ("i3d/v_GGSY1Qvo990_None_raft_None_None_None", {"length": 64}, [[0, 64], [64, 128], [256, 320]], 320 / 19.62),
    ],
)
def test_real_features_of_video_features(
    shared_data: Path, tmp_path: Path, run_import: RunImport, name: str, settings: dict[str, Any], frames: list[list[int]], seconds: float
) -> None:
    """The truth is in the tool's own arguments: stacks of 24 (default 64) frames every 12 or 24 (64) at the named rate."""
    with np.load(shared_data / "features/video_features_reference.npz") as reference:
        arrays = {key.removeprefix(name + "_"): reference[key] for key in reference if key.startswith(name + "_")}
    for key, array in arrays.items():
        save(tmp_path / f"in/v_GGSY1Qvo990_{key}.npy", array)
    keys = sorted(set(arrays) - {"fps", "timestamps_ms"})
    timing = {**settings, "stamps": "end" if settings else "start"}
    store, summary = run_import(tmp_path / "in", "npy", tmp_path / "f", keys=keys, timing=timing)
    assert summary.failed == {}
    found = store.get("v_GGSY1Qvo990")
    assert found.frames[[0, 1, -1]].tolist() == frames
    assert found.times[-1, 1] == pytest.approx(seconds, abs=2e-3)
    assert found.times[0, 0] == pytest.approx(0, abs=1e-9)
    for key in keys:
        assert np.array_equal(found.values[key], arrays[key].astype(np.float32))
    arguments = json.loads((shared_data / "features/video_features_reference_args.json").read_text())[f"{name}_{keys[0]}"]
    assert arguments.get("stack_size") in (None, settings.get("length"))


# --- lists of ten crops


def test_a_list_of_ten_crop_files(tmp_path: Path, run_import: RunImport) -> None:
    first = save(tmp_path / "data/Abuse/Abuse001_x264_i3d.npy", floats(5, 10, 8))
    save(tmp_path / "data/Abuse/Abuse002_x264_i3d.npy", floats(5, 9, 8))
    save(tmp_path / "data/Normal/N1_i3d.npy", floats(5, 8))
    (tmp_path / "list.txt").write_text(
        f"data/Abuse/Abuse001_x264_i3d.npy\n\n{tmp_path}/data/Abuse/Abuse002_x264_i3d.npy\ndata/Normal/N1_i3d.npy\ndata/gone_i3d.npy\n"
    )
    store, summary = run_import(tmp_path / "list.txt", "tencrop", tmp_path / "f", keys=["i3d"], timing={"stride": 16, "fps": 30.0})
    assert store.ids() == ["data/Abuse/Abuse001_x264"]
    found = store.get("data/Abuse/Abuse001_x264")
    assert np.array_equal(found.values["i3d"], first)
    assert found.frames.tolist() == [[16 * n, 16 * n + 16] for n in range(5)]
    assert "rows [5, 9, 8] with the clips in front; 10 crops are [n, 10, width]" in summary.failed["data/Abuse/Abuse002_x264"]
    assert "rows [5, 8]" in summary.failed["data/Normal/N1"]
    assert "there is no file" in summary.failed["data/gone"]
    again, _ = run_import(tmp_path / "list.txt", "tencrop", tmp_path / "f", root=tmp_path / "data", keys=["i3d"])
    assert again.ids() == []


def test_crops_in_front_need_to_be_said(tmp_path: Path, run_import: RunImport) -> None:
    array = save(tmp_path / "in/v.npy", floats(10, 5, 8))
    assert "--rows-axis 1" in run_import(tmp_path / "in", "tencrop", tmp_path / "f")[1].failed["v"]
    store, _ = run_import(tmp_path / "in", "tencrop", tmp_path / "f", rows_axis=1)
    assert np.array_equal(store.get("v").values["features"], array.transpose(1, 0, 2))


def test_one_file_a_crop(tmp_path: Path, run_import: RunImport) -> None:
    crops = [save(tmp_path / f"in/a/v__{number}.npy", floats(4, 8)) for number in range(10)]
    for number in range(9):
        save(tmp_path / f"in/a/w__{number}.npy", floats(4, 8))
    for number in range(10):
        save(tmp_path / f"in/a/x__{number}.npy", floats(4 - (number == 7), 8))
    save(tmp_path / "in/notes.npy", floats(4))
    store, summary = run_import(tmp_path / "in", "tencrop", tmp_path / "f", crop_files="separate")
    assert np.array_equal(store.get("a/v").values["features"], np.stack(crops, 1))
    assert summary.failed.keys() == {"a/w", "a/x"}
    assert "there are files for the crops 0, 1, 2, 3, 4, 5, 6, 7, 8; 10 crops are 0 to 9" in summary.failed["a/w"]
    assert "crop 7 is float32 [3, 8], crop 0 is float32 [4, 8]" in summary.failed["a/x"]
    assert summary.notes == ["1 files do not end in __ and the number of a crop: notes"]
    with pytest.raises(SpecError, match="rows_axis is 1, of which crops in separate files make no use"):
        run_import(tmp_path / "in", "tencrop", tmp_path / "f", crop_files="separate", rows_axis=1)


def test_a_list_of_paths_tells_every_problem_at_once(tmp_path: Path, run_import: RunImport) -> None:
    (tmp_path / "list.txt").write_text("a.npy\nb.npy,Abuse\n/elsewhere/c.npy\n../d.npy\na.npy\n")
    with pytest.raises(ListError) as caught:
        run_import(tmp_path / "list.txt", "npy", tmp_path / "f")
    told = str(caught.value)
    for words in (
        "4 problems",
        "line 2: 'b.npy,Abuse' does not end in .npy",
        "line 3: '/elsewhere/c.npy' is not below",
        "--root",
        "line 4",
    ):
        assert words in told
    assert "line 5: 'a.npy' is the file of line 1 too" in told


# --- lists


def test_a_list_gives_the_ids_and_says_what_is_missing(tmp_path: Path, run_import: RunImport) -> None:
    for name in ("a/v", "b/v", "b/w"):
        save(tmp_path / f"in/{name}.npy", floats(3, 4))
    videos = VideoList(tuple(Video(name, tmp_path / name) for name in ("a/v.avi", "b/w.avi", "c/x.avi")), ())
    store, summary = run_import(tmp_path / "in", "npy", tmp_path / "f", videos=videos)
    assert store.ids() == ["a/v.avi", "b/w.avi"]
    assert summary.missing == ["c/x.avi"]
    assert summary.notes == ["1 videos found are not in the list: b/v"]
    save(tmp_path / "more/c/x.npy", floats(3, 4))
    _, summary = run_import(tmp_path / "more", "npy", tmp_path / "f", videos=videos)
    assert (summary.done, summary.missing) == (1, [])  # what an earlier import brought is not missing
    strangers = VideoList((Video("q", tmp_path / "q"),), ())
    with pytest.raises(SpecError, match=r"none of 3 videos found is in the list by --match path: found a/v, b/v, b/w; the list has q"):
        run_import(tmp_path / "in", "npy", tmp_path / "f", videos=strangers)
    same = VideoList((Video("v1", tmp_path / "videos/v.avi"),), ())
    with pytest.raises(ListError, match="a/v and b/v can be v1"):
        run_import(tmp_path / "in", "npy", tmp_path / "f", videos=same, match="stem")


def test_no_error_of_reading_ends_the_import(tmp_path: Path, run_import: RunImport) -> None:
    assert issubclass(ListError, PipelineError)
    save(tmp_path / "in/v.npy", floats(3, 4))
    (tmp_path / "in/w.npy").mkdir()
    store, summary = run_import(tmp_path / "in", "npy", tmp_path / "f")
    assert (store.ids(), summary.failed) == (["v"], {})


def test_keys_that_nothing_has_are_an_error(tmp_path: Path, run_import: RunImport) -> None:
    save(tmp_path / "in/v_rgb.npy", floats(3, 4))
    with pytest.raises(StoreError, match=r"nothing in the source is a video by these settings; 1 files are of none of the keys i3d: v_rgb"):
        run_import(tmp_path / "in", "npy", tmp_path / "f", keys=["i3d"])
    with pytest.raises(StoreError, match=r"1 files do not end in __ and the number of a crop: v_rgb"):
        run_import(tmp_path / "in", "tencrop", tmp_path / "f", crop_files="separate")
    assert not (tmp_path / "f").exists()
