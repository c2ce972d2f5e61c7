"""The camera's motion between two frames: a homography from matched features and from corners that the flow follows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

WINDOW = 25.0  # pixels: features farther apart are never matched
FEATURES = 1000  # of a frame, at most
CORNERS, CORNER_QUALITY, CORNER_DISTANCE = 1000, 0.001, 3  # corners that the flow follows
RANSAC_PIXELS = 1.0
MIN_POINTS, MIN_INLIERS = 50, 25  # with fewer a homography means nothing


@dataclass(frozen=True)
class Keypoints:
    """Features of a frame: positions float32 [n, 2], descriptors [n, d] or None where there are none."""

    points: np.ndarray
    descriptors: np.ndarray | None


class Matcher:
    """Finds features and matches those of two frames; ``kind`` "none" finds none."""

    def __init__(self, kind: str) -> None:
        makers: dict[str, Callable[[int], Any]] = {"orb": cv2.ORB.create, "sift": cv2.SIFT.create}
        self._detector = makers[kind](FEATURES) if kind != "none" else None
        self._matcher = cv2.BFMatcher(cv2.NORM_L2 if kind == "sift" else cv2.NORM_HAMMING)

    def find(self, grey: np.ndarray) -> Keypoints:
        """Features of a frame, uint8 [H, W]."""
        if self._detector is None:
            return Keypoints(np.zeros((0, 2), np.float32), None)
        points, descriptors = self._detector.detectAndCompute(grey, None)
        return Keypoints(np.array([point.pt for point in points], np.float32).reshape(-1, 2), descriptors)

    def match(self, first: Keypoints, second: Keypoints) -> tuple[np.ndarray, np.ndarray]:
        """Positions [m, 2] in the first frame and in the second: for each feature of the first the nearest by descriptor within 25 px."""
        if first.descriptors is None or second.descriptors is None:
            return first.points[:0], second.points[:0]
        near = (np.abs(first.points[:, None] - second.points[None]) < WINDOW).all(2)
        matches = self._matcher.match(first.descriptors, second.descriptors, near.astype(np.uint8))
        pairs = np.array([(found.queryIdx, found.trainIdx) for found in matches], np.int64).reshape(-1, 2)
        return first.points[pairs[:, 0]], second.points[pairs[:, 1]]


def followed_corners(grey: np.ndarray, flow: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Corners of a frame, float32 [m, 2], and where the flow [H, W, 2] takes them."""
    found = cv2.goodFeaturesToTrack(grey, CORNERS, CORNER_QUALITY, CORNER_DISTANCE)
    points = np.zeros((0, 2), np.float32) if found is None else np.asarray(found, np.float32).reshape(-1, 2)
    columns, rows = np.rint(points).astype(np.int64).T
    return points, points + flow[rows.clip(0, len(flow) - 1), columns.clip(0, flow.shape[1] - 1)]


def homography(first: np.ndarray, second: np.ndarray) -> np.ndarray | None:
    """float64 [3, 3] that takes points [m, 2] of the first frame to the second by RANSAC; None where too few agree."""
    if len(first) <= MIN_POINTS:
        return None
    found, inliers = cv2.findHomography(first, second, cv2.RANSAC, RANSAC_PIXELS)
    if found is None or np.count_nonzero(inliers) <= MIN_INLIERS or not np.isfinite(found).all() or abs(np.linalg.det(found)) < 1e-6:
        return None
    return np.asarray(found)


def warp_back(first: np.ndarray, second: np.ndarray, motion: np.ndarray) -> np.ndarray:
    """The second frame as the camera of the first would have seen it, uint8 [H, W]; what it did not see is as in the first frame."""
    height, width = first.shape
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return cv2.warpPerspective(second, motion, (width, height), first.copy(), flags, cv2.BORDER_TRANSPARENT)


def subtract_motion(flow: np.ndarray, motion: np.ndarray, scale: float) -> np.ndarray:
    """The flow float32 [h, w, 2] at a scale without the camera's motion: its end, seen from the first camera, minus its beginning."""
    height, width = flow.shape[:2]
    begin = np.stack(np.meshgrid(np.arange(width), np.arange(height)), 2).astype(np.float32)
    ends = ((begin + flow) * scale).reshape(1, -1, 2)
    seen = cv2.perspectiveTransform(ends, np.linalg.inv(motion)).reshape(height, width, 2) / scale
    return (seen - begin).astype(np.float32)
