"""Pictures of videos for people: a strip of frames as one JPEG each, for reports."""

from pathlib import Path

import cv2
import numpy as np

from extract.clips import clip_indices
from extract.spec import ClipSpec, DecodeSpec
from extract.video import open_source
from store.errors import DecodeError, SpecError
from store.files import write_bytes
from store.progress import Progress
from store.videos import VideoList


def write_strips(videos: VideoList, folder: Path, count: int = 4, height: int = 112) -> dict[str, str]:
    """Write ``folder/ID.jpg`` for every video: ``count`` frames from equal parts of it, side by side, ``height`` pixels high.

    Returns ``{id: reason}`` of the videos that do not decode or whose picture cannot be written (an id too long for a file name). An id
    that leads out of the folder raises ``SpecError`` before anything is written.
    """
    targets = {video.id: picture_path(folder, video.id) for video in videos}
    failed: dict[str, str] = {}
    with Progress("pictures", len(videos)) as progress:
        for video in videos:
            try:
                strip = frame_strip(video.path, count, height)
                targets[video.id].parent.mkdir(parents=True, exist_ok=True)
                write_bytes(targets[video.id], cv2.imencode(".jpg", strip[:, :, ::-1])[1].tobytes())
            except DecodeError as error:
                failed[video.id] = str(error)
            except OSError as error:
                failed[video.id] = f"the picture cannot be written into {folder}: {error.strerror or error}"
            progress.advance()
    return failed


def frame_strip(path: Path, count: int, height: int) -> np.ndarray:
    """RGB uint8 [height, W, 3]: the centre frames of ``count`` equal parts of a video, side by side."""
    with open_source(path, DecodeSpec()) as source:
        indices = clip_indices(source.num_frames, ClipSpec(rule="segments", segments=count))[:, 0]
        frames = dict(zip(np.unique(indices).tolist(), source.frames(np.unique(indices)), strict=True))
        width = max(1, round(source.width * height / source.height))
        return np.hstack([cv2.resize(frames[index], (width, height), interpolation=cv2.INTER_AREA) for index in indices.tolist()])


def picture_path(folder: Path, video_id: str) -> Path:
    """``folder/ID.jpg``, inside ``folder`` whatever the id is."""
    target = folder / f"{video_id}.jpg"
    if not target.resolve().is_relative_to(folder.resolve()) or target.resolve() == folder.resolve():
        raise SpecError(f"the id {video_id!r} leads out of {folder}; give the video an id that is a relative path")
    return target
