"""Our own improved trajectories: parts against loops, motion that is known, the files, and what the original program wrote."""

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from click.testing import CliRunner, Result

from cli import cli
from extract.file_work import FAILURES
from extract.lasting import MEMORY
from extract.spec import DecodeSpec
from extract.trajectories.camera import homography, subtract_motion, warp_back
from extract.trajectories.cells import FLOOR, cell_corners, cell_histograms, frame_descriptors, histogram_image
from extract.trajectories.files import write_rows
from extract.trajectories.pyramid import scale_sizes
from extract.trajectories.spec import TrajectorySpec
from extract.trajectories.tracks import describe_paths, sample_points
from extract.trajectories.walk import grey_frame, trajectories
from extract.video import open_source
from store import failures
from store.trajectory_format import IMPROVED

Encode = Callable[..., Path]
REFERENCE = "idt/person01_boxing_d1.improved_trajectories.txt.gz"
VIDEO = "videos/kth/person01_boxing_d1_uncomp.avi"


def texture(height: int, width: int, seed: int = 0) -> np.ndarray:
    noise = np.random.default_rng(seed).random((height, width)).astype(np.float32)
    smooth = cv2.GaussianBlur(noise, (0, 0), 2)
    return ((smooth - smooth.min()) / (smooth.max() - smooth.min()) * 255).astype(np.uint8)


def moving(frames: int, step: tuple[int, int], patch: tuple[int, int] | None = None) -> list[np.ndarray]:
    """A textured scene of 120 x 160 that moves by ``step`` (x, y) a frame, and on it a textured square that moves by ``patch``."""
    scene, square = texture(400, 500), texture(50, 50, 1)
    found = []
    for number in range(frames):
        left, top = 150 - step[0] * number, 150 - step[1] * number
        frame = scene[top : top + 120, left : left + 160].copy()
        if patch is not None:
            x, y = 20 + patch[0] * number, 30 + patch[1] * number
            frame[y : y + 50, x : x + 50] = square
        found.append(frame)
    return found


def track(frames: list[np.ndarray], **settings: object) -> np.ndarray:
    return np.concatenate(list(trajectories(frames, len(frames), TrajectorySpec(**settings))))  # type: ignore[arg-type]


@pytest.mark.parametrize(("bins", "still"), [(8, None), (9, 0.4)])
def test_histograms_of_pixels_are_those_of_loops(bins: int, still: float | None) -> None:
    x, y = np.random.default_rng(0).normal(0, 0.6, (2, 6, 7)).astype(np.float32)
    around = bins if still is None else bins - 1
    expected = np.zeros((6, 7, bins))
    for place in np.ndindex(6, 7):
        length = math.hypot(x[place], y[place])
        if still is not None and length <= still:
            expected[place][around] = 1
            continue
        position = (math.atan2(y[place], x[place]) % (2 * math.pi)) / (2 * math.pi) * around
        lower = int(position)
        expected[place][lower % around] += length * (1 - (position - lower))
        expected[place][(lower + 1) % around] += length * (position - lower)
    np.testing.assert_allclose(histogram_image(x, y, bins, still), expected, atol=0.01)  # OpenCV's angle is exact to 0.3 degrees


def test_cells_are_sums_over_their_pixels_and_the_patch_stays_inside() -> None:
    histograms = np.random.default_rng(0).random((70, 90, 8)).astype(np.float32)
    points = np.array([[40.2, 33.7], [1, 1], [89, 69], [3, 50]], np.float32)
    rows, columns = cell_corners(points, 70, 90)
    found = cell_histograms(histograms, rows, columns)
    for (x, y), sums in zip([(24, 18), (0, 0), (58, 38), (0, 34)], found, strict=True):  # the patches' corners, by hand
        cells = [histograms[y + 16 * j : y + 16 * j + 16, x + 16 * i : x + 16 * i + 16].sum((0, 1)) for i in (0, 1) for j in (0, 1)]
        np.testing.assert_allclose(sums, np.concatenate(cells), rtol=1e-4)


