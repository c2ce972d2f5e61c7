"""``.npz`` archives: one with an array a video, or one a video with an array a level."""

import io
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import FeatureError, StoreError
from store.exchange import LAYOUTS
from store.exchange.containers import Container, open_containers, too_dense
from store.exchange.files import UNREADABLE, words
from store.exchange.layout import Exporter, Layout, Plan, Reader, Source
from store.exchange.layouts.npy import check_level_names, npy_bytes
from store.exchange.output import write_files
from store.exchange.spec import ImportSpec
from store.layout import Features
from store.npz import read_array

SUFFIX = ".npz"
_BAD_ZIP = (*UNREADABLE, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError)


class ZipContainer(Container):
    """An ``.npz`` file; nothing is unpacked before it is asked for."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self.archive = zipfile.ZipFile(path)
        except _BAD_ZIP as error:
            raise StoreError(f"{path} is not an .npz file that can be read: {words(error)}") from None
        arrays = [info for info in self.archive.infolist() if info.filename.endswith(".npy")]
        self.members = {info.filename.removesuffix(".npy"): info for info in arrays}
        if len(self.members) < len(arrays):
            self.archive.close()
            raise StoreError(f"{path} holds {len(arrays)} arrays under {len(self.members)} names; which of them is meant is open")

    def names(self) -> list[str]:
        return list(self.members)

    def read(self, name: str) -> np.ndarray:
        info = self.members[name]
        if too_dense(info.compress_size, info.file_size):
            raise FeatureError(f"{self.path}: {name} is {info.compress_size} bytes and would unpack to {info.file_size}, as no features do")
        try:
            with self.archive.open(info) as file:
                array = read_array(file, info.file_size, info.filename)
                file.read(1)  # the end of the member, where its checksum is compared
                return array
        except _BAD_ZIP as error:
            raise FeatureError(f"{self.path}: {name} cannot be read: {words(error)}") from None

    def close(self) -> None:
        self.archive.close()


class NpzExporter(Exporter):
    """``ID.npz`` with an array a level, ``frames`` and ``times``; plain: the level alone. Nothing is compressed."""

    def check(self) -> None:
        check_level_names(self.plan)

    def targets(self, name: str) -> list[str]:
        return [name + SUFFIX]

    def write(self, name: str, features: Features) -> bool:
        arrays = {level.name: features.values[level.name] for level in self.plan.levels}
        arrays |= {} if self.plan.plain else {"frames": features.frames, "times": features.times}
        return write_files(self.out, {name + SUFFIX: npz_bytes(arrays)}, self.plan.overwrite)

    def settings(self) -> dict[str, Any]:
        return {"keys": [level.name for level in self.plan.levels]}


def npz_bytes(arrays: dict[str, np.ndarray]) -> bytes:
    """The ``.npz`` file of named arrays, equal for equal arrays (its members have no dates)."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, array in arrays.items():
            member = zipfile.ZipInfo(f"{name}.npy")
            member.external_attr = 0o644 << 16
            archive.writestr(member, npy_bytes(array))
    return buffer.getvalue()


@LAYOUTS.register("npz")
class Npz(Layout):
    about = "one .npz file with an array a video, or a folder of .npz files, one a video, with an array a level"
    settings = frozenset({"keys", "place", "level", "rows_axis", "flat", "squeeze"})

    def open(self, source: Source, spec: ImportSpec) -> Reader:
        return open_containers(source, spec, ZipContainer, (SUFFIX,))

    def exporter(self, out: Path, plan: Plan) -> Exporter:
        return NpzExporter(out, plan)
