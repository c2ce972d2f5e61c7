"""Blobs as Caffe's C3D writes them: a folder a video, ``000016.fc6-1`` the layer fc6-1 of the clip that begins at frame 16.

A blob is five little-endian int32 (number, channels, length, height, width) and that many float32.
"""

import os
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import FeatureError, SpecError, StoreError
from store.exchange import LAYOUTS
from store.exchange.files import check_ordinary, find_files, need_some, words
from store.exchange.layout import Exporter, Item, Layout, Loaded, Plan, Reader, Source
from store.exchange.output import write_files
from store.exchange.spec import ImportSpec, TimingSpec
from store.layout import Features
from store.video_list import some

CLIP_LENGTH = 16  # frames; the network takes no other
_HEADER = np.dtype("<i4")
_SIDES = 5
_BLOB = re.compile(r"(\d{1,12})\.([^/]+)")


def read_blob(path: Path) -> np.ndarray:
    """The numbers of one blob, float32, in the shape ``row_shape`` gives; ``FeatureError`` where header and size disagree."""
    start = _SIDES * _HEADER.itemsize
    check_ordinary(path)
    try:
        with path.open("rb") as file:
            size = os.fstat(file.fileno()).st_size
            sides = np.frombuffer(file.read(start), _HEADER).tolist() if size >= start else []
            count = 1
            for side in sides:
                count *= side
            if not sides or min(sides) < 1 or start + 4 * count != size:
                claim = " x ".join(map(str, sides)) if sides else "nothing"
                raise FeatureError(f"{path} has {size} bytes and its header says {claim}; a blob is 20 bytes and 4 for each number")
            data = file.read(4 * count)
    except OSError as error:
        raise FeatureError(f"{path} cannot be read: {words(error)}") from None
    return np.frombuffer(data, "<f4").reshape(row_shape(tuple(sides)))


def row_shape(sides: tuple[int, ...]) -> tuple[int, ...]:
    """Shape of the row that a blob of (n, c, l, h, w) is: n = 1 is dropped, then l = h = w = 1 or l = 1."""
    number, channels, length, height, width = sides
    maps = () if length == height == width == 1 else (height, width) if length == 1 else (length, height, width)
    return (*((number,) if number > 1 else ()), channels, *maps)


