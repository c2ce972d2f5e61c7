"""One HDF5 file with a dataset, or a group of datasets, a video; or a folder of HDF5 files, one a video."""

from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import FeatureError, StoreError
from store.exchange import LAYOUTS
from store.exchange.containers import Container, open_containers, too_dense
from store.exchange.files import UNREADABLE, words
from store.exchange.layout import Exporter, Layout, Plan, Reader, Source
from store.exchange.layouts.npy import check_level_names
from store.exchange.spec import ImportSpec
from store.files import atomic_path, remove_asides
from store.layout import Features
from store.npz import MAX_BYTES

if TYPE_CHECKING:
    import h5py

SUFFIXES = (".h5", ".hdf5", ".hdf")
FILE = "features.h5"
_BAD_HDF5 = (*UNREADABLE, RuntimeError, KeyError, NotImplementedError)


class Hdf5Container(Container):
    """An HDF5 file; only hard links are followed, so nothing outside the file is read."""

    def __init__(self, path: Path) -> None:
        import h5py

        self.path = path
        try:
            self.file = h5py.File(path, "r", locking="best-effort")  # some network disks refuse locks
        except _BAD_HDF5 as error:
            raise StoreError(f"{path} is not an HDF5 file that can be read: {words(error)}") from None

    def names(self) -> list[str]:
        import h5py

        found: list[str] = []
        try:
            self.file.visititems(lambda name, item: found.append(name) if isinstance(item, h5py.Dataset) else None)
        except _BAD_HDF5 as error:
            raise StoreError(f"{self.path} cannot be listed: {words(error)}") from None
        return found

    def read(self, name: str) -> np.ndarray:
        try:
            dataset = self.file[name]
            if reason := refusal(dataset):
                raise FeatureError(f"{self.path}: {name} {reason}")
            array: np.ndarray = np.asarray(dataset[()])
        except _BAD_HDF5 as error:
            if isinstance(error, FeatureError):
                raise
            raise FeatureError(f"{self.path}: {name} cannot be read: {words(error)}") from None
        return array

    def close(self) -> None:
        self.file.close()


def refusal(dataset: "h5py.Dataset") -> str:
    """Why a dataset is not read ("" if it is): its bytes lie elsewhere, were never written, or are more than any features have."""
    import h5py

    if dataset.dtype.kind not in "fiub":
        return f"holds {dataset.dtype}; features are float16, float32 or float64"
    if dataset.is_virtual or dataset.external:
        return "keeps its values in other files, which are not followed"
    if dataset.shape is None or not dataset.size:
        return f"is empty: shape {dataset.shape and list(dataset.shape)}"
    if dataset.nbytes > MAX_BYTES:
        return f"claims {dataset.nbytes} bytes; at most {MAX_BYTES} are read"
    if dataset.chunks:
        if too_dense(packed := dataset.id.get_storage_size(), dataset.nbytes) and packed:
            return f"is {packed} bytes and would unpack to {dataset.nbytes}, as no features do"
        wanted = int(np.prod([-(-side // chunk) for side, chunk in zip(dataset.shape, dataset.chunks, strict=True)], dtype=object))
        written = dataset.id.get_num_chunks()
    else:
        compact = dataset.id.get_create_plist().get_layout() == h5py.h5d.COMPACT
        wanted, written = dataset.nbytes, dataset.nbytes if compact else dataset.id.get_storage_size()
    return "" if written >= wanted else f"was never written whole ({written} of {wanted} {'chunks' if dataset.chunks else 'bytes'})"


class Hdf5Exporter(Exporter):
    """``features.h5`` with a group a video (datasets of the levels, ``frames``, ``times``); plain: a dataset a video.

    A file that is there already is only compared, video by video, unless it is to be overwritten.
    """

    def __init__(self, out: Path, plan: Plan) -> None:
        super().__init__(out, plan)
        self.compared = (out / FILE).exists() and not plan.overwrite
        self._stack = ExitStack()

    def check(self) -> None:
        check_level_names(self.plan)

    def targets(self, name: str) -> list[str]:
        if self.plan.plain:
            return [name]
        return [f"{name}/{key}" for key in (*(level.name for level in self.plan.levels), "frames", "times")]

    def __enter__(self) -> "Hdf5Exporter":
        import h5py

        path = self.out / FILE
        if self.compared:
            try:
                self.file = self._stack.enter_context(h5py.File(path, "r", locking="best-effort"))
            except OSError:
                raise StoreError(f"{path} is there and no HDF5 file; it stays as it is (--overwrite replaces it)") from None
        else:
            remove_asides(path)
            with self._stack:  # closed if the file cannot be made, else handed on
                self.file = self._stack.enter_context(h5py.File(self._stack.enter_context(atomic_path(path)), "x"))
                self._stack = self._stack.pop_all()
        return self

    def write(self, name: str, features: Features) -> bool:
        arrays = [features.values[level.name] for level in self.plan.levels]
        arrays += [] if self.plan.plain else [features.frames, features.times]
        for path, array in zip(self.targets(name), arrays, strict=True):
            if not self.compared:
                self.file.create_dataset(path, data=array, track_times=False)
            elif not _equal(self.file.get(path), array):
                raise StoreError(f"{self.out / FILE} is there with another {path}, or none; it stays as it is (--overwrite replaces it)")
        return not self.compared

    def settings(self) -> dict[str, Any]:
        if self.plan.plain:
            return {"level": self.plan.level.name, "place": "none"}
        return {"keys": [level.name for level in self.plan.levels], "place": "inside"}

    def main_file(self) -> str:
        return FILE

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._stack.__exit__(kind, error, trace)


def _equal(found: object, array: np.ndarray) -> bool:
    import h5py

    if not isinstance(found, h5py.Dataset) or found.shape != array.shape or found.dtype != array.dtype:
        return False
    return bool(np.asarray(found[()]).tobytes() == array.tobytes())


@LAYOUTS.register("hdf5")
class Hdf5(Layout):
    about = "one HDF5 file with a dataset a video, or a group a video with a dataset a key; or a folder of HDF5 files, one a video"
    settings = frozenset({"keys", "place", "level", "rows_axis", "flat", "squeeze"})

    def open(self, source: Source, spec: ImportSpec) -> Reader:
        return open_containers(source, spec, Hdf5Container, SUFFIXES)

    def exporter(self, out: Path, plan: Plan) -> Exporter:
        return Hdf5Exporter(out, plan)
