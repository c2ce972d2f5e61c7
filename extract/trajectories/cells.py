"""Histograms of orientations in the cells around points: HOG, HOF and MBH of one frame, for all points at once."""

import cv2
import numpy as np

from extract.trajectories.spec import BINS, CELL, CELLS, PATCH

STILL_PIXELS = 0.4  # HOF: shorter displacements count in the ninth bin
FLOOR = 0.05  # added to every sum, so that a patch without any gradient has equal shares


def histogram_image(x: np.ndarray, y: np.ndarray, bins: int, still: float | None = None) -> np.ndarray:
    """Each pixel's vector (x, y) as a histogram of orientations: float32 [h, w, bins].

    The vector's length goes to the two neighbouring bins, each the more the nearer it is; bin b stands for the angle 2 pi b / bins. With
    ``still`` the last bin holds 1 for every vector not longer than that, and the others divide the circle among them.
    """
    height, width = x.shape
    around = bins if still is None else bins - 1
    length, angle = cv2.cartToPolar(x, y)
    place = angle.ravel() * (around / (2 * np.pi))
    lower = place.astype(np.int32)
    part = place - lower
    lower %= around
    upper = (lower + 1) % around
    length = length.ravel()
    histograms = np.zeros(height * width * bins, np.float32)
    first = np.arange(0, height * width * bins, bins)
    if still is None:
        histograms[first + lower] = length * (1 - part)
        histograms[first + upper] = length * part
    else:
        moves = length > still
        histograms[(first + lower)[moves]] = (length * (1 - part))[moves]
        histograms[(first + upper)[moves]] = (length * part)[moves]
        histograms[first[~moves] + around] = 1
    return histograms.reshape(height, width, bins)


def gradients(image: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Central differences along x and y, float32 [h, w] each."""
    return cv2.Sobel(image, cv2.CV_32F, 1, 0, ksize=1), cv2.Sobel(image, cv2.CV_32F, 0, 1, ksize=1)


def cell_corners(points: np.ndarray, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns, int64 [n, 4], of the upper left corners of each point's cells: cells from the left, in each column from the top.

    The patch has the rounded point in its middle and is moved inside the image where it would reach beyond.
    """
    corner = np.rint(points).astype(np.int64) - PATCH // 2
    columns = np.clip(corner[:, 0], 0, width - PATCH)
    rows = np.clip(corner[:, 1], 0, height - PATCH)
    across, down = np.divmod(np.arange(CELLS * CELLS), CELLS)
    return rows[:, None] + down * CELL, columns[:, None] + across * CELL


def cell_histograms(histograms: np.ndarray, rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
    """Sums over cells of 16 x 16 pixels: float32 [n, 4 * bins], from the upper left corners ``rows`` and ``columns`` [n, 4]."""
    sums = cv2.boxFilter(histograms, -1, (CELL, CELL), anchor=(0, 0), normalize=False, borderType=cv2.BORDER_CONSTANT)
    return sums[rows, columns].reshape(len(rows), -1)


def normalised(sums: np.ndarray, norm: str) -> np.ndarray:
    """Each row's non-negative sums by ``TrajectorySpec.norm``, float32: length 1."""
    sums = np.maximum(sums, 0) + np.float32(FLOOR)
    if norm == "rootsift":
        return np.sqrt(sums / sums.sum(1, keepdims=True))
    return sums / np.linalg.norm(sums, axis=1, keepdims=True)


def frame_descriptors(grey: np.ndarray, flow: np.ndarray, points: np.ndarray, norm: str) -> np.ndarray:
    """HOG, HOF, MBHx and MBHy of the patches around ``points`` [n, 2] (x, y) in one frame: float32 [n, 132].

    ``grey`` uint8 [h, w] and ``flow`` float32 [h, w, 2] (without the camera's motion), both at the points' scale.
    """
    rows, columns = cell_corners(points, *grey.shape)
    flow_x, flow_y = (np.ascontiguousarray(flow[..., axis]) for axis in (0, 1))
    images = {
        "hog": (*gradients(grey), None),
        "hof": (flow_x, flow_y, STILL_PIXELS),
        "mbhx": (*gradients(flow_x), None),
        "mbhy": (*gradients(flow_y), None),
    }
    parts = []
    for name, (x, y, still) in images.items():
        sums = cell_histograms(histogram_image(x, y, BINS[name], still), rows, columns)
        parts.append(normalised(sums, norm))
    return np.concatenate(parts, 1)
