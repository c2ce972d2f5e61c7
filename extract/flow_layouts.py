"""Flow of one video as files for use elsewhere, in the layouts that ``extract.flow_files`` reads. Runs in workers and imports no torch."""

import os
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, NamedTuple

import cv2
import numpy as np

from extract.flow_bytes import quantised
from extract.flow_frames import flow_size, walk_flows
from extract.spec import DecodeSpec, FlowSpec
from extract.video import VideoSource, open_source
from extract.worker import Emitter, StageError
from store.digest import Checked, demand, setting
from store.errors import DecodeError, FeatureError, PipelineError
from store.files import fsync_file, fsync_folder


class Layout(NamedTuple):
    """``units`` are the paths of one video that appear at once when they are complete, in this order, the last one last.

    ``images`` says of each series (x, y, rgb) in which unit it is and what its files are called. A layout without them is one array.
    """

    units: tuple[str, ...]
    images: Mapping[str, tuple[int, str]]
    text: str


LAYOUTS = {
    "folders": Layout(
        ("{name}",), {"x": (0, "flow_x/{number:05}"), "y": (0, "flow_y/{number:05}")}, "NAME/flow_x/00001.jpg, NAME/flow_y/00001.jpg"
    ),
    "tsn": Layout(
        ("{name}",),
        {"x": (0, "flow_x_{number:05}"), "y": (0, "flow_y_{number:05}"), "rgb": (0, "img_{number:05}")},
        "NAME/flow_x_00001.jpg, NAME/flow_y_00001.jpg (temporal segment networks)",
    ),
    "mmaction": Layout(
        ("{name}",),
        {"x": (0, "x_{number:05}"), "y": (0, "y_{number:05}"), "rgb": (0, "img_{number:05}")},
        "NAME/x_00001.jpg, NAME/y_00001.jpg (mmaction2)",
    ),
    "two-stream": Layout(
        ("v/{name}", "u/{name}"),
        {"x": (1, "frame{number:06}"), "y": (0, "frame{number:06}")},
        "u/NAME/frame000001.jpg, v/NAME/frame000001.jpg (two-stream networks)",
    ),
    "npy": Layout(("{name}.npy",), {}, "NAME.npy, pixels [K - 1, H, W, 2]"),
}


@dataclass(frozen=True)
class WriteSpec(Checked):
    """Everything that decides the bytes of flow files, but the videos."""

    layout: Literal["folders", "tsn", "mmaction", "two-stream", "npy"] = setting(
        "tsn", "; ".join(f"{name}: {layout.text}" for name, layout in LAYOUTS.items())
    )
    images: Literal["jpg", "png"] = setting("jpg", "type of the images; png keeps every byte as it is")
    quality: int = setting(95, "quality of JPEG images, from 1 to 100")
    dtype: Literal["float16", "float32"] = setting("float16", "type of the arrays (layout npy)")
    rgb: bool = setting(False, "also the frames, NAME/img_00001.jpg, at the flow's size (layouts tsn and mmaction)")
    decode: DecodeSpec = field(default_factory=DecodeSpec)
    flow: FlowSpec = field(default_factory=FlowSpec)

    def check(self) -> None:
        demand(1 <= self.quality <= 100, f"quality is {self.quality}; it must be from 1 to 100")
        with_rgb = [name for name, layout in LAYOUTS.items() if "rgb" in layout.images]
        demand(
            not self.rgb or self.layout in with_rgb,
            f"layout {self.layout} has no place for frames; leave --rgb out, or take layout {' or '.join(with_rgb)}",
        )


@dataclass(frozen=True)
class WriteJob:
    """One video: where its units go, and a folder on the same disk for what is not complete."""

    path: Path
    targets: tuple[Path, ...]
    aside: Path
    spec: WriteSpec
    weights: str = ""


@dataclass(frozen=True)
class Written:
    """What was written of a video: flows, and how many of how many displacements were beyond the bound, so that bytes clip them."""

    flows: int
    clipped: int
    displacements: int


def write_video(job: WriteJob, emitter: Emitter) -> Written:
    """Compute the flow of one video and write its files; each unit appears when it is complete and on the disk, or not at all.

    A unit that another process put there meanwhile stays. Raises ``StageError`` with the reason for a video that cannot be done.
    """
    if all(target.exists() for target in job.targets):  # another process has done it since the list was read
        return Written(0, 0, 0)
    try:
        with open_source(job.path, job.spec.decode, on_progress=emitter.alive) as source:
            written = _write_aside(source, job, emitter)
        for part, target in zip(_parts(job), job.targets, strict=True):
            _publish(part, target)
        return written
    except DecodeError as error:
        raise StageError("decode", str(error)) from None
    except PipelineError as error:
        raise StageError("flow", str(error)) from None
    except OSError as error:
        raise StageError("write", f"{error.filename or job.targets[-1]}: {error.strerror or error}") from None
    finally:
        shutil.rmtree(job.aside, ignore_errors=True)


