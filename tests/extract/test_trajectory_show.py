"""The picture of a video's trajectories, and the group of commands that two packages bring."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
from click.testing import CliRunner
from PIL import Image

from cli import IDT, cli
from extract.trajectories.show import NOW, paths, shown_frames
from store.trajectory_format import IMPROVED

Encode = Callable[..., Path]


def square(frames: int) -> list[np.ndarray]:
    """A textured square that moves to the right by 3 pixels a frame, before a textured wall (else it would be the scene)."""
    generator = np.random.default_rng(0)
    noise = generator.integers(0, 255, (10, 10, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    wall = generator.integers(0, 90, (25, 40, 3)).astype(np.uint8).repeat(4, 0).repeat(4, 1)
    found = np.stack([wall] * frames)
    for number in range(frames):
        found[number, 30:70, 10 + 3 * number : 50 + 3 * number] = noise
    return list(found)


def test_the_points_are_drawn_where_the_square_is(tmp_path: Path, encode_video: Encode) -> None:
    video = encode_video(tmp_path / "v.avi", square(24), options={"qscale": "2"})
    result = CliRunner().invoke(cli, ["idt", "show", str(video), "-o", str(tmp_path / "p.png"), "--frames", "2", "--height", "100"])
    assert result.exit_code == 0, result.output
    assert [line.split()[1] for line in result.stdout.splitlines()[:2]] == ["6", "18"]
    picture = np.asarray(Image.open(tmp_path / "p.png"))
    red = (np.abs(picture.astype(int) - NOW) < 90).all(2)
    columns = np.nonzero(red[70:175])[1]  # below the title; the frames begin at x = 18 and x = 188
    first, second = columns[columns < 178] - 18, columns[columns >= 188] - 188
    assert min(len(first), len(second)) > 20
    assert abs(np.median(first) - 48) < 12  # the middle of the square in frame 6
    assert abs(np.median(second) - 84) < 12


def test_frames_are_the_middles_of_equal_parts() -> None:
    assert shown_frames(100, 4) == [12, 37, 62, 87]
    assert shown_frames(2, 5) == [0, 1]


def test_paths_have_the_shape_of_the_file_around_the_mean_point() -> None:
    row = np.zeros((1, IMPROVED.count), np.float32)
    row[0, [1, 2, 5]] = 50, 20, 30
    row[0, IMPROVED.descriptor("trajectory")] = np.tile([1 / 15, 0], 15)
    np.testing.assert_allclose(paths(row)[0], np.stack([50 + 2 * (np.arange(16) - 7.5), np.full(16, 20.0)], 1), atol=1e-4)


def test_a_file_that_is_no_picture_is_refused(tmp_path: Path) -> None:
    result = CliRunner().invoke(cli, ["idt", "show", "v.avi", "-o", str(tmp_path / "p.gif")])
    assert "pictures are written as .png" in str(result.exception)


def test_the_help_of_the_group_names_every_command_and_loads_no_package() -> None:
    code = "import sys, cli\ntry:\n  cli.cli(['idt', '--help'])\nfinally:\n  print(sorted({'torch', 'cv2', 'sklearn'} & set(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert all(f"  {name} " in run.stdout for section in IDT.values() for name in section)
    assert run.stdout.splitlines()[-1] == "[]"