def test_descriptors_of_a_ramp_are_known() -> None:
    ramp = np.tile(np.arange(64, dtype=np.uint8) * 2, (64, 1))  # brightness grows to the right: every gradient is (4, 0)
    flow = np.zeros((64, 64, 2), np.float32)
    flow[..., 1] = 1  # all pixels move down by 1
    found = frame_descriptors(ramp, flow, np.array([[32, 32]], np.float32), "rootsift")[0]
    hog, hof, mbh = found[:32].reshape(4, 8), found[32:68].reshape(4, 9), found[68:]
    sums = 4 * (256 * 4 + 8 * FLOOR)
    np.testing.assert_allclose(hog[:, 0], math.sqrt((256 * 4 + FLOOR) / sums), rtol=1e-5)
    np.testing.assert_allclose(hog[:, 1:], math.sqrt(FLOOR / sums), rtol=1e-5)
    assert (hof.argmax(1) == 2).all()  # a quarter of the circle of eight bins
    np.testing.assert_allclose(mbh, math.sqrt(1 / 32), rtol=1e-5)  # a flow without gradient: equal shares
    lengths = np.linalg.norm(frame_descriptors(ramp, flow, np.array([[32, 32]], np.float32), "l2"))
    np.testing.assert_allclose(lengths, 2, rtol=1e-5)  # four descriptors of length 1


def test_points_are_sampled_where_there_is_texture_and_no_track() -> None:
    image = np.full((60, 100), 128, np.uint8)
    image[:, 50:] = texture(60, 50)
    points = sample_points(image, np.zeros((0, 2), np.float32), 5, 0.001)
    assert len(points)
    assert (points[:, 0] > 45).all()
    assert ((points - 2) % 5 == 0).all()
    left = sample_points(image, points[:3] + 1.9, 5, 0.001)
    assert len(left) == len(points) - 3
    assert not len(sample_points(np.full((60, 100), 9, np.uint8), points[:0], 5, 0.001))


def test_paths_that_stand_still_or_jump_are_not_kept() -> None:
    line = np.arange(16.0)
    still, walks = np.stack([line * 0.05, line * 0], 1), np.stack([line, line * 0.5], 1)
    jumps, far = walks * 0.2, walks * 12
    jumps[8:] += 30
    header, kept = describe_paths(np.stack([still, walks, jumps, far]))
    assert kept.tolist() == [False, True, False, False]
    np.testing.assert_allclose(header[1], [7.5, 3.75, line.std(), line.std() / 2, 15 * math.hypot(1, 0.5)])


def test_scales_end_where_a_patch_does_not_fit() -> None:
    assert scale_sizes(120, 160, 8) == [(120, 160), (85, 113), (60, 80), (42, 57)]
    assert len(scale_sizes(1080, 1920, 8)) == 8
    assert scale_sizes(32, 400, 8) == [(32, 400)]


def test_a_homography_is_found_and_taken_back() -> None:
    scene = texture(120, 160)
    truth = np.array([[1.01, 0.01, 3], [-0.01, 0.99, -2], [1e-5, 0, 1]])
    second = cv2.warpPerspective(scene, truth, (160, 120), flags=cv2.INTER_LINEAR)
    first = (np.random.default_rng(0).random((200, 2)) * [150, 110]).astype(np.float32)
    moved = cv2.perspectiveTransform(first[None], truth)[0] + np.where(np.arange(200) % 4 == 0, 40, 0)[:, None].astype(np.float32)
    found = homography(first, moved.astype(np.float32))
    assert found is not None
    np.testing.assert_allclose(found, truth, atol=0.02)
    back = warp_back(scene, second, found)
    assert np.abs(back[15:-15, 15:-15].astype(int) - scene[15:-15, 15:-15]).mean() < 2
    flow = cv2.perspectiveTransform(np.stack(np.meshgrid(np.arange(160.0), np.arange(120.0)), 2), truth) - np.stack(
        np.meshgrid(range(160), range(120)), 2
    )
    assert np.abs(subtract_motion(flow.astype(np.float32), found, 1.0)).max() < 0.5
    assert homography(first[:30], moved[:30].astype(np.float32)) is None


