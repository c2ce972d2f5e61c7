"""Fixtures that every test may use."""

import os
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path

# One thread for every test and for every program it starts: the networks here are so small that more threads only wait for one another,
# and tests run side by side (pytest -n). Set before anything imports torch.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import av
import numpy as np
import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real videos, weights and scores made by others; a test that needs it skips where it is missing."""
    folder = Path(os.environ.get("ACTIONCACHE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
    if not folder.is_dir():
        pytest.skip(f"no real test data at {folder}; set ACTIONCACHE_TEST_DATA to a folder laid out as docs/testing.md says")
    return folder


@pytest.fixture(scope="session")
def encode_video() -> Callable[..., Path]:
    """``encode_video(path, frames, fps=25, codec="mpeg4", pts=None, ...) -> path``, see ``encode``."""
    return encode


@pytest.fixture(scope="session")
def numbered_frames() -> Callable[..., list[np.ndarray]]:
    """``numbered_frames(count, height=64, width=128)``: frames whose number is painted on them, see ``paint``."""

    def frames(count: int, height: int = 64, width: int = 128) -> list[np.ndarray]:
        return [paint(number, height, width) for number in range(count)]

    return frames


@pytest.fixture(scope="session")
def painted_number() -> Callable[[np.ndarray], int]:
    """``painted_number(frame)``: the number on a frame, readable after lossy coding; see ``paint``."""
    return read_number


def encode(
    path: Path,
    frames: Sequence[np.ndarray],
    fps: float = 25,
    codec: str = "mpeg4",
    pts: Sequence[int] | None = None,
    rotation: int = 0,
    pix_fmt: str = "yuv420p",
    options: dict[str, str] | None = None,
    metadata: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Encode RGB uint8 frames with PyAV into the container that the suffix names.

    ``pts`` are time stamps in milliseconds for a variable frame rate; ``rotation`` (degrees, counterclockwise) is only noted in the
    display matrix.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        container.metadata.update(metadata or {})
        stream = container.add_stream(codec, rate=Fraction(fps).limit_denominator(1001), options=options or {})
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = pix_fmt
        if rotation:
            stream.set_display_rotation(rotation)
        if pts is not None:
            stream.codec_context.time_base = Fraction(1, 1000)
        for number, pixels in enumerate(frames):
            frame = av.VideoFrame.from_ndarray(np.ascontiguousarray(pixels), format="rgb24")
            if pts is not None:
                frame.pts, frame.time_base = int(pts[number]), Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def paint(number: int, height: int, width: int) -> np.ndarray:
    """A frame with ``number`` as eight bits: eight columns, black or white, the lowest bit at the left."""
    bits = (number >> (np.arange(width) * 8 // width)) & 1
    return np.broadcast_to((bits * 255).astype(np.uint8)[None, :, None], (height, width, 3)).copy()


def read_number(frame: np.ndarray) -> int:
    """The number that ``paint`` put on a frame."""
    columns = np.array_split(frame.mean((0, 2)), 8)
    return sum(1 << bit for bit, column in enumerate(columns) if column[len(column) // 2] > 127)
