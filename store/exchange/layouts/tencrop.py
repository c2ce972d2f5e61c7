"""Features with their crops kept, as used in video anomaly detection: ``[n, 10, D]`` arrays, named by a list, or one file a crop."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import FeatureError, SpecError
from store.exchange import LAYOUTS
from store.exchange.files import read_npy
from store.exchange.layout import Exporter, Item, Layout, Loaded, Plan, Reader, Source
from store.exchange.layouts.npy import SUFFIX, NpyReader, npy_bytes, open_npy
from store.exchange.output import write_files
from store.exchange.spec import ImportSpec
from store.layout import Features
from store.video_list import some

LIST = "list.txt"
_CROP = re.compile(r"(.*[^/])__(\d{1,4})")


class TogetherReader(NpyReader):
    """One array [n, crops, D] a video."""

    def accept(self, level: str, rows: np.ndarray) -> np.ndarray:
        return with_crops(level, rows, self.spec.crops)


class SeparateReader(Reader):
    """One array [n, D] a crop, ``VIDEO__0.npy`` to ``VIDEO__9.npy``; ``item.parts`` are paths by the number of the crop."""

    def __init__(self, root: Path, names: list[str], spec: ImportSpec) -> None:
        found: dict[str, dict[str, Path]] = {}
        strays = []
        for name in names:
            if cut := _CROP.fullmatch(name):
                found.setdefault(cut[1], {})[cut[2]] = root / (name + SUFFIX)
            else:
                strays.append(name)
        notes = [f"{len(strays)} files do not end in __ and the number of a crop: {some(strays)}"] if strays else []
        super().__init__(spec, [Item(video, next(iter(parts.values())), parts) for video, parts in found.items()], notes)

    def read(self, item: Item) -> Loaded:
        wanted = [str(number) for number in range(self.spec.crops)]
        if sorted(item.parts) != sorted(wanted):
            raise FeatureError(
                f"there are files for the crops {', '.join(sorted(item.parts))}; {self.spec.crops} crops are 0 to {self.spec.crops - 1} "
                "(--crops)"
            )
        return Loaded({self.spec.level: stacked({number: read_npy(item.parts[number]) for number in wanted})})

    def accept(self, level: str, rows: np.ndarray) -> np.ndarray:
        return with_crops(level, rows, self.spec.crops)


def stacked(crops: Mapping[str, np.ndarray]) -> np.ndarray:
    """Arrays [n, D], one a crop, as one array [n, crops, D]; ``FeatureError`` names the crop that differs."""
    first = next(iter(crops.values()))
    for number, array in crops.items():
        if array.ndim != 2 or array.shape != first.shape or array.dtype != first.dtype:
            raise FeatureError(
                f"crop {number} is {array.dtype} {list(array.shape)}, crop 0 is {first.dtype} {list(first.shape)}; each crop must be "
                "[n, width], all alike"
            )
    return np.stack(list(crops.values()), 1)


def with_crops(level: str, rows: np.ndarray, crops: int) -> np.ndarray:
    """Return rows [n, crops, D]; ``FeatureError`` for any other shape."""
    if rows.ndim != 3 or rows.shape[1] != crops:
        raise FeatureError(
            f"level {level} has rows {list(rows.shape)} with the clips in front; {crops} crops are [n, {crops}, width] "
            "(--crops, and --rows-axis 1 for [crops, n, width])"
        )
    return rows


class TenCropExporter(Exporter):
    """``ID.npy`` [n, crops, D] for every video, and their paths in ``list.txt``."""

    def check(self) -> None:
        if len(self.plan.levels) != 1:
            raise SpecError(f"this layout holds one level; choose one of {', '.join(x.name for x in self.plan.levels)} with --level")
        if len(self.plan.level.row_shape) != 2:
            raise SpecError(f"level {self.plan.level} keeps no crops; rows of this layout are [crops, width] (extract with --crops.keep)")

    def targets(self, name: str) -> list[str]:
        return [name + SUFFIX]

    def write(self, name: str, features: Features) -> bool:
        return write_files(self.out, {name + SUFFIX: npy_bytes(features.values[self.plan.level.name])}, self.plan.overwrite)

    def extra_files(self) -> dict[str, str]:
        return {LIST: "".join(f"{name}{SUFFIX}\n" for name in self.plan.names)}

    def settings(self) -> dict[str, Any]:
        return {"level": self.plan.level.name, "crops": self.plan.level.row_shape[0], "place": "none"}

    def main_file(self) -> str:
        return LIST


@LAYOUTS.register("tencrop")
class TenCrop(Layout):
    about = "crops kept, [n, 10, D] .npy files below a folder or named by a list; or VIDEO__0.npy ... VIDEO__9.npy, one [n, D] a crop"
    settings = frozenset({"keys", "place", "level", "crops", "crop_files", "rows_axis"})

    def open(self, source: Source, spec: ImportSpec) -> Reader:
        if spec.crop_files == "together":
            return TogetherReader(*open_npy(source, spec))
        for name in ("keys", "rows_axis"):
            if getattr(spec, name):
                raise SpecError(f"{name} is {getattr(spec, name)!r}, of which crops in separate files make no use; leave it away")
        root, names, resolved = open_npy(source, spec)
        return SeparateReader(root, names, resolved)

    def exporter(self, out: Path, plan: Plan) -> Exporter:
        return TenCropExporter(out, plan)
