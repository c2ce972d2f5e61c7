"""The points that are being tracked at one scale, all in arrays, and which of the finished tracks are kept."""

import cv2
import numpy as np

from extract.trajectories.cells import frame_descriptors
from extract.trajectories.spec import BINS, CELLS, STEPS_PER_CELL, TrajectorySpec
from store.trajectory_format import LENGTH

WIDTHS = tuple(bins * CELLS * CELLS for bins in BINS.values())
TIMES = LENGTH // STEPS_PER_CELL
MIN_DEVIATION, MAX_DEVIATION = 3**0.5, 50.0  # pixels of the video: standing still, jumping about
MAX_STEP, MAX_SHARE = 20.0, 0.7  # a step of so many pixels that is so great a part of the path is an error of the flow
MIN_MOTION = 1.0  # pixels of the video: without a greater step, camera's motion taken away, a track is the background


def sample_points(grey: np.ndarray, tracked: np.ndarray, grid: int, quality: float) -> np.ndarray:
    """New points float32 [m, 2] (x, y): the middles of the grid's squares that hold no point of ``tracked`` [n, 2] and have texture.

    Texture: the smaller eigenvalue of the gradients' matrix (Shi & Tomasi) is above ``quality`` times the frame's largest.
    """
    eigenvalues = cv2.cornerMinEigenVal(grey, 3, ksize=3)
    down, across = grey.shape[0] // grid, grey.shape[1] // grid
    columns, rows = (tracked // grid).astype(np.int64).T
    inside = (columns < across) & (rows < down)
    taken = np.zeros((down, across), bool)
    taken[rows[inside], columns[inside]] = True
    middles = eigenvalues[grid // 2 :: grid, grid // 2 :: grid][:down, :across]
    row, column = np.nonzero(~taken & (middles > quality * eigenvalues.max()))
    return np.stack([column * grid + grid // 2, row * grid + grid // 2], 1).astype(np.float32)


class ScaleTracks:
    """Tracks of one scale. Positions are in pixels of the scale's image; ``scale`` takes them to pixels of the video."""

    def __init__(self, spec: TrajectorySpec, scale: float) -> None:
        self.scale = scale
        self._spec = spec
        self._age = np.zeros(0, np.int64)
        self._points = np.zeros((0, LENGTH + 1, 2), np.float32)
        self._motion = np.zeros((0, LENGTH, 2), np.float32)  # along the track, without the camera's
        self._slots = np.zeros(0, np.int64)  # where a track's sums are: moved about, they would be most of the bytes
        self._free = np.zeros(0, np.int64)
        self._sums = np.zeros((0, TIMES, sum(WIDTHS)), np.float32)

    def __len__(self) -> int:
        return len(self._age)

    def positions(self) -> np.ndarray:
        """Where the tracked points are now: float32 [n, 2]."""
        return self._points[np.arange(len(self)), self._age]

    def sample(self, grey: np.ndarray) -> None:
        """Begin tracks at points of the frame, uint8 [h, w], that are not tracked yet."""
        new = sample_points(grey, self.positions(), self._spec.grid, self._spec.quality)
        points = np.zeros((len(new), LENGTH + 1, 2), np.float32)
        points[:, 0] = new
        self._age = np.concatenate([self._age, np.zeros(len(new), np.int64)])
        self._points = np.concatenate([self._points, points])
        self._motion = np.concatenate([self._motion, np.zeros((len(new), LENGTH, 2), np.float32)])
        self._slots = np.concatenate([self._slots, self._take(len(new))])

    def step(self, grey: np.ndarray, flow: np.ndarray, compensated: np.ndarray) -> np.ndarray:
        """Follow the flow from the frame ``grey`` to the next; float32 [m, 5 + 30 + 396] of the tracks that are complete and kept.

        ``flow`` moves the points, ``compensated`` (without the camera's motion) is described. The columns are those of a file's, without
        frame, scale and place in the video.
        """
        height, width = grey.shape
        places = self.positions()
        columns, rows = np.rint(places).astype(np.int64).T
        columns, rows = columns.clip(0, width - 1), rows.clip(0, height - 1)
        every = np.arange(len(self))
        if len(self):
            self._sums[self._slots, self._age // STEPS_PER_CELL] += frame_descriptors(grey, compensated, places, self._spec.norm)
        self._motion[every, self._age] = compensated[rows, columns]
        moved = places + flow[rows, columns]
        self._age += 1
        self._points[every, self._age] = moved
        inside = (moved > 0).all(1) & (moved[:, 0] < width) & (moved[:, 1] < height)
        complete = self._age == LENGTH
        rows_of_file = self._finish(np.flatnonzero(inside & complete))
        self._drop(~inside | complete)
        return rows_of_file

    def _finish(self, chosen: np.ndarray) -> np.ndarray:
        header, kept = describe_paths(self._points[chosen] * np.float32(self.scale))
        motion = self._motion[chosen] * np.float32(self.scale)
        steps = np.linalg.norm(motion, axis=2)
        if self._spec.camera != "none":
            kept &= steps.max(1, initial=0) > MIN_MOTION
        chosen, motion, steps = chosen[kept], motion[kept], steps[kept]
        shape = motion / steps.sum(1)[:, None, None]
        sums = self._sums[self._slots[chosen]] / np.float32(STEPS_PER_CELL)
        cells = np.split(sums, np.cumsum(WIDTHS)[:-1], axis=2)
        parts = [
            header[kept],
            shape.reshape(len(chosen), 2 * LENGTH),
            *(part.reshape(len(chosen), TIMES * part.shape[2]) for part in cells),
        ]
        return np.concatenate(parts, 1, dtype=np.float32)

    def _drop(self, gone: np.ndarray) -> None:
        self._free = np.concatenate([self._free, self._slots[gone]])
        self._age, self._points, self._motion, self._slots = (
            array[~gone] for array in (self._age, self._points, self._motion, self._slots)
        )

    def _take(self, count: int) -> np.ndarray:
        """Slots for new tracks, with sums of zero."""
        if (lacking := count - len(self._free)) > 0:
            lacking = max(lacking, len(self._sums) // 2)
            self._free = np.concatenate([self._free, np.arange(len(self._sums), len(self._sums) + lacking)])
            self._sums = np.concatenate([self._sums, np.zeros((lacking, *self._sums.shape[1:]), np.float32)])
        slots, self._free = self._free[:count], self._free[count:]
        self._sums[slots] = 0
        return slots


def describe_paths(points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean x and y, deviation x and y, and length of paths [n, steps + 1, 2] in pixels: float64 [n, 5]; and which paths are kept: bool [n].

    Not kept: points that hardly move, that are spread too far, and paths of which one great step is the largest part.
    """
    points = points.astype(np.float64)
    deviation = points.std(1)
    steps = np.linalg.norm(np.diff(points, axis=1), axis=2)
    length, longest = steps.sum(1), steps.max(1, initial=0)
    kept = (deviation >= MIN_DEVIATION).any(1) & (deviation <= MAX_DEVIATION).all(1)
    kept &= ~((longest > MAX_STEP) & (longest > MAX_SHARE * length))
    return np.concatenate([points.mean(1), deviation, length[:, None]], 1), kept
