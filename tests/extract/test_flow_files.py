"""Flow that another tool computed: every layout is found, counted and read, and what does not add up is said."""

import itertools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from extract.flow import FLOWS
from extract.flow_bytes import quantised
from extract.flow_files import find_flow
from extract.flow_frames import flow_frames, flow_frames_from_files, resolve_flow
from extract.spec import DecodeSpec, FlowSpec
from extract.video import open_source
from store.errors import FeatureError, SpecError

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
    with pytest.raises(FeatureError, match="12 flows for a video of 12 frames; there must be 11, one from each frame to the next"):
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
    with pytest.raises(FeatureError, match=r"tsn_rawframes: 5 flows for a video of 10 frames; there must be 9"):
        files.check_count(10)


def test_what_does_not_add_up_is_said_with_the_numbers(tmp_path: Path) -> None:
    def find(name: str) -> None:
        find_flow(tmp_path, Path("x"), f"{name}.avi")

    with pytest.raises(FeatureError, match=r"none.avi: no flow found; looked for .*none/flow_x/, .*none/x_\*"):
        find("none")
    write(tmp_path, "{n}/x_{i:05}.jpg", 5, name="gap")
    (tmp_path / "gap" / "x_00003.jpg").unlink()
    with pytest.raises(FeatureError, match=r"x_\*: 4 images but 5 of .*y_\*; number 3 is in one of them only"):
        find("gap")
    (tmp_path / "gap" / "y_00003.jpg").unlink()
    with pytest.raises(FeatureError, match="4 images numbered 1 to 5, number 3 is missing; they must count from 0 or 1"):
        find("gap")
    write(tmp_path, "{n}/x_{i:05}.jpg", 5, start=7, name="late")
    with pytest.raises(FeatureError, match="5 images numbered 7 to 11; they must count from 0 or 1"):
        find("late")
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="both")
    write(tmp_path, "flow_x/{n}/{i:05}.jpg", 2, name="both")
    with pytest.raises(FeatureError, match=r"flow in more than one place: .*; keep one of them"):
        find("both")
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="twice")
    write(tmp_path, "{n}/x_{i:03}.jpg", 2, name="twice")
    with pytest.raises(FeatureError, match=r"have one number; keep one series"):
        find("twice")


def test_images_and_arrays_that_cannot_be_read(tmp_path: Path) -> None:
    write(tmp_path, "{n}/x_{i:05}.jpg", 2, name="v")
    (tmp_path / "v" / "x_00001.jpg").write_bytes(b"no image")
    (tmp_path / "v" / "y_00002.jpg").write_bytes(cv2.imencode(".jpg", np.zeros((5, 5), np.uint8))[1].tobytes())
    files = find_flow(tmp_path, Path("x"), "v.avi")
    with pytest.raises(FeatureError, match=r"x_00001.jpg: not an image"):
        files.read(0)
    with pytest.raises(FeatureError, match=r"x_00002.jpg is 8x6 but y_00002.jpg 5x5"):
        files.read(1)
    for name, array, words in (
        ("ints", np.zeros((3, 4, 4, 2), np.int32), "int32"),
        ("flat", np.zeros((3, 4), np.float32), r"float32 \[3, 4\]; flow is"),
        ("objects", np.array([{}], dtype=object), "not an array that can be read"),
        ("nan", np.full((3, 4, 4, 2), np.nan, np.float32), "flow 0 has NaN or Inf"),
    ):
        np.save(tmp_path / f"{name}.npy", array)
        with pytest.raises(FeatureError, match=words):
            find_flow(tmp_path, Path("x"), f"{name}.avi").read(0)


SPECS = [
    FlowSpec(method="dis", short_side=0),
    FlowSpec(method="dis", short_side=0, encoding="pairs", pairs=3, quantise="dense_flow"),
    FlowSpec(method="dis", short_side=0, encoding="pairs", pairs=2, offset=-1, quantise="i3d", with_rgb=True),
]


@pytest.mark.parametrize("spec", SPECS)
@pytest.mark.parametrize("as_images", [True, False])
def test_flow_from_files_is_the_flow_that_was_written(
    tmp_path: Path, encode_video: Callable[..., Path], spec: FlowSpec, as_images: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 255, (60, 80, 3), np.uint8)
    video = encode_video(tmp_path / "v.avi", [np.roll(cv2.GaussianBlur(noise, (0, 0), 3), 2 * index, 1) for index in range(9)])
    spec = replace(resolve_flow(spec), quantise=spec.quantise or "symmetric")
    from_files = resolve_flow(replace(spec, method="files", origin="DIS, this test", params={}, version=""))
    wanted = np.array([0, 2, 3, 7, 8])
    with open_source(video, DecodeSpec()) as source:
        greys = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in source.frames(np.arange(9))]
        method = FLOWS.get("dis")(spec.params)
        flows = np.stack([method(first, second) for first, second in itertools.pairwise(greys)])
        write_flow(tmp_path, quantised(flows, spec.bound, spec.quantise) if as_images else flows)
        computed = np.stack(list(flow_frames(source, wanted, spec)))
        read = np.stack(list(flow_frames_from_files(source, wanted, from_files, tmp_path, "v.avi")))
    if as_images and spec.encoding == "image":  # magnitudes of rounded components
        assert np.array_equal(read[..., :2], computed[..., :2])
        assert np.abs(read[..., 2].astype(int) - computed[..., 2]).max() <= 2
    else:
        assert np.array_equal(read, computed)


def write_flow(folder: Path, flows: np.ndarray) -> None:
    if flows.dtype != np.uint8:
        np.save(folder / "v.npy", flows)
        return
    (folder / "v").mkdir()
    for index, flow in enumerate(flows):
        for component, name in enumerate("xy"):
            cv2.imwrite(str(folder / "v" / f"{name}_{index + 1:05}.png"), flow[..., component])


def test_a_video_of_one_frame_has_no_files_and_no_flow(tmp_path: Path, encode_video: Callable[..., Path]) -> None:
    video = encode_video(tmp_path / "v.avi", [np.full((48, 64, 3), 90, np.uint8)])
    spec = FlowSpec(method="files", origin="none", short_side=0, encoding="pairs", quantise="symmetric")
    with open_source(video, DecodeSpec()) as source:
        (frame,) = flow_frames_from_files(source, np.array([0]), spec, tmp_path, "v.avi")
    assert frame.shape == (48, 64, 2)
    assert (frame == 128).all()


@pytest.mark.parametrize("wrong", [{"method": "files"}, {"method": "dis", "origin": "x"}, {"origin": "x"}])
def test_flow_from_files_needs_its_origin_and_nothing_else_has_one(wrong: dict[str, str]) -> None:
    with pytest.raises(ValueError, match="flow from files needs its origin in words"):
        FlowSpec(**wrong)
    with pytest.raises(SpecError, match="flow from files has no parameters"):
        resolve_flow(FlowSpec(method="files", origin="x", params={"preset": 1.0}))


@pytest.mark.parametrize("video_id", ["../v.avi", "/v.avi", "a/../../v"])
def test_ids_that_lead_elsewhere_are_refused(tmp_path: Path, video_id: str) -> None:
    with pytest.raises(FeatureError, match="is no relative path"):
        find_flow(tmp_path, Path("x"), video_id)
