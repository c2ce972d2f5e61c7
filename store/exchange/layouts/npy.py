"""A tree of ``.npy`` files: one a video, or one a key (``v_rgb.npy``, ``v_flow.npy``, ``v_fps.npy``, ``v_timestamps_ms.npy``)."""

import io
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import FeatureError, SpecError
from store.exchange import LAYOUTS
from store.exchange.files import listed_files, read_npy
from store.exchange.layout import Exporter, Item, Layout, Loaded, Plan, Reader, Source
from store.exchange.naming import check_distinct, check_one_each, group
from store.exchange.output import write_files
from store.exchange.spec import COMPANIONS, ImportSpec
from store.layout import Features
from store.video_list import some

SUFFIX = ".npy"


class NpyReader(Reader):
    """One ``.npy`` file for each key of each video; ``item.parts`` are their paths."""

    def __init__(self, root: Path, names: list[str], spec: ImportSpec) -> None:
        grouped, strays = group(names, spec.keys, spec.place, spec.level)
        items = [
            Item(video, root / (next(iter(parts.values())) + SUFFIX), {key: root / (name + SUFFIX) for key, name in parts.items()})
            for video, parts in grouped.items()
        ]
        notes = [f"{len(strays)} files are of none of the keys {', '.join(spec.keys)}: {some(strays)}"] if strays else []
        super().__init__(spec, items, notes)

    def read(self, item: Item) -> Loaded:
        levels = self.spec.keys or (self.spec.level,)
        if absent := [key for key in levels if key not in item.parts]:
            raise FeatureError(f"there is no file for {', '.join(absent)}, only for {', '.join(item.parts)}")
        timing = {name: read_npy(item.parts[name]) for name in COMPANIONS if name in item.parts and self.spec.keys}
        return Loaded({level: read_npy(item.parts[level]) for level in levels}, timing)


def open_npy(source: Source, spec: ImportSpec) -> tuple[Path, list[str], ImportSpec]:
    """The folder, the names of its ``.npy`` files without suffix, and the spec with the place of the keys."""
    root, paths = listed_files(source, SUFFIX)
    names = [path.removesuffix(SUFFIX) for path in paths]
    if spec.place == "auto" and not spec.keys:
        check_one_each(names, "suffix")
    place = spec.place if spec.place != "auto" else "suffix" if spec.keys else "none"
    if place == "inside":
        raise SpecError("place 'inside' is for files that hold several arrays; keys of .npy files are a suffix or a folder")
    return root, names, replace(spec, place=place)


def npy_bytes(array: np.ndarray) -> bytes:
    """The ``.npy`` file of an array, equal for equal arrays."""
    buffer = io.BytesIO()
    np.lib.format.write_array(buffer, np.ascontiguousarray(array), version=(1, 0), allow_pickle=False)
    return buffer.getvalue()


def check_level_names(plan: Plan) -> None:
    """Levels whose names mean something else where names of arrays are keys raise ``SpecError``."""
    wrong = sorted({level.name for level in plan.levels} & set(COMPANIONS))
    if wrong and not plan.plain:
        raise SpecError(f"level {', '.join(wrong)} has the name of what lies beside features; export it alone with --level and --plain")
    if plan.plain and len(plan.levels) != 1:
        raise SpecError(f"plain files hold one level; choose one of {', '.join(level.name for level in plan.levels)} with --level")


class NpyExporter(Exporter):
    """``ID_level.npy``, ``ID_frames.npy``, ``ID_times.npy``; plain: ``ID.npy`` alone."""

    def check(self) -> None:
        check_level_names(self.plan)
        if not self.plan.plain:
            check_distinct([*(level.name for level in self.plan.levels), *COMPANIONS])

    def targets(self, name: str) -> list[str]:
        if self.plan.plain:
            return [name + SUFFIX]
        return [f"{name}_{key}{SUFFIX}" for key in (*(level.name for level in self.plan.levels), "frames", "times")]

    def write(self, name: str, features: Features) -> bool:
        arrays = [features.values[level.name] for level in self.plan.levels]
        arrays += [] if self.plan.plain else [features.frames, features.times]
        files = {path: npy_bytes(array) for path, array in zip(self.targets(name), arrays, strict=True)}
        return write_files(self.out, files, self.plan.overwrite)

    def settings(self) -> dict[str, Any]:
        if self.plan.plain:
            return {"level": self.plan.level.name, "place": "none"}
        return {"keys": [level.name for level in self.plan.levels], "place": "suffix"}


@LAYOUTS.register("npy")
class Npy(Layout):
    about = "a tree of .npy files, one a video or one a key: VIDEO.npy, or VIDEO_KEY.npy with VIDEO_fps.npy, VIDEO_timestamps_ms.npy"
    settings = frozenset({"keys", "place", "level", "rows_axis", "flat", "squeeze"})

    def open(self, source: Source, spec: ImportSpec) -> Reader:
        return NpyReader(*open_npy(source, spec))

    def exporter(self, out: Path, plan: Plan) -> Exporter:
        return NpyExporter(out, plan)
