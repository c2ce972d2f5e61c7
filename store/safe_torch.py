"""Tensors inside pickles, read without torch: bytes of a storage as torch's format from before 1.6 has them, and a view of them.

A tensor pickled by itself (not by ``torch.save``) holds its storage as such a file: four small pickles, the keys, then the numbers.
"""

import io
import struct
from typing import Any

import numpy as np

from store.safe_pickle import DType, Refused, Stand, load

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "Float": "f4",
    "Double": "f8",
    "Half": "f2",
    "Long": "i8",
    "Int": "i4",
    "Short": "i2",
    "Char": "i1",
    "Byte": "u1",
    "Bool": "b1",
}
_STORAGE_NAMES: dict[tuple[str, str], Any] = {("torch", f"{name}Storage"): code for name, code in _STORAGES.items()}


class LoadStorage(Stand):
    """Stands for ``torch.storage._load_from_bytes``: the numbers of a storage, one-dimensional."""

    __slots__ = ()

    def __call__(self, raw: Any) -> np.ndarray:
        if not isinstance(raw, bytes):
            raise Refused("it holds a storage that is no bytes")
        file = io.BytesIO(raw)
        if load(file, {}) != _MAGIC:
            raise Refused("it holds a storage in a format of torch's that is not read")
        load(file, {}), load(file, {})  # versions and sizes of types
        kind = load(file, _STORAGE_NAMES, _storage_type)
        keys = load(file, {})
        if not isinstance(kind, DType) or not isinstance(keys, list) or len(keys) != 1:
            raise Refused("it holds a storage that is no single block of numbers")
        header = file.read(8)
        dtype = kind.numpy()
        held = len(raw) - file.tell()
        if len(header) != 8 or held != struct.unpack("<q", header)[0] * dtype.itemsize:
            raise Refused(f"it holds a storage whose size does not fit its {held} bytes")
        return np.frombuffer(raw, dtype, offset=file.tell())


def _storage_type(pid: Any) -> DType:
    if not isinstance(pid, tuple) or len(pid) < 2 or pid[0] != "storage":
        raise Refused("it holds a storage that refers to something else")
    return DType(pid[1])


class RebuildTensor(Stand):
    """Stands for ``torch._utils._rebuild_tensor_v2``: a strided view that never reaches beyond its storage."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *ignored: Any) -> np.ndarray:
        numbers = isinstance(size, tuple) and isinstance(stride, tuple) and len(size) == len(stride)
        if not numbers or not all(isinstance(side, int) and side >= 0 for side in (offset, *size, *stride)):
            raise Refused("it holds a tensor without a size")
        if not isinstance(storage, np.ndarray) or storage.ndim != 1:
            raise Refused("it holds a tensor without a storage")
        last = offset + sum((side - 1) * step for side, step in zip(size, stride, strict=True))
        count = int(np.prod(size, dtype=object)) if size else 1
        if count and (last >= len(storage) or count > len(storage)):
            raise Refused(f"it holds a tensor of size {str(size)[:60]} that reaches beyond its storage of {len(storage)}")
        if not count:
            return np.zeros(size, storage.dtype)
        return np.lib.stride_tricks.as_strided(storage[offset:], size, tuple(step * storage.itemsize for step in stride), writeable=False)