def _write_aside(source: VideoSource, job: WriteJob, emitter: Emitter) -> Written:
    spec, layout = job.spec, LAYOUTS[job.spec.layout]
    shutil.rmtree(job.aside, ignore_errors=True)  # of a try that crashed
    job.aside.mkdir(parents=True)
    os.utime(job.aside.parent)
    files = ImageFiles(_parts(job), layout, spec) if layout.images else ArrayFile(_parts(job)[0], spec, source)
    pairs, frames = np.arange(source.num_frames - 1), np.arange(source.num_frames if spec.rgb else 0)
    clipped = displacements = 0
    with files:
        for index, flow, colour in walk_flows(source, pairs, frames, spec.flow, job.weights) if len(pairs) + len(frames) else ():
            if flow is not None:
                files.flow(index, flow)
                clipped, displacements = clipped + int((np.abs(flow) > spec.flow.bound).sum()), displacements + flow.size
            if colour is not None:
                files.colour(index, colour)
            emitter.alive()
    return Written(len(pairs), clipped, displacements)


def _parts(job: WriteJob) -> list[Path]:
    return [job.aside / f"{number}{target.suffix}" for number, target in enumerate(job.targets)]


class ImageFiles:
    """A video's flow and frames as images; numbers begin at 1."""

    def __init__(self, parts: list[Path], layout: Layout, spec: WriteSpec) -> None:
        self._parts, self._images, self._spec = parts, layout.images, spec
        for unit, name in layout.images.values():
            (parts[unit] / name).parent.mkdir(parents=True, exist_ok=True)
        self._options = [cv2.IMWRITE_JPEG_QUALITY, spec.quality] if spec.images == "jpg" else []

    def __enter__(self) -> "ImageFiles":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def flow(self, index: int, flow: np.ndarray) -> None:
        """Write flow ``index``, float32 [H, W, 2] in pixels, as two grey images of its bytes."""
        values = quantised(flow, self._spec.flow.bound, self._spec.flow.quantise)
        self._write("x", index, values[..., 0])
        self._write("y", index, values[..., 1])

    def colour(self, index: int, frame: np.ndarray) -> None:
        """Write frame ``index``, RGB uint8 [H, W, 3]."""
        self._write("rgb", index, frame[..., ::-1])

    def _write(self, series: str, index: int, image: np.ndarray) -> None:
        unit, name = self._images[series]
        path = self._parts[unit] / f"{name.format(number=index + 1)}.{self._spec.images}"
        path.write_bytes(cv2.imencode(path.suffix, np.ascontiguousarray(image), self._options)[1].tobytes())


class ArrayFile:
    """A video's flow as one array, written flow by flow."""

    def __init__(self, path: Path, spec: WriteSpec, source: VideoSource) -> None:
        self._path, self._dtype = path, np.dtype(spec.dtype)
        size = flow_size(np.empty((source.height, source.width), np.uint8), spec.flow.short_side).shape
        self._shape = (source.num_frames - 1, *size, 2)

    def __enter__(self) -> "ArrayFile":
        self._file: BinaryIO = self._path.open("wb")
        header = {"descr": np.lib.format.dtype_to_descr(self._dtype), "fortran_order": False, "shape": self._shape}
        np.lib.format.write_array_header_1_0(self._file, header)
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def flow(self, index: int, flow: np.ndarray) -> None:
        """Append flow ``index``, float32 [H, W, 2] in pixels; they come in order."""
        with np.errstate(over="ignore"):
            values = flow.astype(self._dtype)
        if not np.isfinite(values).all():
            raise FeatureError(f"flow {index} has a displacement of {np.abs(flow).max():g} px, too large for float16; set --dtype float32")
        self._file.write(values.tobytes())

    def colour(self, index: int, frame: np.ndarray) -> None:
        """There is no place for frames in an array."""
        raise AssertionError("checked by WriteSpec")


def _publish(part: Path, target: Path) -> None:
    for folder, _, names in os.walk(part):
        for name in names:
            fsync_file(Path(folder, name))
        fsync_folder(Path(folder))
    if part.is_file():
        fsync_file(part)
    target.parent.mkdir(parents=True, exist_ok=True)
    if not target.exists():  # else it is complete: from another process, or from one that was killed between two units
        try:
            part.rename(target)
        except OSError:
            if not target.is_dir():  # another process was faster
                raise
        fsync_folder(target.parent)
