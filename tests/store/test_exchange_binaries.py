"""Caffe's C3D blobs, HDF5 and .npz as other tools write them, made here by struct, h5py and numpy alone."""

import os
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import h5py
import numpy as np
import pytest

from store.errors import SpecError, StoreError
from store.exchange.importer import ImportSummary
from store.features import FeatureStore

RunImport = Callable[..., tuple[FeatureStore, ImportSummary]]
RNG = np.random.default_rng(3)


def floats(*shape: int, dtype: str = "f4") -> np.ndarray:
    return RNG.standard_normal(shape).astype(dtype)


# --- Caffe's C3D


def blob(path: Path, array: np.ndarray, sides: tuple[int, ...] | None = None) -> np.ndarray:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(struct.pack("<5i", *(sides or (1, array.size, 1, 1, 1))) + array.astype("<f4").tobytes())
    return array


def test_real_c3d_blobs(shared_data: Path, tmp_path: Path, run_import: RunImport) -> None:
    folder = shared_data / "features/c3d_binary_sample"
    store, summary = run_import(folder, "c3d", tmp_path / "f", timing={"fps": 25.0})
    assert summary.failed == {}
    found = store.get("c3d_binary_sample")
    assert found.frames.tolist() == [[0, 16], [16, 32]]
    np.testing.assert_allclose(found.times, [[0, 0.64], [0.64, 1.28]])
    for layer in ("fc6-1", "fc7-1"):
        for row, start in enumerate((0, 16)):
            raw = np.fromfile(folder / f"{start:06d}.{layer}", "<f4")[5:]
            assert np.array_equal(found.values[layer][row], raw)
    assert store.spec["imported"]["keys"] == ["fc6-1", "fc7-1"]
    assert (store.spec["imported"]["timing"]["length"], store.spec["imported"]["timing"]["base"]) == (16, 0)


def test_c3d_shapes_and_frames(tmp_path: Path, run_import: RunImport) -> None:
    rows = [blob(tmp_path / f"in/a/v/{number:06d}.fc6-1", floats(8)) for number in (1, 9, 17)]
    maps = blob(tmp_path / "maps/v/000000.pool5", floats(2, 3, 4), (1, 2, 1, 3, 4))
    crops = blob(tmp_path / "crops/v/000000.fc6", floats(10, 4), (10, 4, 1, 1, 1))
    with pytest.raises(SpecError, match=r"lowest number of a blob is 1, .* --timing.base 0 or --timing.base 1"):
        run_import(tmp_path / "in", "c3d", tmp_path / "f")
    store, _ = run_import(tmp_path / "in", "c3d", tmp_path / "f", timing={"base": 1})
    assert np.array_equal(store.get("a/v").values["fc6-1"], np.stack(rows))
    assert store.get("a/v").frames.tolist() == [[0, 16], [8, 24], [16, 32]]
    assert np.array_equal(run_import(tmp_path / "maps", "c3d", tmp_path / "f")[0].get("v").values["pool5"], maps[None])
    assert np.array_equal(run_import(tmp_path / "crops", "c3d", tmp_path / "f")[0].get("v").values["fc6"], crops[None])


