"""Our improved trajectories beside those that the original program wrote for the same video: how many, which are the same, how near."""

import gzip
import sys

import cv2
import numpy as np
from figures import report
from material import DATA

from extract.spec import DecodeSpec
from extract.trajectories.spec import TrajectorySpec
from extract.trajectories.walk import grey_frame, trajectories
from extract.video import open_source
from store.trajectory_format import BY_COUNT, DESCRIPTORS, IMPROVED, LENGTH, Columns

VIDEO = DATA / "videos/kth/person01_boxing_d1_uncomp.avi"
FILES = {"improved 2013": "improved_trajectories", "dense 2011": "dense_trajectories_2011"}
SETTINGS = {
    "improved 2013": TrajectorySpec(),
    "dense 2011": TrajectorySpec(camera="none", norm="l2", features="none"),
}
NEAR = (0.1, 0.5, 1.0, 2.0)  # pixels


def ours(spec: TrajectorySpec) -> np.ndarray:
    """float32 [n, 436]."""
    with open_source(VIDEO, DecodeSpec()) as source:
        grey = (grey_frame(frame, 0) for frame in source.frames(np.arange(source.num_frames)))
        return np.concatenate(list(trajectories(grey, source.num_frames, spec)))


def theirs(name: str) -> np.ndarray:
    """float64 [n, 436 or 433]."""
    with gzip.open(DATA / "idt" / f"person01_boxing_d1.{FILES[name]}.txt.gz", "rt") as file:
        return np.array([line.split() for line in file], np.float64)


def paths(rows: np.ndarray, columns: Columns) -> np.ndarray:
    """Points [n, 16, 2] in pixels, from shape, length and mean position."""
    steps = rows[:, columns.descriptor("trajectory")].reshape(-1, LENGTH, 2) * rows[:, 5, None, None]
    points = np.concatenate([np.zeros((len(rows), 1, 2)), steps.cumsum(1)], 1)
    return points - points.mean(1, keepdims=True) + rows[:, None, 1:3]


def pairs(first: np.ndarray, second: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each row of ``second`` the row of ``first`` with the same last frame and scale whose mean point is nearest, and how far it is."""
    nearest, distance = np.zeros(len(second), int), np.full(len(second), np.inf)
    for frame in np.unique(second[:, 0]):
        one, other = np.flatnonzero(first[:, 0] == frame), np.flatnonzero(second[:, 0] == frame)
        if len(one):
            gaps = np.hypot(*(first[one, None, axis] - second[None, other, axis] for axis in (1, 2)))
            gaps[np.abs(first[one, None, 6] - second[None, other, 6]) > 0.01] = np.inf
            nearest[other], distance[other] = one[gaps.argmin(0)], gaps.min(0)
    return nearest, distance


def compare(name: str) -> None:
    """Print the figures of one of the original programs."""
    reference, found = theirs(name), ours(SETTINGS[name])
    columns = BY_COUNT[reference.shape[1]]
    if name == "dense 2011":  # a scale of 4 and more is below 32 pixels here; the program of 2011 tracked there, too
        reference = reference[reference[:, 6] < 3.9]
    report(f"IDT: number of trajectories, of {len(reference)}", len(found) / len(reference), "ratio", name)
    nearest, distance = pairs(found, reference)
    for pixels in NEAR:
        share = float((distance < pixels).mean())
        report(f"IDT: trajectories that we find, too: same frames and scale, mean point within {pixels:g} px", share, "share", name)
    same = distance < 1
    mine, other = found[nearest[same]], reference[same]
    error = np.linalg.norm(paths(mine, IMPROVED) - paths(other, columns), axis=2).mean()
    report("IDT: mean distance of the points of trajectories within 1 px", float(error), "px", name)
    for descriptor in DESCRIPTORS:
        one, two = mine[:, IMPROVED.descriptor(descriptor)], other[:, columns.descriptor(descriptor)]
        relative = np.linalg.norm(one - two, axis=1) / np.linalg.norm(two, axis=1)
        report(
            f"IDT: {descriptor}, median of ||ours - theirs|| / ||theirs|| of trajectories within 1 px",
            float(np.median(relative)),
            "ratio",
            name,
        )


if __name__ == "__main__":
    if not VIDEO.is_file():
        sys.exit(f"no reference data at {DATA}; see docs/testing.md")
    cv2.setNumThreads(1)
    for each in FILES:
        compare(each)
