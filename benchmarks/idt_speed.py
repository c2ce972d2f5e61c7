"""Time of our improved trajectories for each frame, beside OpenCV's Farneback flow alone at the same scales; and of reading files."""

import itertools
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from figures import alternate, report
from material import DATA

from extract.spec import DecodeSpec
from extract.trajectories.files import write_rows
from extract.trajectories.pyramid import ITERATIONS, POLY_N, POLY_SIGMA, WINDOW, scale_sizes
from extract.trajectories.spec import RATIO, TrajectorySpec
from extract.trajectories.walk import grey_frame, trajectories
from extract.video import open_source
from fusion.idt.reader import read_blocks

VIDEO = DATA / "videos/ut_interaction/set1/0_1_4.avi"
FRAMES = range(40, 65)  # both people move
CAMERAS = {"recompute": "as published: flow twice", "subtract": "flow once", "none": "camera's motion left in"}


def farneback(frames: list[np.ndarray]) -> None:
    """OpenCV's flow of every pair, one call each, as many levels as trajectories have scales."""
    levels = len(scale_sizes(*frames[0].shape, 8)) - 1
    for one, other in itertools.pairwise(frames):
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN
        cv2.calcOpticalFlowFarneback(one, other, None, 1 / RATIO, levels, WINDOW, ITERATIONS, POLY_N, POLY_SIGMA, flags)


def speed(frames: list[np.ndarray]) -> None:
    """Print what trajectories cost."""

    def tracked(camera: str) -> int:
        return sum(len(rows) for rows in trajectories(frames, len(frames), TrajectorySpec(camera=camera)))

    flow, *ours = alternate(lambda: farneback(frames), *(lambda camera=camera: tracked(camera) for camera in CAMERAS))
    size = f"{frames[0].shape[1]}x{frames[0].shape[0]}, one thread"
    report("IDT: Farneback alone", 1000 * flow / (len(frames) - 1), "ms a frame", size)
    for (camera, words), seconds in zip(CAMERAS.items(), ours, strict=True):
        against = f"OpenCV's Farneback alone at the same scales; {size}"
        report(f"IDT: improved trajectories, camera {camera} ({words})", seconds / flow, "times", against)


def reading() -> None:
    """Print what reading files costs."""
    rows = np.random.default_rng(0).normal(size=(6000, 436)).astype(np.float32)
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"v.{form}" for form in ("npy", "txt", "txt.gz")]
        for path in paths:
            with write_rows(path, path.name.partition(".")[2]) as writer:
                writer.add(rows)
        loadtxt, *ours = alternate(
            lambda: np.loadtxt(paths[1], np.float32),
            *(lambda path=path: sum(len(block) for _, block in read_blocks(path)) for path in paths),
        )
        for path, seconds in zip(paths, ours, strict=True):
            report(f"IDT: reading {path.name[2:]}, checked", len(rows) / seconds, "trajectories/s", "one thread")
            report(
                f"IDT: reading {path.name[2:]}, checked, against numpy.loadtxt of the text",
                loadtxt / seconds,
                "times",
                "same rows, one thread",
            )


if __name__ == "__main__":
    cv2.setNumThreads(1)
    reading()
    if not VIDEO.is_file():
        sys.exit(f"no video at {DATA}; see docs/testing.md")
    with open_source(VIDEO, DecodeSpec()) as opened:
        speed([grey_frame(frame, 0) for frame in opened.frames(np.array(FRAMES))])
