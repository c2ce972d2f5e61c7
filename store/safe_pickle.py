"""Read what a pickle holds without running what it says: plain containers, numpy arrays, torch tensors on a CPU; all else is refused.

A pickle is a program. Here its instructions are looked through first (so that none can ask for more memory than the file has bytes),
and every name that it calls for is answered by a stand-in of ours or refused: no function of numpy, torch or Python's is called by it.
The stand-ins have no attributes, so a pickle cannot change them either.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Callable
from typing import Any

import numpy as np

MAX_BYTES = 1 << 30
_MAX_DEPTH = 16
_ORDERS = {"<": "<", "=": "<", "|": "|", ">": ">"}
_ARRAY_CODES = {
    f"{kind}{size}" for kind, sizes in {"f": (2, 4, 8), "i": (1, 2, 4, 8), "u": (1, 2, 4, 8), "b": (1,)}.items() for size in sizes
}
_REFUSED = {"EXT1", "EXT2", "EXT4", "PERSID", "INST", "OBJ", "NEWOBJ", "NEWOBJ_EX", "NEXT_BUFFER", "READONLY_BUFFER"}
_PUTS = {"PUT", "BINPUT", "LONG_BINPUT"}


class Refused(ValueError):
    """Why a pickle is not read."""


def read_pickle(data: bytes) -> Any:
    """What a pickle of at most ``MAX_BYTES`` holds; ``Refused`` says which part of it is not plain data, or is damaged."""
    if len(data) > MAX_BYTES:
        raise Refused(f"it has {len(data)} bytes; at most {MAX_BYTES} are read")
    return _Resolver(10 * len(data) + 1000)(load(io.BytesIO(data), _names(len(data))), 0)


def load(file: io.BytesIO, names: dict[tuple[str, str], Any], storage: Callable[[Any], Any] | None = None) -> Any:
    """The next pickle of ``file``, unresolved (see ``_Resolver``); ``storage`` answers persistent ids, as torch's files have them."""
    start = file.tell()
    try:
        _look_through(file)
        file.seek(start)
        return _Unpickler(file, names, storage).load()
    except Refused:
        raise
    except Exception as error:  # a damaged pickle can end in any error of the pickle machine
        raise Refused(f"it is no pickle of plain data: {type(error).__name__}: {str(error)[:200]}") from None


def _look_through(file: io.BytesIO) -> None:
    """Read every instruction once: whole, of a known kind, and no place in the memo that the file is too short to have filled."""
    for number, (code, argument, _) in enumerate(pickletools.genops(file)):
        if code.name in _REFUSED:
            raise Refused(f"it holds an object of a class (instruction {code.name}), not plain data")
        if code.name in _PUTS and not (isinstance(argument, int) and 0 <= argument <= number):
            raise Refused(f"it fills place {argument} of its memo, but has put only {number} things before")


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO, names: dict[tuple[str, str], Any], storage: Callable[[Any], Any] | None) -> None:
        super().__init__(file)
        self._names, self._storage = names, storage

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) not in self._names:
            raise Refused(
                f"it asks for {module}.{name}, which could run code; only plain containers, numpy arrays and torch tensors are read"
            )
        return self._names[module, name]

    def persistent_load(self, pid: Any) -> Any:
        if self._storage is None:
            raise Refused("it refers to data outside itself")
        return self._storage(pid)


class DType:
    """Stands for ``numpy.dtype``: a code such as f4, and the order of the bytes."""

    __slots__ = ("code", "order")

    def __init__(self, code: Any) -> None:
        if code not in _ARRAY_CODES:
            raise Refused(f"it holds an array of type {str(code)[:40]!r}; whole numbers, floating-point numbers and bool are read")
        self.code, self.order = code, "<"

    def __setstate__(self, state: Any) -> None:
        self.order = _ORDERS[state[1]]

    def numpy(self) -> np.dtype:
        """The type."""
        return np.dtype(self.order + self.code)


class Array:
    """Stands for an array that is filled later."""

    __slots__ = ("values",)

    def __init__(self) -> None:
        self.values: np.ndarray | None = None

    def __setstate__(self, state: Any) -> None:
        _, shape, dtype, fortran, raw = state
        self.values = make_array(raw, dtype, shape, "F" if fortran else "C")


