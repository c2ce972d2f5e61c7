"""The element-wise parts of recurrences in C (``native.c``): compiled at first use (``store/compiled.py``), in torch's own threads.

Where there is no compiler, torch operations compute the same, and a warning says so.
"""

import ctypes
import functools
import multiprocessing
import warnings
from pathlib import Path

import torch
from torch import Tensor

from store.compiled import load_or_compile, switched_off

SOURCES = tuple(Path(__file__).with_name(name) for name in ("native.c", "cells.h"))
# Neither flag changes a result; sums may be contracted with products, for nothing here is compared bit by bit with torch.
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-fno-math-errno", "-fno-trapping-math", "-fopenmp-simd")
WAYS = (("-DRECURRENCE_VARIANTS",), ())  # not every compiler and loader can choose among variants
SUFFIXES = {torch.float32: "float32", torch.float64: "float64", torch.bfloat16: "bfloat16"}  # by the type of the products
SIZES = ("seeds", "steps", "batch", "hidden")
TENSORS: tuple[str, ...] = ("gates", "recurrent", "kept", "bias_x", "bias_h", "peephole", "x", "zeros", "cell", "memory", "low")
TENSORS += ("to_memory", "to_gates", "carried", "to_cell", "to_x", "to_bias", "to_peephole")


class Problem(ctypes.Structure):
    """``Problem`` of native.c. The tensors must outlive it: it holds their addresses only."""

    _fields_ = [
        *((name, ctypes.c_long) for name in SIZES),
        ("threads", ctypes.c_int),
        ("parallel", ctypes.c_void_p),
        ("columns", ctypes.c_long),
        ("squash", ctypes.c_int),
        ("scale", ctypes.c_double),
        *((name, ctypes.c_void_p) for name in TENSORS),
    ]


class Kernel:
    """One function of native.c on one problem; call it with the step."""

    def __init__(self, function: str, sizes: tuple[int, int, int, int], tensors: dict[str, Tensor | None], **scalars: float) -> None:
        """``sizes``: S, T, B, H; ``tensors``: by the names of ``Problem``, contiguous; the type of ``gates`` is the products'."""
        gates = tensors["gates"]
        assert gates is not None
        library = _library()
        assert library is not None
        assert all(tensor is None or tensor.is_contiguous() for tensor in tensors.values()), "native.c knows no strides"
        real = torch.float64 if gates.dtype == torch.float64 else torch.float32
        self.tensors = tensors = tensors | {"zeros": torch.zeros(sizes[3], dtype=real)}
        self.problem = Problem(threads=torch.get_num_threads(), parallel=_openmp(), **scalars)
        for name, size in zip(SIZES, sizes, strict=True):
            setattr(self.problem, name, size)
        for name, tensor in tensors.items():
            setattr(self.problem, name, None if tensor is None else tensor.data_ptr())
        self.function = getattr(library, f"{function}_{SUFFIXES[gates.dtype]}")
        self.reference = ctypes.byref(self.problem)

    def __call__(self, step: int = 0) -> None:
        self.function(self.reference, step)


def available(device: torch.device, products: torch.dtype) -> bool:
    """Whether there are compiled cells; the first call in a process loads them, the first on a machine compiles them (seconds)."""
    return device.type == "cpu" and products in SUFFIXES and _library() is not None


@functools.cache
def _library() -> ctypes.CDLL | None:
    if switched_off():
        return None
    try:
        library = load_or_compile(SOURCES, FLAGS, WAYS)
    except RuntimeError as error:
        if multiprocessing.parent_process() is None:  # which has said so already where there is one
            slower = "recurrent layers run as torch operations, which are slower on a processor than their compiled form"
            warnings.warn(f"{slower}: {error}", stacklevel=3)
        return None
    for name in (f"{cell}_{direction}" for cell in ("sru", "lstm", "gru") for direction in ("forward", "backward")):
        for suffix in SUFFIXES.values():
            function = getattr(library, f"{name}_{suffix}")
            function.argtypes, function.restype = (ctypes.c_void_p, ctypes.c_long), None
    return library


@functools.cache
def _openmp() -> int | None:
    """Address of the function that runs something in torch's threads; None where torch has another kind of threads."""
    try:
        return ctypes.cast(ctypes.CDLL(None).GOMP_parallel, ctypes.c_void_p).value
    except (AttributeError, OSError, TypeError):
        return None