def test_c3d_blobs_that_lie_are_failures(tmp_path: Path, run_import: RunImport) -> None:
    for video in ("good", "short", "long", "huge", "negative", "head", "gap", "shape"):
        for number in (0, 16):
            blob(tmp_path / f"in/{video}/{number:06d}.fc6-1", floats(8))
            blob(tmp_path / f"in/{video}/{number:06d}.fc7-1", floats(8))
    body = floats(8).tobytes()
    (tmp_path / "in/short/000016.fc6-1").write_bytes(struct.pack("<5i", 1, 8, 1, 1, 1) + body[:-4])
    (tmp_path / "in/long/000016.fc6-1").write_bytes(struct.pack("<5i", 1, 8, 1, 1, 1) + body + body)
    (tmp_path / "in/huge/000016.fc6-1").write_bytes(struct.pack("<5i", *[2**31 - 1] * 5) + body)
    (tmp_path / "in/negative/000016.fc6-1").write_bytes(struct.pack("<5i", -1, -8, 1, 1, 1) + body)
    (tmp_path / "in/head/000016.fc6-1").write_bytes(b"1234567")
    (tmp_path / "in/gap/000016.fc7-1").unlink()
    (tmp_path / "in/pipe").mkdir()
    for layer in ("fc6-1", "fc7-1"):
        os.mkfifo(tmp_path / f"in/pipe/000000.{layer}")
    blob(tmp_path / "in/shape/000016.fc6-1", floats(9))
    store, summary = run_import(tmp_path / "in", "c3d", tmp_path / "f")
    assert store.ids() == ["good"]
    for video in ("short", "long", "huge", "negative", "head"):
        assert "a blob is 20 bytes and 4 for each number" in summary.failed[video]
    assert "has 52 bytes and its header says 2147483647 x 2147483647" in summary.failed["huge"]
    assert "000000.fc6-1 is not a regular file" in summary.failed["pipe"]
    assert summary.failed["gap"] == "layer fc7-1 has no blob for 1 of 2 clips: 16"
    assert "000016.fc6-1 is [9]" in summary.failed["shape"]
    blob(tmp_path / "in/000000.fc6-1", floats(8))
    with pytest.raises(SpecError, match=r"holds blobs, and so do folders in it"):
        run_import(tmp_path / "in", "c3d", tmp_path / "f")


# --- HDF5 and .npz


def test_hdf5_with_a_dataset_a_video(tmp_path: Path, run_import: RunImport) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        first = file.create_dataset("class/v1", data=floats(3, 4))[()]
        file.create_dataset("class/v2", data=floats(4, 4), compression="gzip", chunks=(2, 4))
        file.create_dataset("other/v1", data=floats(4, 4, dtype="f8"))
        file.create_dataset("ints", data=np.ones((2, 4), int))
        file.create_dataset("text", data="words")
        file.create_dataset("never", (5, 4), "f4")
        file.create_dataset("half", (6, 4), "f4", chunks=(2, 4))[:2] = 1
        file.create_dataset("bomb", (2**28, 16), "f4", chunks=(2**20, 16), compression="gzip")
        file.create_dataset("empty", (0, 4), "f4")
        file["linked"] = h5py.ExternalLink("other.h5", "/secret")
        file["soft"] = h5py.SoftLink("/class/v1")
    store, summary = run_import(tmp_path / "x.h5", "hdf5", tmp_path / "f")
    assert sorted(store.ids()) == ["class/v1", "class/v2", "other/v1"]
    assert np.array_equal(store.get("class/v1").values["features"], first)
    assert summary.rounded == 1
    words = {
        "ints": "whole numbers are labels",
        "text": "features are float16, float32 or float64",
        "never": "was never written whole (0 of 80 bytes)",
        "half": "was never written whole (1 of 3 chunks)",
        "bomb": "claims 17179869184 bytes; at most",
        "empty": "is empty: shape [0, 4]",
    }
    assert summary.failed.keys() == words.keys()
    assert all(text in summary.failed[name] for name, text in words.items()), summary.failed


def test_hdf5_that_points_out_of_the_file_or_unpacks_to_too_much_is_refused(tmp_path: Path, run_import: RunImport) -> None:
    layout = h5py.VirtualLayout(shape=(3, 4), dtype="f4")
    layout[:] = h5py.VirtualSource("other.h5", "secret", shape=(3, 4))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("virtual", layout)
        file.create_dataset("external", (3, 4), "f4", external=[(str(tmp_path / "raw"), 0, 48)])
        file.create_dataset("dense", data=np.zeros((2**21, 16), "f4"), chunks=(2**18, 16), compression="gzip")
    _, summary = run_import(tmp_path / "x.h5", "hdf5", tmp_path / "f")
    assert "keeps its values in other files, which are not followed" in summary.failed["virtual"]
    assert "keeps its values in other files, which are not followed" in summary.failed["external"]
    assert "would unpack to 134217728, as no features do" in summary.failed["dense"]


