"""TV-L1 in C (``native.c``): compiled at first use (``store/compiled.py``), called without torch.

Where there is no compiler, torch computes the same flow in ten times the time, and a warning says so.
"""

import ctypes
import functools
import multiprocessing
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.flow.tvl1.threads import share
from store.compiled import load_or_compile, switched_off

if TYPE_CHECKING:
    from extract.flow.tvl1 import Tvl1Params

SOURCE = Path(__file__).with_name("native.c")
EXACT = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")  # changes no result; what -ffast-math allows beyond would
FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", *EXACT, "-fopenmp-simd")
WAYS = (("-DTVL1_VARIANTS",), ())  # not every compiler and loader can choose among variants
ALIGNMENT = 64  # bytes


class _Params(ctypes.Structure):
    """``Params`` of native.c."""

    _fields_ = [
        ("step", ctypes.c_double),
        ("epsilon", ctypes.c_double),
        ("l_t", ctypes.c_float),
        ("theta", ctypes.c_float),
        ("taut", ctypes.c_float),
        ("warps", ctypes.c_int),
        ("inner", ctypes.c_int),
        ("outer", ctypes.c_int),
        ("median", ctypes.c_int),
    ]


def available() -> bool:
    """Whether there is a compiled TV-L1; the first call in a process loads it, the first on a machine compiles it (seconds)."""
    return _library() is not None


def solve(first: np.ndarray, second: np.ndarray, params: "Tvl1Params", threads: int) -> np.ndarray:
    """Flow of B pairs of grey images [B, H, W], of any number type, from 0 to 255: float32 [B, 2, H, W]. ``available()`` must hold.

    Each thread takes the next pair and holds the planes of one, 130 bytes a pixel.
    """
    library = _library()
    assert library is not None
    flow = np.empty((len(first), 2, *first.shape[1:]), np.float32)
    share(len(first), threads, functools.partial(_solve_some, library, first, second, params, flow))
    return flow


def _solve_some(
    library: ctypes.CDLL, first: np.ndarray, second: np.ndarray, params: "Tvl1Params", flow: np.ndarray, pairs: Iterator[int]
) -> None:
    """Fill ``flow`` at those of ``pairs`` that are left; the C function runs without the interpreter's lock."""
    sizes = params.sizes(*first.shape[1:])
    heights, widths = ((ctypes.c_int * len(sizes))(*side) for side in zip(*sizes, strict=True))
    space = np.empty(library.tvl1_work_floats(len(sizes), heights, widths) + ALIGNMENT // 4, np.float32)
    aligned = space[-space.ctypes.data % ALIGNMENT // 4 :]
    settings = _Params(
        params.scale_step,
        params.epsilon,
        params.lambda_ * params.theta,
        params.theta,
        params.tau / params.theta,
        params.warps,
        params.inner_iterations,
        params.outer_iterations,
        params.median_filtering,
    )
    for pair in pairs:
        images = [np.ascontiguousarray(image[pair], np.float32) for image in (first, second)]
        pointers = [ctypes.c_void_p(array.ctypes.data) for array in (*images, aligned, flow[pair, 0], flow[pair, 1])]
        library.tvl1_pair(*pointers[:2], len(sizes), heights, widths, ctypes.byref(settings), *pointers[2:])


@functools.cache
def _library() -> ctypes.CDLL | None:
    if switched_off():
        return None
    try:
        library = load_or_compile([SOURCE], FLAGS, WAYS)
    except RuntimeError as error:
        if multiprocessing.parent_process() is None:  # which has said so already where there is one
            slower = "TV-L1 flow runs as torch operations, which take ten times as long on a processor as its compiled form"
            warnings.warn(f"{slower}: {error}", stacklevel=3)
        return None
    library.tvl1_work_floats.restype = ctypes.c_size_t
    library.tvl1_pair.restype = None
    return library