def test_tracks_follow_a_scene_that_moves_and_the_camera_is_taken_out() -> None:
    frames = moving(20, (2, 1))
    found = track(frames, camera="none", scales=1)
    assert len(found) > 200
    steps = found[:, IMPROVED.descriptor("trajectory")].reshape(-1, 15, 2) * found[:, 5][:, None, None]
    np.testing.assert_allclose(np.median(steps, 0), np.tile([2, 1], (15, 1)), atol=0.05)
    np.testing.assert_allclose(np.median(found[:, 5]), 15 * math.hypot(2, 1), rtol=0.02)
    assert {15, 19} <= set(found[:, 0].astype(int)) <= {15, 16, 17, 18, 19}
    np.testing.assert_allclose(found[:, 9], (found[:, 0] - 7.5) / 20, rtol=1e-5)
    np.testing.assert_allclose(found[:, 7], np.clip(found[:, 1] / 160, 0, 0.999), rtol=1e-5)
    for camera in ("recompute", "subtract"):
        assert len(track(frames, camera=camera, scales=1)) < 0.02 * len(found)  # nothing but the camera moves


@pytest.mark.parametrize("camera", ["recompute", "subtract"])
def test_what_moves_before_a_moving_camera_is_kept(camera: str) -> None:
    found = track(moving(18, (1, 0), patch=(3, 1)), camera=camera, scales=1)
    middle = found[:, 0] - 7.5
    away = np.maximum(np.abs(found[:, 1] - 45 - 3 * middle), np.abs(found[:, 2] - 55 - middle))  # from the middle of the square
    on_square = away < 18
    assert on_square.sum() > 30
    assert (away < 40).mean() > 0.9  # flow is an average over some pixels, so its edges are not those of the square
    steps = found[on_square][:, IMPROVED.descriptor("trajectory")].reshape(-1, 30)
    straight = np.array([2, 1]) / math.hypot(2, 1) / 15  # 3 - 1 to the right and 1 down, as shares of the path
    assert np.abs(np.median(steps, 0).reshape(15, 2) - straight).max() < 0.01


def test_a_still_scene_has_no_trajectories() -> None:
    assert track([texture(64, 80)] * 17).shape == (0, 436)
    assert track([np.zeros((64, 80), np.uint8)] * 17).shape == (0, 436)


def test_the_original_program_finds_the_same(shared_data: Path) -> None:
    """The first 40 frames of a real video; benchmarks/idt_reference.py compares all 360."""
    with open_source(shared_data / VIDEO, DecodeSpec()) as source:
        count = source.num_frames
        frames = [grey_frame(frame, 0) for frame in source.frames(np.arange(40))]
    ours = np.concatenate(list(trajectories(frames, count, TrajectorySpec())))
    with gzip.open(shared_data / REFERENCE, "rt") as file:
        theirs = np.array([line.split() for line in file], np.float64)
    theirs = theirs[theirs[:, 0] < 40]
    assert abs(len(ours) - len(theirs)) < 0.1 * len(theirs)
    gaps = np.hypot(ours[:, None, 1] - theirs[None, :, 1], ours[:, None, 2] - theirs[None, :, 2])
    gaps[(ours[:, None, 0] != theirs[None, :, 0]) | (np.abs(ours[:, None, 6] - theirs[None, :, 6]) > 0.01)] = np.inf
    nearest, distance = gaps.argmin(0), gaps.min(0)
    assert (distance < 2).mean() > 0.6
    close = distance < 0.1
    assert close.mean() > 0.2
    np.testing.assert_allclose(ours[nearest[close], 9], theirs[close, 9], atol=1e-5)
    for name, bound in {"trajectory": 0.06, "hog": 0.02, "hof": 0.08, "mbhx": 0.08, "mbhy": 0.08}.items():
        columns = IMPROVED.descriptor(name)
        error = np.linalg.norm(ours[nearest[close], columns] - theirs[close, columns], axis=1)
        assert error.mean() < bound * np.linalg.norm(theirs[close, columns], axis=1).mean() * (2 if name == "trajectory" else 1), name


