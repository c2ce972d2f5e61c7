"""Folders of frames: ``img_00001.jpg`` and the like."""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from extract.video import Scan, VideoSource
from store.errors import DecodeError

FOLDER_FPS = 25.0  # a folder says no frame rate
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm", ".pgm"})
FLOW_SERIES = frozenset({"x", "y", "flow_x", "flow_y", "flow_i"})  # flow written beside the frames by the TSN and two-stream tools


class FolderSource(VideoSource):
    """Images of one folder in natural order (2 before 10), shown at ``FOLDER_FPS``. Flow images beside them are left out."""

    def _scan(self) -> Scan:
        self._files = frame_files(self.path)
        width, height = image_size(self._files[0])
        for file in self._files[1:]:
            self._note()
            if (size := image_size(file)) != (width, height):
                raise DecodeError(
                    f"{self.path}: frame size changes from {width}x{height} to {size[0]}x{size[1]} at {file.name}; all frames need one size"
                )
        count = len(self._files)
        return Scan(np.arange(count) / FOLDER_FPS, count / FOLDER_FPS, height, width)

    def _read(self, indices: np.ndarray) -> Iterator[np.ndarray]:
        for index in indices:
            self._note()
            yield read_image(self._files[index])

    def _close(self) -> None:
        self._files = []


def frame_files(folder: Path) -> list[Path]:
    """The images of a folder that are its RGB frames, in natural order; ``DecodeError`` when there are none or several series."""
    series = defaultdict(list)
    for file in folder.iterdir():
        if file.suffix.lower() in SUFFIXES and not file.name.startswith(".") and file.is_file():
            series[re.sub(r"\d+$", "", file.stem), file.suffix.lower()].append(file)
    if not series:
        raise DecodeError(f"{folder}: a folder without images ({', '.join(sorted(SUFFIXES))}); give a video file or a folder of frames")
    frames = {key: files for key, files in series.items() if key[0].lower().rstrip("_-. ") not in FLOW_SERIES}
    if len(frames) != 1:
        found = ", ".join(f"{prefix}*{suffix} ({len(files)})" for (prefix, suffix), files in sorted((frames or series).items()))
        what = "several series of images" if frames else "only flow images"
        raise DecodeError(f"{folder}: the folder holds {what}: {found}; keep the frames of one video in one folder")
    (files,) = frames.values()
    return sorted(files, key=lambda file: [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", file.name)])


def image_size(file: Path) -> tuple[int, int]:
    """(width, height) in pixels, upright, from the header alone."""
    try:
        with Image.open(file) as image:
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientation: 5 to 8 swap the sides
            return (image.height, image.width) if turned else image.size
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def read_image(file: Path) -> np.ndarray:
    """Read one image upright as RGB uint8 [H, W, 3]; a damaged one is a ``DecodeError`` that names it."""
    try:
        with Image.open(file) as image:
            return np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
    except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
        raise _unreadable(file, error) from None


def _unreadable(file: Path, error: Exception) -> DecodeError:
    return DecodeError(f"{file}: not an image that can be read: {error}")
