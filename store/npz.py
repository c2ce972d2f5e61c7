"""Reading ``.npz`` files that anybody may have written: no pickle, no allocation that the file's size does not justify."""

import zipfile
import zlib
from pathlib import Path
from typing import IO

import numpy as np

from store.errors import PipelineError

MAX_BYTES = 8 << 30  # of all arrays, unpacked


def read_npz(path: Path, error: type[PipelineError], most: int = MAX_BYTES) -> dict[str, np.ndarray]:
    """Every array of an ``.npz`` file by name; a file that is none, damaged or needs pickle raises ``error`` naming it and the reason.

    So does one whose arrays, unpacked, have more than ``most`` bytes together.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if info.filename.endswith(".npy")]
            if (size := sum(info.file_size for info in members)) > most:
                raise ValueError(f"its arrays have {size} bytes unpacked; at most {most} are read")
            return {info.filename.removesuffix(".npy"): _read_member(archive, info) for info in members}
    except FileNotFoundError:
        raise error(f"there is no file {path}") from None
    except (
        zipfile.BadZipFile,
        zlib.error,
        EOFError,
        OSError,
        ValueError,
        TypeError,
        NotImplementedError,
        RuntimeError,
        OverflowError,
    ) as reason:
        raise error(f"{path} is not an .npz file that can be read: {reason}") from None


def read_array(file: IO[bytes], size: int, name: str) -> np.ndarray:
    """The one array, in numpy's format and read-only, of an open file of ``size`` bytes; ``ValueError`` names what does not add up."""
    shape, fortran, dtype = _read_header(file, name)
    if dtype.hasobject or not dtype.itemsize:
        raise ValueError(f"{name} holds {dtype}, which is not read (Python objects would run code)")
    count = 1
    for side in shape:
        if side < 0:
            raise ValueError(f"{name} claims the shape {shape}")
        count *= side
    held = size - file.tell()
    if count * dtype.itemsize != held or held > MAX_BYTES:
        raise ValueError(f"{name} claims {count} numbers of {dtype.itemsize} bytes, but holds {held} bytes (at most {MAX_BYTES})")
    return np.frombuffer(file.read(held), dtype, count).reshape(shape, order="F" if fortran else "C")


def _read_member(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> np.ndarray:
    with archive.open(info) as file:
        return read_array(file, info.file_size, info.filename).copy()


def _read_header(file: IO[bytes], name: str) -> tuple[tuple[int, ...], bool, np.dtype]:
    version = np.lib.format.read_magic(file)
    readers = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in readers:
        raise ValueError(f"{name} is of version {version} of numpy's format; 1.0 and 2.0 can be read")
    try:
        header: tuple[tuple[int, ...], bool, np.dtype] = readers[version](file)
    except Exception as error:  # numpy parses the text as Python, so bad text ends in any error of Python's own parser
        raise ValueError(f"{name} has no header of numpy's: {str(error)[:200]}") from None
    return header
