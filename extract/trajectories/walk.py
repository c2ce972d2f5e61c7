"""Improved trajectories of one video, frame by frame (Wang & Schmid, ICCV 2013, sections 2 and 3)."""

from collections.abc import Iterable, Iterator

import cv2
import numpy as np

from extract.trajectories.camera import Keypoints, Matcher, followed_corners, homography, subtract_motion, warp_back
from extract.trajectories.pyramid import PyramidFlow, grey_pyramid, scale_sizes, smooth_pyramid
from extract.trajectories.spec import RATIO, TrajectorySpec
from extract.trajectories.tracks import ScaleTracks
from store.trajectory_format import IMPROVED, LENGTH


def trajectories(frames: Iterable[np.ndarray], num_frames: int, spec: TrajectorySpec) -> Iterator[np.ndarray]:
    """Yield the trajectories that end with each frame after the first: float32 [n, 436] by ``store.trajectory_format``, n may be 0.

    ``frames``: grey uint8 [H, W], both sides at least 32 pixels; ``num_frames``: how many there are, for the place in time. Memory: the
    points that are tracked, two frames, and two flows.
    """
    walker: _Walker | None = None
    for number, grey in enumerate(frames):
        if walker is None:
            walker = _Walker(grey, num_frames, spec)
        else:
            yield walker.step(number, grey)


class _Walker:
    """The last frame and the tracks that go on from it."""

    def __init__(self, grey: np.ndarray, num_frames: int, spec: TrajectorySpec) -> None:
        self._spec, self._num_frames = spec, num_frames
        self._sizes = scale_sizes(grey.shape[0], grey.shape[1], spec.scales)
        self._tracks = [ScaleTracks(spec, RATIO**number) for number in range(len(self._sizes))]
        self._flow = PyramidFlow()
        self._matcher = Matcher(spec.features)
        self._compensates = spec.camera != "none"
        self._grey, self._images = grey, grey_pyramid(grey, self._sizes)
        self._smooth = smooth_pyramid(grey, self._sizes)
        self._keypoints = self._find(grey)
        self._sample()

    def step(self, number: int, grey: np.ndarray) -> np.ndarray:
        """Track to frame ``number``; the finished trajectories, float32 [n, 436]."""
        smooth, keypoints = smooth_pyramid(grey, self._sizes), self._find(grey)
        flows = self._flow(self._smooth, smooth)
        compensated = self._without_camera(grey, keypoints, flows)
        found = [
            self._columns(tracks.step(image, flow, still), number, tracks.scale)
            for tracks, image, flow, still in zip(self._tracks, self._images, flows, compensated, strict=True)
        ]
        self._grey, self._images = grey, grey_pyramid(grey, self._sizes)
        self._smooth, self._keypoints = smooth, keypoints
        self._sample()
        return np.concatenate(found)

    def _find(self, grey: np.ndarray) -> Keypoints:
        return self._matcher.find(grey) if self._compensates else Keypoints(np.zeros((0, 2), np.float32), None)

    def _sample(self) -> None:
        for tracks, image in zip(self._tracks, self._images, strict=True):
            tracks.sample(image)

    def _without_camera(self, grey: np.ndarray, keypoints: Keypoints, flows: list[np.ndarray]) -> list[np.ndarray]:
        if not self._compensates:
            return flows
        matched, followed = self._matcher.match(self._keypoints, keypoints), followed_corners(self._grey, flows[0])
        first, second = (np.concatenate(pair) for pair in zip(matched, followed, strict=True))
        motion = homography(first, second)
        if motion is None:
            return flows
        if self._spec.camera == "subtract":
            return [subtract_motion(flow, motion, tracks.scale) for flow, tracks in zip(flows, self._tracks, strict=True)]
        return self._flow(self._smooth, smooth_pyramid(warp_back(self._grey, grey, motion), self._sizes))

    def _columns(self, rows: np.ndarray, number: int, scale: float) -> np.ndarray:
        """Put frame, scale and place before the descriptors."""
        height, width = self._grey.shape
        head = np.empty((len(rows), IMPROVED.header), np.float32)
        head[:, 0], head[:, 1:6], head[:, 6] = number, rows[:, :5], scale
        head[:, 7:9] = np.clip(rows[:, :2] / np.array([width, height], np.float32), 0, 0.999)
        head[:, 9] = (number - LENGTH / 2) / self._num_frames
        return np.concatenate([head, rows[:, 5:]], 1)


def grey_frame(frame: np.ndarray, short_side: int) -> np.ndarray:
    """RGB uint8 [H, W, 3] -> grey uint8, of the given short side where it is not 0."""
    grey = cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY)
    short = min(grey.shape)
    if short_side in (0, short):
        return grey
    height, width = (max(1, round(side * short_side / short)) for side in grey.shape)
    return cv2.resize(grey, (width, height), interpolation=cv2.INTER_AREA if short_side < short else cv2.INTER_LINEAR)
