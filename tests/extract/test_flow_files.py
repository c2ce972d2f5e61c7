"""Flow that another tool computed: every layout is found, counted and read, and what does not add up is said."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from extract.flow_files import find_flow
from store.errors import DecodeError

NAMES = [
    "{n}/flow_x/{i:05}.jpg",
    "{n}/x/frame{i:06}.png",
    "flow_x/{n}/{i}.jpg",
    "u/{n}/frame{i:06}.jpg",
    "{n}/flow_x_{i:05}.jpg",
    "{n}/x_{i:05}.jpg",
]
OTHER = {"flow_x": "flow_y", "x": "y", "u": "v"}


def bytes_of(index: int, component: int, height: int = 6, width: int = 8) -> np.ndarray:
    return np.full((height, width), 10 * index + component, np.uint8)


def write(root: Path, template: str, count: int, start: int = 1, name: str = "class/v_1") -> None:
    key = next(key for key in ("flow_x", "u", "x") if f"{key}/" in template or f"{key}_" in template)
    for index in range(count):
        for component, series in enumerate((key, OTHER[key])):
            path = root / template.replace(f"{key}/", f"{series}/").replace(f"{key}_", f"{series}_").format(n=name, i=index + start)
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), bytes_of(index, component))


@pytest.mark.parametrize("template", NAMES)
@pytest.mark.parametrize("start", [0, 1])
def test_every_layout_is_found_and_counts_from_zero_or_one(tmp_path: Path, template: str, start: int) -> None:
    write(tmp_path, template, 12, start)
    files = find_flow(tmp_path, Path("anything.avi"), "class/v_1.avi")
    files.check_count(13)
    for index in (0, 9, 11):
        assert np.abs(files.read(index).astype(int) - np.stack([bytes_of(index, 0), bytes_of(index, 1)], 2)).max() <= 1  # JPEG
    with pytest.raises(DecodeError, match="12 flows for a video of 12 frames; there must be 11, one from each frame to the next"):
        files.check_count(12)


@pytest.mark.parametrize("axis", [1, 3])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_arrays_are_read_as_displacements(tmp_path: Path, axis: int, dtype: str) -> None:
    flow = np.random.default_rng(0).normal(size=(4, 6, 8, 2)).astype(dtype)
    (tmp_path / "class").mkdir()
    np.save(tmp_path / "class" / "v_1.npy", np.moveaxis(flow, 3, axis))
    files = find_flow(tmp_path, Path("x"), "class/v_1.avi")
    assert len(files) == 4
    assert files.read(2).dtype == np.float32
    assert np.array_equal(files.read(2), flow[2].astype(np.float32))


def test_flow_beside_the_frames_of_a_folder(shared_data: Path) -> None:
    folder = shared_data / "videos" / "tsn_rawframes"
    files = find_flow(None, folder, "tsn_rawframes")
    assert len(files) == 5
    assert np.array_equal(files.read(4)[..., 0], cv2.imread(str(folder / "x_00005.jpg"), cv2.IMREAD_GRAYSCALE))
    assert np.array_equal(files.read(0)[..., 1], cv2.imread(str(folder / "y_00001.jpg"), cv2.IMREAD_GRAYSCALE))
    with pytest.raises(DecodeError, match=r"tsn_rawframes: 5 flows for a video of 10 frames; there must be 9"):
        files.check_count(10)


def test_what_does_not_add_up_is_said_with_the_numbers(tmp_path: Path) -> None:
    def find(name: str) -> None:
        find_flow(tmp_path, Path("x"), f"{name}.avi")

    with pytest.raises(DecodeError, match=r"none.avi: no flow found; looked for .*none/flow_x/, .*none/x_\*"):
        find("none")
    write(tmp_path, "{n}/x_{i:05}.jpg", 5, name="gap")
    (tmp_path / "gap" / "x_00003.jpg").unlink()
    with pytest.raises(DecodeError, match=r"x_\*: 4 images but 5 of .*y_\*; number 3 is in one of them only"):
        find("gap")
    (tmp_path / "gap" / "y_00003.jpg").unlink()
    with pytest.raises(DecodeError, match="4 images numbered 1 to 5, number 3 is missing; they must count from 0 or 1"):
        find("gap")
    write(tmp_path, "{n}/x_{i:05}.jpg", 5, start=7, name="late")
    with pytest.raises(DecodeError, match="5 images numbered 7 to 11; they must count from 0 or 1"):
        find("late")
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="both")
    write(tmp_path, "flow_x/{n}/{i:05}.jpg", 2, name="both")
    with pytest.raises(DecodeError, match=r"flow in more than one place: .*; keep one of them"):
        find("both")
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="twice")
    write(tmp_path, "{n}/x_{i:03}.jpg", 2, name="twice")
    with pytest.raises(DecodeError, match=r"have one number; keep one series"):
        find("twice")


def test_images_and_arrays_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="v")
    (tmp_path / "v" / "x_00001.jpg").write_bytes(b"no image")
    (tmp_path / "v" / "y_00002.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((5, 5), np.uint8))[1].tobytes())
    files = find_flow(tmp_path, Path("x"), "v.avi")
    with pytest.raises(DecodeError, match=r"x_00001.jpg: not an image"):
        files.read(0)
    with pytest.raises(DecodeError, match=r"x_00002.jpg is 8x6 but y_00002.jpg 5x5"):
        files.read(1)
    for name, array, words in (
        ("ints", np.zeros((3, 4, 4, 2), np.int32), "int32"),
        ("flat", np.zeros((3, 4), np.float32), r"float32 \[3, 4\]; flow is"),
        ("objects", np.array([{}], dtype=object), "not an array that can be read"),
        ("nan", np.full((3, 4, 4, 2), np.nan, np.float32), "flow 0 has NaN or Inf"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(DecodeError, match=words):
            find_flow(tmp_path, Path("x"), f"{name}.avi").read(0)


@pytest.mark.parametrize("video_id", ["../v.avi", "/v.avi", "a/../../v"])
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, video_id: str) -> None:
    with pytest.raises(DecodeError, match="is no relative path"):
        find_flow(tmp_path, Path("x"), video_id)