def test_hdf5_with_a_group_a_video(tmp_path: Path, run_import: RunImport) -> None:
    with h5py.File(tmp_path / "x.hdf5", "w") as file:
        arrays = {name: file.create_dataset(f"v_{name}/c3d_features", data=floats(3, 5))[()] for name in "ab"}
    with pytest.raises(SpecError, match=r"every group holds the same arrays.* --keys c3d_features"):
        run_import(tmp_path / "x.hdf5", "hdf5", tmp_path / "f")
    store, _ = run_import(tmp_path / "x.hdf5", "hdf5", tmp_path / "f", keys=["c3d_features"])
    assert all(np.array_equal(store.get(f"v_{name}").values["c3d_features"], array) for name, array in arrays.items())
    flat, _ = run_import(tmp_path / "x.hdf5", "hdf5", tmp_path / "f", place="none")
    assert sorted(flat.ids()) == ["v_a/c3d_features", "v_b/c3d_features"]
    with pytest.raises(StoreError, match=r"holds no array called by the keys i3d \(place inside\); it has v_a/c3d_features"):
        run_import(tmp_path / "x.hdf5", "hdf5", tmp_path / "f", keys=["i3d"])


def test_a_folder_of_hdf5_files_one_a_video(tmp_path: Path, run_import: RunImport) -> None:
    for name in ("a/v", "b/v"):
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        with h5py.File(tmp_path / f"in/{name}.h5", "w") as file:
            file["rgb"], file["fps"] = floats(3, 4), 20.0
    (tmp_path / "in/bad.h5").write_bytes(b"no hdf5")
    os.mkfifo(tmp_path / "in/a.h5")  # the first by name, where the keys are looked for
    store, summary = run_import(tmp_path / "in", "hdf5", tmp_path / "f", timing={"stride": 10})
    assert sorted(store.ids()) == ["a/v", "b/v"]
    np.testing.assert_allclose(store.get("a/v").times, [[0, 0.5], [0.5, 1], [1, 1.5]])
    assert "bad.h5 is not an HDF5 file that can be read" in summary.failed["bad"]
    assert "a.h5 is not a regular file" in summary.failed["a"]


def test_npz_with_an_array_a_video_and_one_a_video(tmp_path: Path, run_import: RunImport) -> None:
    arrays = {"a/v": floats(3, 4), "b/v": floats(2, 4)}
    np.savez(tmp_path / "all.npz", **arrays, objects=np.array([{}], object))
    store, summary = run_import(tmp_path / "all.npz", "npz", tmp_path / "f")
    assert all(np.array_equal(store.get(name).values["features"], array) for name, array in arrays.items())
    assert "holds object, which is not read" in summary.failed["objects"]
    (tmp_path / "in/a").mkdir(parents=True)
    for name in ("a/v", "w"):
        np.savez_compressed(tmp_path / f"in/{name}.npz", rgb=arrays["a/v"], flow=arrays["a/v"] * 2, fps=25.0)
    np.savez(tmp_path / "in/x.npz", rgb=arrays["a/v"])
    store, summary = run_import(tmp_path / "in", "npz", tmp_path / "f")
    assert (sorted(store.ids()), store.levels) == (["a/v", "w"], ("flow", "rgb"))
    assert summary.failed == {"x": "there is no array flow, only rgb"}


def test_npz_that_lies_or_unpacks_to_too_much_is_refused(tmp_path: Path, run_import: RunImport) -> None:
    with zipfile.ZipFile(tmp_path / "x.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        with archive.open("bomb.npy", "w") as member:
            np.lib.format.write_array(member, np.zeros((2**21, 16), "f4"))
        for name in ("good", "flipped"):
            with archive.open(f"{name}.npy", "w") as member:
                np.lib.format.write_array(member, floats(64, 4))
        text = b"{'descr': '<f4', 'fortran_order': False, 'shape': (99999999999, 4), }"
        archive.writestr("claims.npy", b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text)
        start = archive.getinfo("flipped.npy").header_offset
    data = bytearray((tmp_path / "x.npz").read_bytes())
    data[start + 400] ^= 0x10
    (tmp_path / "x.npz").write_bytes(data)
    store, summary = run_import(tmp_path / "x.npz", "npz", tmp_path / "f")
    assert store.ids() == ["good"]
    assert "would unpack to 134217856, as no features do" in summary.failed["bomb"]
    assert "claims 399999999996 numbers of 4 bytes, but holds 0 bytes" in summary.failed["claims"]
    assert "flipped cannot be read" in summary.failed["flipped"]
    (tmp_path / "y.npz").write_bytes(b"no zip")
    with pytest.raises(StoreError, match=r"y.npz is not an .npz file that can be read"):
        run_import(tmp_path / "y.npz", "npz", tmp_path / "f")
