"""A picture of a video's trajectories: frames from equal parts of it, over each the tracks that pass through it."""

import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from extract.flow_picture import FORMATS, check_suffix
from extract.page import GAP, MARGIN, Cell, Page, Row
from extract.spec import DecodeSpec
from extract.trajectories.spec import TrajectorySpec
from extract.trajectories.walk import grey_frame, trajectories
from extract.trajectories.write import check_size
from extract.video import VideoSource, open_source
from store.files import write_bytes
from store.trajectory_format import IMPROVED, LENGTH

PAST, NOW = (60, 230, 60), (255, 40, 40)  # RGB: the way so far, and where the point is
FADED = 0.5  # of the frame's brightness, so that lines are seen
ACROSS = 3  # frames in a row
NARROWEST = 640  # pixels: room for the title
SWATCH = 12


@dataclass(frozen=True, eq=False)
class Tracked:
    """Some frames of a video, RGB by their number, and all of its trajectories without descriptors: float32 [n, 40]."""

    frames: dict[int, np.ndarray]
    rows: np.ndarray
    num_frames: int
    height: int  # of the frames that were tracked

    def passing(self, number: int) -> np.ndarray:
        """The trajectories that end at a frame or later, and began before it."""
        return self.rows[(self.rows[:, 0] >= number) & (self.rows[:, 0] < number + LENGTH)]


def show(video: Path, output: Path, spec: TrajectorySpec, decode: DecodeSpec, count: int, height: int) -> list[str]:
    """Draw ``count`` frames of a video, each ``height`` pixels high, with its tracks; what can be said of them in words, line by line.

    Raises ``DecodeError`` or ``FeatureError`` for a video that cannot be tracked, ``SpecError`` for a suffix that is no picture's.
    """
    check_suffix(output)
    with open_source(video, decode) as source:
        check_size(source, spec)
        tracked = track(source, spec, count)
    data = io.BytesIO()
    Image.fromarray(page(video.name, tracked, height)).save(data, FORMATS[output.suffix.lower()], quality=92)
    write_bytes(output, data.getvalue())
    return [f"frame {number:6} {len(tracked.passing(number)):7} trajectories" for number in tracked.frames]


def track(source: VideoSource, spec: TrajectorySpec, count: int) -> Tracked:
    """Track a whole video, keeping the frames that are shown."""
    kept = dict.fromkeys(shown_frames(source.num_frames, count), np.zeros((0, 0, 3), np.uint8))
    height = 0

    def grey() -> Iterator[np.ndarray]:
        nonlocal height
        for number, frame in enumerate(source.frames(np.arange(source.num_frames))):
            if number in kept:
                kept[number] = frame
            image = grey_frame(frame, spec.short_side)
            height = len(image)
            yield image

    found = [rows[:, : IMPROVED.descriptor("trajectory").stop].copy() for rows in trajectories(grey(), source.num_frames, spec)]
    rows = np.concatenate(found) if found else np.zeros((0, IMPROVED.descriptor("trajectory").stop), np.float32)
    return Tracked(kept, rows, source.num_frames, height)


def shown_frames(num_frames: int, count: int) -> list[int]:
    """The middles of ``count`` equal parts, each once."""
    return sorted({int((number + 0.5) * num_frames / count) for number in range(count)})


def paths(rows: np.ndarray) -> np.ndarray:
    """Points of trajectories, float64 [n, 16, 2]: the shape that a file holds (without the camera's motion) around the mean position."""
    steps = rows[:, IMPROVED.descriptor("trajectory")].reshape(-1, LENGTH, 2).astype(np.float64) * rows[:, 5, None, None]
    points = np.concatenate([np.zeros((len(rows), 1, 2)), steps.cumsum(1)], 1)
    middle: np.ndarray = points - points.mean(1, keepdims=True) + rows[:, None, 1:3]
    return middle


def draw(tracked: Tracked, number: int, height: int) -> np.ndarray:
    """RGB uint8: a frame, ``height`` pixels high, with the way of each passing track up to this frame."""
    frame = tracked.frames[number]
    width = max(1, round(frame.shape[1] * height / frame.shape[0]))
    picture = (cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA) * FADED).astype(np.uint8)
    rows = tracked.passing(number)
    points = paths(rows) * (height / max(1, tracked.height))
    last = (LENGTH - (rows[:, 0] - number)).astype(int).tolist()  # the point at this frame
    for path, end in zip(points, last, strict=True):
        line = np.rint(path[: end + 1] * 16).astype(np.int32)  # sixteenths of a pixel
        cv2.polylines(picture, [line.reshape(-1, 1, 2)], False, PAST, 1, cv2.LINE_AA, shift=4)
    for path, end in zip(points, last, strict=True):
        x, y = np.rint(path[end]).astype(int).tolist()
        cv2.circle(picture, (x, y), 1, NOW, -1, cv2.LINE_AA)
    return picture


def page(name: str, tracked: Tracked, height: int) -> np.ndarray:
    """RGB uint8: the frames, three in a row, with their numbers, and what the colours are."""
    numbers = list(tracked.frames)
    cells = [Cell(draw(tracked, number, height), (f"frame {number}, {len(tracked.passing(number))} trajectories",)) for number in numbers]
    across = min(ACROSS, len(cells))
    lines = [cells[start : start + across] for start in range(0, len(cells), across)]
    widths = [max(cell.width for cell in cells)] * across
    sheet = Page(max(sum(widths) + GAP * (across - 1), NARROWEST) + 2 * MARGIN)
    sheet.title(
        f"{name}: {len(tracked.rows)} improved trajectories in {tracked.num_frames} frames",
        "those of all scales that pass through the frame",
    )
    for line in lines:
        sheet.row(Row((), tuple(line)), MARGIN, widths[: len(line)])
    swatch = np.full((3 * SWATCH, SWATCH, 3), 255, np.uint8)
    swatch[:SWATCH], swatch[2 * SWATCH :] = NOW, PAST
    words = ["the point in this frame", "its way there, at most 14 frames long, without the camera's motion"]
    sheet.legend(words, swatch)
    return sheet.image()
