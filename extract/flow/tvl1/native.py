"""TV-L1 in C (``native.c``): compiled at first use by the machine's own compiler, kept in the cache folder, called without torch.

The compiled file runs on every processor of its kind (it holds a variant with AVX2 and one without), so that what a cluster's login node
compiled serves its other nodes. Where there is no compiler, torch computes the same flow in ten times the time, and a warning says so.
``ACTIONCACHE_NATIVE=0`` switches it off.
"""

import ctypes
import functools
import hashlib
import multiprocessing
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from extract.downloads import cache_folder
from extract.flow.tvl1.threads import share
from store.files import fsync_file

if TYPE_CHECKING:
    from extract.flow.tvl1 import Tvl1Params

SWITCH = "ACTIONCACHE_NATIVE"
SOURCE = Path(__file__).with_name("native.c")
COMPILERS = ("cc", "gcc", "clang")
COMPILE_SECONDS = 300
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
    if os.environ.get(SWITCH) == "0":
        return None
    digest = hashlib.sha256(SOURCE.read_bytes() + repr((FLAGS, WAYS)).encode()).hexdigest()[:16]
    path = cache_folder().parent / "compiled" / f"tvl1-{digest}-{sys.platform}-{platform.machine()}.so"
    with suppress(OSError):  # there is none yet, or it is for another system
        return _load(path)
    try:
        return _build(path)
    except RuntimeError as error:
        if multiprocessing.parent_process() is None:  # which has said so already where there is one
            slower = "TV-L1 flow runs as torch operations, which take ten times as long on a processor as its compiled form"
            warnings.warn(f"{slower}: {error}", stacklevel=3)
        return None


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.tvl1_work_floats.restype = ctypes.c_size_t
    library.tvl1_pair.restype = None
    return library


def _build(path: Path) -> ctypes.CDLL:
    """Compile, load, and keep as ``path`` where that can be written. ``RuntimeError`` says why it cannot be compiled."""
    with _workplace(path.parent) as folder:
        library, file = _compile(Path(folder), _compiler())
        with suppress(OSError):
            fsync_file(file)
            file.replace(path)
    return library


def _workplace(folder: Path) -> tempfile.TemporaryDirectory[str]:
    """A new folder in ``folder``, so that a rename moves what is made there; elsewhere if it cannot be written."""
    with suppress(OSError):
        folder.mkdir(parents=True, exist_ok=True)
        return tempfile.TemporaryDirectory(dir=folder, prefix=".")
    return tempfile.TemporaryDirectory()


def _compiler() -> list[str]:
    """The command ``$CC``, else the first of ``COMPILERS`` on the path."""
    if given := shlex.split(os.environ.get("CC", "")):
        return given
    for name in COMPILERS:
        if path := shutil.which(name):
            return [path]
    raise RuntimeError(f"no C compiler ({', '.join(COMPILERS)}) is on the path; install one or name it in the environment variable CC")


def _compile(folder: Path, compiler: list[str]) -> tuple[ctypes.CDLL, Path]:
    problem = ""
    for number, way in enumerate(WAYS):
        file = folder / f"{number}.so"
        try:
            command = [*compiler, *FLAGS, *way, str(SOURCE), "-o", str(file), "-lm"]
            subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS, check=True)
            return _load(file), file
        except subprocess.CalledProcessError as error:
            problem = f"{shlex.join(compiler)} failed: {error.stderr.strip()[-300:]}"
        except (OSError, subprocess.TimeoutExpired) as error:
            problem = f"{shlex.join(compiler)}: {error}"
    raise RuntimeError(problem)
