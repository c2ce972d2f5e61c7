"""Images of one frame from fine to coarse, and the flow between two frames at every scale in one pass from coarse to fine."""

import cv2
import numpy as np

from extract.trajectories.spec import PATCH, RATIO

# Farneback's flow as dense trajectories use it; the median over 5 x 5 pixels is what lets points follow sharp edges of motion.
WINDOW, ITERATIONS, POLY_N, POLY_SIGMA, MEDIAN = 10, 2, 7, 1.5, 5


def scale_sizes(height: int, width: int, scales: int) -> list[tuple[int, int]]:
    """(height, width) of at most ``scales`` images, each 1/sqrt(2) of the one before, as long as both sides have 32 pixels."""
    sizes = []
    for number in range(scales):
        factor = RATIO**number
        if number and min(height, width) / factor < PATCH:
            break
        sizes.append((max(PATCH, round(height / factor)), max(PATCH, round(width / factor))))
    return sizes


def grey_pyramid(grey: np.ndarray, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """Grey uint8 images of these sizes, each from the one before, bilinearly."""
    images = [grey]
    for height, width in sizes[1:]:
        images.append(cv2.resize(images[-1], (width, height), interpolation=cv2.INTER_LINEAR))
    return images


def smooth_pyramid(grey: np.ndarray, sizes: list[tuple[int, int]]) -> list[np.ndarray]:
    """float32 images for the flow: the frame smoothed for each scale, then resized, as Farneback's pyramid does."""
    image = grey.astype(np.float32)
    images: list[np.ndarray] = [image]
    for number, (height, width) in enumerate(sizes[1:], 1):
        sigma = (RATIO**number - 1) / 2
        side = max(3, round(5 * sigma) | 1)
        smooth = cv2.GaussianBlur(image, (side, side), sigma)
        images.append(cv2.resize(smooth, (width, height), interpolation=cv2.INTER_LINEAR))
    return images


class PyramidFlow:
    """Farneback's flow, median filtered, at every scale: each scale starts from the next coarser one's flow."""

    def __init__(self) -> None:
        flags = cv2.OPTFLOW_FARNEBACK_GAUSSIAN | cv2.OPTFLOW_USE_INITIAL_FLOW
        self._level = cv2.FarnebackOpticalFlow.create(0, 0.5, False, WINDOW, ITERATIONS, POLY_N, POLY_SIGMA, flags)

    def __call__(self, first: list[np.ndarray], second: list[np.ndarray]) -> list[np.ndarray]:
        """Motion from ``first`` to ``second`` (``smooth_pyramid``) in pixels of each scale: float32 [h, w, 2] each, from fine to coarse."""
        flows: list[np.ndarray] = []
        flow = np.zeros((*first[-1].shape, 2), np.float32)
        for one, other in zip(reversed(first), reversed(second), strict=True):
            height, width = one.shape
            if flow.shape[:2] != one.shape:
                growth = np.array([width / flow.shape[1], height / flow.shape[0]], np.float32)
                flow = cv2.resize(flow, (width, height), interpolation=cv2.INTER_LINEAR) * growth
            flow = cv2.medianBlur(self._level.calc(one, other, flow), MEDIAN)
            flows.append(flow)
        return flows[::-1]
