"""Files that hold several named arrays (``.npz``, HDF5): one file with every video in it, or a folder with one file a video."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from store.errors import FeatureError, PipelineError, SpecError, StoreError
from store.exchange.files import check_ordinary, find_files, need_some
from store.exchange.layout import Item, Loaded, Reader, Source
from store.exchange.naming import check_one_each, group
from store.exchange.spec import COMPANIONS, ImportSpec
from store.video_list import some

_MAX_RATIO = 200  # of unpacked to packed size; features do not shrink so far, files made to fill the memory do
_LARGE = 64 << 20  # bytes; below, anything goes


def too_dense(packed: int, unpacked: int) -> bool:
    """Whether an array that would take ``unpacked`` bytes is suspiciously small on the disk."""
    return unpacked > max(_LARGE, _MAX_RATIO * packed)


class Container(ABC):
    """An open file of named arrays."""

    @abstractmethod
    def names(self) -> list[str]:
        """Names of all arrays."""

    @abstractmethod
    def read(self, name: str) -> np.ndarray:
        """One array; ``FeatureError`` says why it cannot be read."""

    @abstractmethod
    def close(self) -> None:
        """Let go of the file."""


Open = Callable[[Path], Container]  # raises StoreError for a file that is no such container


def open_containers(source: Source, spec: ImportSpec, opened: Open, suffixes: tuple[str, ...]) -> Reader:
    """The reader of one file with every video in it, or of a folder with one file a video."""
    if source.root is not None:
        raise SpecError(f"layout {spec.layout} reads no lists of paths, so --root says nothing; leave it away")
    if source.path.is_file():
        container = opened(source.path)
        try:
            return OneFileReader(source.path, container, spec)
        except BaseException:
            container.close()
            raise
    paths = find_files(source.path, lambda name: name.lower().endswith(suffixes))
    return FolderReader(source.path, need_some(paths, source.path, " or ".join(suffixes) + " file"), spec, opened)


class OneFileReader(Reader):
    """One container; ``item.parts`` are names in it."""

    def __init__(self, path: Path, container: Container, spec: ImportSpec) -> None:
        names = container.names()
        if not names:
            raise StoreError(f"{path} holds no arrays")
        if spec.place == "auto" and not spec.keys:
            check_one_each(names, "inside")
        place = spec.place if spec.place != "auto" else "inside" if spec.keys else "none"
        grouped, strays = group(names, spec.keys, place, spec.level)
        if not grouped:
            raise StoreError(f"{path} holds no array called by the keys {', '.join(spec.keys)} (place {place}); it has {some(names)}")
        notes = [f"{len(strays)} arrays are of none of the keys {', '.join(spec.keys)}: {some(strays)}"] if strays else []
        super().__init__(replace(spec, place=place), [Item(video, path, parts) for video, parts in grouped.items()], notes)
        self.container = container

    def read(self, item: Item) -> Loaded:
        return _load(self.container, self.spec.keys or (self.spec.level,), item.parts, bool(self.spec.keys))

    def close(self) -> None:
        self.container.close()


class FolderReader(Reader):
    """One container a video, whose arrays are its levels; ``item.parts`` is {"file": path}."""

    def __init__(self, folder: Path, paths: list[str], spec: ImportSpec, opened: Open) -> None:
        if spec.place not in ("auto", "inside"):
            raise SpecError(f"place is {spec.place!r}, but each file of a folder is one video, with the keys inside; leave --place away")
        by_name: dict[str, str] = {}
        for path in paths:
            name = path.rpartition(".")[0]
            if (other := by_name.setdefault(name, path)) != path:
                raise SpecError(f"{folder / other} and {folder / path} would both be the video {name!r}; import them apart")
        items = [Item(name, folder / path, {"file": folder / path}) for name, path in by_name.items()]
        self.opened = opened
        super().__init__(spec.with_keys(spec.keys or self._find_keys(items), "inside"), items, [])

    def read(self, item: Item) -> Loaded:
        check_ordinary(item.path)
        container = self.opened(item.path)
        try:
            return _load(container, self.spec.keys, {name: name for name in container.names()}, True)
        finally:
            container.close()

    def _find_keys(self, items: Sequence[Item]) -> tuple[str, ...]:
        """Names of the arrays at the top of the first file that can be read and has any, companions apart."""
        problems = []
        for item in items:
            try:
                names = self._names(item)
            except PipelineError as error:  # this file fails on its own when its turn comes
                problems.append(str(error))
                continue
            if keys := tuple(name for name in names if name not in COMPANIONS and "/" not in name):
                return keys
            problems.append(f"{item.path} has no features at its top, only {some(names) or 'nothing'}")
        raise StoreError(f"none of {len(items)} files has features that can be read; the first: {problems[0]}")

    def _names(self, item: Item) -> list[str]:
        check_ordinary(item.path)
        container = self.opened(item.path)
        try:
            return container.names()
        finally:
            container.close()


def _load(container: Container, levels: Sequence[str], parts: Mapping[str, str], keyed: bool) -> Loaded:
    if absent := [key for key in levels if key not in parts]:
        raise FeatureError(f"there is no array {', '.join(absent)}, only {some(sorted(parts))}")
    timing = {name: container.read(parts[name]) for name in COMPANIONS if keyed and name in parts}
    return Loaded({level: container.read(parts[level]) for level in levels}, timing)