def make_array(raw: Any, dtype: Any, shape: Any, order: str) -> np.ndarray:
    """An array of exactly the bytes ``raw``; ``Refused`` where they do not fit the shape."""
    if not isinstance(dtype, DType) or not isinstance(raw, bytes | bytearray) or not isinstance(shape, tuple):
        raise Refused("it holds an array of Python objects, which are not read")
    kind = dtype.numpy()
    if not all(isinstance(side, int) and side >= 0 for side in shape) or math.prod(shape) * kind.itemsize != len(raw):
        raise Refused(f"it holds an array that claims the shape {str(shape)[:60]} of {kind}, but has {len(raw)} bytes")
    values = np.frombuffer(raw, kind).reshape(shape, order="F" if order == "F" else "C")  # no copy: a pickle may say it a million times
    values.setflags(write=False)
    return values


class Stand:
    """Base of what stands for a function: called by the pickle, without state, unchangeable."""

    __slots__ = ()

    def __setstate__(self, state: Any) -> None:
        raise Refused("it changes a function")


class _Reconstruct(Stand):
    __slots__ = ()

    def __call__(self, *ignored: Any) -> Array:
        return Array()


class _MakeDType(Stand):
    __slots__ = ()

    def __call__(self, code: Any, *ignored: Any) -> DType:
        return DType(code)


class _Scalar(Stand):
    __slots__ = ()

    def __call__(self, dtype: Any, raw: Any) -> Any:
        return make_array(raw, dtype, (), "C").item()


class _FromBuffer(Stand):
    __slots__ = ()

    def __call__(self, raw: Any, dtype: Any, shape: Any, order: Any, *ignored: Any) -> np.ndarray:
        return make_array(raw, dtype, shape, order)


def _encode(most: int) -> Stand:
    """Stands for ``_codecs.encode``, which old pickles write bytes with; together no more bytes than ``most``."""
    left = most

    class Encode(Stand):
        __slots__ = ()

        def __call__(self, text: Any, encoding: Any) -> bytes:
            nonlocal left
            if not isinstance(text, str) or encoding != "latin1" or len(text) > left:
                raise Refused(f"it encodes something as {str(encoding)[:40]!r}, or the same again and again")
            left -= len(text)
            return text.encode("latin1")

    return Encode()


class _OrderedDict(Stand):
    __slots__ = ()

    def __call__(self, *pairs: Any) -> dict[Any, Any]:
        if pairs:
            raise Refused("it holds an OrderedDict in a form that is not read")
        return {}


class _Resolver:
    """Puts arrays in the place of their stand-ins, counting what it passes: a few bytes can refer to one list a million times over."""

    def __init__(self, most: int) -> None:
        self.left = most

    def __call__(self, value: Any, depth: int) -> Any:
        self.left -= 1
        if self.left < 0 or depth > _MAX_DEPTH:
            raise Refused(f"its containers are nested more than {_MAX_DEPTH} deep, or refer to one another many times over")
        if value is None or isinstance(value, bool | int | float | str | bytes | np.ndarray):
            return value
        if isinstance(value, Array) and value.values is not None:
            return value.values
        if isinstance(value, list | tuple):
            return type(value)(self(item, depth + 1) for item in value)
        if isinstance(value, dict):
            try:
                return {self(key, depth + 1): self(item, depth + 1) for key, item in value.items()}
            except TypeError:  # an array as a key
                raise Refused("it holds a dict whose keys are no plain data") from None
        raise Refused(f"it holds a {type(value).__name__.strip('_')}, which is no plain data")


def _names(num_bytes: int) -> dict[tuple[str, str], Any]:
    from store.safe_torch import LoadStorage, RebuildTensor  # which need this module

    names: dict[tuple[str, str], Any] = {("numpy", "ndarray"): "ndarray", ("numpy", "dtype"): _MakeDType()}
    for core in ("core", "_core"):
        names |= {(f"numpy.{core}.multiarray", "_reconstruct"): _Reconstruct(), (f"numpy.{core}.multiarray", "scalar"): _Scalar()}
        names[f"numpy.{core}.numeric", "_frombuffer"] = _FromBuffer()
    names |= {("_codecs", "encode"): _encode(2 * num_bytes), ("collections", "OrderedDict"): _OrderedDict()}
    return names | {("torch._utils", "_rebuild_tensor_v2"): RebuildTensor(), ("torch.storage", "_load_from_bytes"): LoadStorage()}