def blob_sides(shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The (n, c, l, h, w) whose ``row_shape`` is ``shape``; None where there is none."""
    candidates: list[tuple[int, ...]] = []
    if shape:
        candidates.append((1, shape[0], *((1,) * max(0, 4 - len(shape))), *shape[1:]))
    if len(shape) > 1:
        candidates.append((shape[0], shape[1], *((1,) * max(0, 5 - len(shape))), *shape[2:]))
    return next((sides for sides in candidates if len(sides) == _SIDES and row_shape(sides) == shape), None)


class C3DReader(Reader):
    """``item.parts`` are {layer: {first frame as named: path}}."""

    def read(self, item: Item) -> Loaded:
        layers: dict[str, dict[int, Path]] = {layer: item.parts.get(layer, {}) for layer in self.spec.keys}
        numbers = sorted(set().union(*layers.values()))
        for layer, blobs in layers.items():
            if absent := [number for number in numbers if number not in blobs]:
                raise FeatureError(f"layer {layer} has no blob for {len(absent)} of {len(numbers)} clips: {some([str(n) for n in absent])}")
        first = np.array(numbers, np.int64) - (self.spec.timing.base or 0)
        if first[0] < 0:
            raise FeatureError(f"a blob is numbered {numbers[0]}, but frames are counted from {self.spec.timing.base} (--timing.base)")
        return Loaded({layer: _read_layer([blobs[number] for number in numbers]) for layer, blobs in layers.items()}, {"first": first})


def _read_layer(paths: list[Path]) -> np.ndarray:
    rows: list[np.ndarray] = []
    for path in paths:
        rows.append(read_blob(path))
        if rows[-1].shape != rows[0].shape:
            raise FeatureError(f"{path} is {list(rows[-1].shape)}, {paths[0]} is {list(rows[0].shape)}; a layer has one shape")
    return np.stack(rows)


def _find_blobs(source: Path) -> dict[str, dict[str, dict[int, Path]]]:
    """Every blob below a folder: {id: {layer: {number: path}}}; two files of one layer and number raise ``SpecError``."""
    found: dict[str, dict[str, dict[int, Path]]] = {}
    for name in need_some(find_files(source, _BLOB.fullmatch), source, "file such as 000016.fc6-1"):
        folder, _, blob = name.rpartition("/")
        cut = _BLOB.fullmatch(blob)
        assert cut is not None
        blobs = found.setdefault(folder, {}).setdefault(cut[2], {})
        if (other := blobs.setdefault(int(cut[1]), source / name)) != source / name:
            raise SpecError(f"{other} and {source / name} are both layer {cut[2]} at frame {int(cut[1])}; keep one of them")
    if "" in found and len(found) > 1:
        raise SpecError(
            f"{source} holds blobs, and so do folders in it ({some(sorted(found)[1:])}); a folder is one video: move them apart"
        )
    return found


def _complete(spec: ImportSpec, found: dict[str, dict[str, dict[int, Path]]]) -> ImportSpec:
    """Fill in the layers, the number of the first frame, and the clip length."""
    layers = sorted({layer for video in found.values() for layer in video})
    if unknown := [key for key in spec.keys if key not in layers]:
        raise SpecError(f"there is no blob of {', '.join(unknown)}; layers: {', '.join(layers)}")
    keys = spec.keys or tuple(layers)
    lowest = min(number for video in found.values() for layer in keys for number in video.get(layer, ()))
    return replace(spec, timing=_timing(spec.timing, lowest)).with_keys(keys, "suffix")


def _timing(timing: TimingSpec, lowest: int) -> TimingSpec:
    if timing.frames not in ("auto", "files") or timing.stride:
        return timing
    if timing.base is None and lowest > 0:
        raise SpecError(
            f"the lowest number of a blob is {lowest}, so it is open whether the first frame of a video is number 0 or 1; "
            "say --timing.base 0 or --timing.base 1"
        )
    return replace(timing, base=timing.base or 0, length=timing.length or CLIP_LENGTH)


class C3DExporter(Exporter):
    """``ID/<first frame>.<level>``; where clips end is only in the settings."""

    def __init__(self, out: Path, plan: Plan) -> None:
        super().__init__(out, plan)
        self._other_lengths = 0

    def check(self) -> None:
        for level in self.plan.levels:
            if level.dtype != "float32":
                raise SpecError(f"level {level.name} is {level.dtype}; blobs hold float32: --float32 converts, which loses nothing")
            if blob_sides(level.row_shape) is None:
                raise SpecError(f"level {level.name} has rows {list(level.row_shape)}, which no blob (n, c, l, h, w) gives back")

    def targets(self, name: str) -> list[str]:
        return [name]

    def write(self, name: str, features: Features) -> bool:
        first = features.frames[:, 0].tolist()
        if first != sorted(set(first)):
            raise FeatureError("its rows do not begin at ascending frames, but blobs are named and ordered by their first frame")
        self._other_lengths += bool((np.diff(features.frames)[:, 0] != self.plan.spans).any())
        files = {}
        for level in self.plan.levels:
            header = np.array(blob_sides(level.row_shape), _HEADER).tobytes()
            for number, row in zip(first, features.values[level.name], strict=True):
                files[f"{name}/{number:06d}.{level.name}"] = header + row.astype("<f4").tobytes()
        self._check_folder(name, files)
        return write_files(self.out, files, self.plan.overwrite)

    def _check_folder(self, name: str, files: dict[str, bytes]) -> None:
        """Blobs of our levels that are not ours would become rows of the video."""
        levels = {level.name for level in self.plan.levels}
        for path in sorted((self.out / name).iterdir()) if (self.out / name).is_dir() else []:
            cut = _BLOB.fullmatch(path.name)
            if not cut or cut[2] not in levels or f"{name}/{path.name}" in files:
                continue
            if not self.plan.overwrite:
                raise StoreError(f"{path} is a blob of another export; the folder stays as it is (--overwrite removes such blobs)")
            path.unlink()

    def settings(self) -> dict[str, Any]:
        return {"keys": [level.name for level in self.plan.levels], "timing": {"base": 0, "length": self.plan.spans}}

    def notes(self) -> list[str]:
        lost = ["blobs carry no times; when importing them, --timing.fps can give some"]
        if self._other_lengths:
            lost.append(
                f"{self._other_lengths} videos have clips of other than {self.plan.spans} frames; blobs do not carry where clips end"
            )
        return lost


@LAYOUTS.register("c3d")
class C3D(Layout):
    about = "Caffe C3D blobs: a folder a video, FIRSTFRAME.LAYER such as 000016.fc6-1; keys are layers, all of them unless named"
    settings = frozenset({"keys", "squeeze", "timing.base"})

    def open(self, source: Source, spec: ImportSpec) -> Reader:
        if source.root is not None:
            raise SpecError("layout c3d reads no lists of paths, so --root says nothing; leave it away")
        found = _find_blobs(source.path)
        spec = _complete(spec, found)
        items = [
            Item(folder or source.path.resolve().name, source.path / folder, parts)
            for folder, parts in found.items()
            if set(parts) & set(spec.keys)
        ]
        return C3DReader(spec, items, [])

    def exporter(self, out: Path, plan: Plan) -> Exporter:
        return C3DExporter(out, plan)