@pytest.mark.parametrize("form", ["npy", "txt", "txt.gz"])
def test_files_hold_the_rows(tmp_path: Path, form: str) -> None:
    rows = np.random.default_rng(0).normal(size=(30, 436)).astype(np.float32)
    rows[:, 0] = np.arange(30)
    path = tmp_path / f"v.{form}"
    with write_rows(path, form) as writer:
        for block in np.array_split(rows, 4):
            writer.add(block)
    if form == "npy":
        np.testing.assert_array_equal(np.load(path, mmap_mode="r", allow_pickle=False), rows)
        return
    text = (gzip.decompress(path.read_bytes()) if form == "txt.gz" else path.read_bytes()).decode()
    assert text.splitlines()[3].startswith("3\t")
    np.testing.assert_allclose(np.array([line.split() for line in text.splitlines()], float), rows, atol=1e-6)


def test_an_error_leaves_no_file(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stop"), write_rows(tmp_path / "v.npy", "npy") as writer:
        writer.add(np.zeros((3, 436), np.float32))
        raise ValueError("stop")
    assert list(tmp_path.iterdir()) == []


def run(*words: object) -> Result:
    return CliRunner().invoke(cli, ["idt", *map(str, words)])


def test_the_command_writes_records_failures_and_goes_on(tmp_path: Path, encode_video: Encode) -> None:
    (tmp_path / "c").mkdir()
    frames = [np.repeat(frame[..., None], 3, 2) for frame in moving(18, (2, 0), patch=(4, 1))]
    encode_video(tmp_path / "c" / "a.avi", frames)
    encode_video(tmp_path / "c" / "small.avi", [frame[:24, :32] for frame in frames])
    (tmp_path / "c" / "broken.avi").write_bytes(b"no video")
    (tmp_path / "list.csv").write_text("path\nc/a.avi\nc/small.avi\nc/broken.avi\n")
    out = tmp_path / "tracks"
    result = run("extract", tmp_path / "list.csv", "-o", out, "--scales", "2", "--workers", "1", "--json")
    assert result.exit_code == 1, result.output
    summary = json.loads(result.stdout)
    assert (summary["done"], summary["frames"], summary["trajectories"]) == (1, 18, len(np.load(out / "c/a.avi.npy")))
    assert [summary["failed"][name][0] for name in ("c/small.avi", "c/broken.avi")] == ["track", "decode"]
    assert "32x24" in summary["failed"]["c/small.avi"][1]
    again = run("extract", tmp_path / "list.csv", "-o", out, "--scales", "2", "--json")
    assert again.exit_code == 1
    assert json.loads(again.stdout) == {**summary, "done": 0, "skipped": 1, "frames": 0, "trajectories": 0}
    encode_video(tmp_path / "c" / "less.avi", frames)
    (tmp_path / "short.csv").write_text("path\nc/less.avi\n")
    failures.append(out / FAILURES, failures.new_failure("c/less.avi", MEMORY, "out of memory", tmp_path / "c" / "less.avi"))
    assert json.loads(run("extract", tmp_path / "short.csv", "-o", out, "--scales", "2", "--workers", "1", "--json").stdout)["done"] == 1
    other = run("extract", tmp_path / "list.csv", "-o", out, "--scales", "3")
    assert "trajectories of other settings" in str(other.exception)
    assert "other things" in str(run("extract", tmp_path / "list.csv", "-o", tmp_path / "c").exception)
    assert json.loads((out / "trajectories.json").read_text())["trajectories"]["scales"] == 2
