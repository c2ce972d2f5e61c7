"""Trajectory files as they are written: row by row, in bounded memory, whole or not at all."""

import gzip
import os
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from store.files import atomic_path
from store.trajectory_format import IMPROVED

FORMATS = {"npy": ".npy", "txt.gz": ".txt.gz", "txt": ".txt"}
DECIMALS = 6  # of header and trajectory, as the original program writes them; descriptors have one more
GZIP_LEVEL = 1  # higher ones take many times as long for a tenth of the bytes
ROOM = 16  # digits kept free in an array's header for the number of rows


class RowWriter(ABC):
    """Takes rows float32 [n, 436] as they come."""

    @abstractmethod
    def add(self, rows: np.ndarray) -> None:
        """Write some rows."""


class ArrayWriter(RowWriter):
    """``.npy``: the header is written last, over the room that was left for it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file, self._rows = file, 0
        file.write(self._header())

    def add(self, rows: np.ndarray) -> None:
        self._rows += len(rows)
        self._file.write(np.ascontiguousarray(rows, "<f4").tobytes())

    def close(self) -> None:
        """Write the true number of rows into the header."""
        self._file.seek(0)
        self._file.write(self._header())

    def _header(self) -> bytes:
        shape = f"({self._rows}, {IMPROVED.count})"
        text = f"{{'descr': '<f4', 'fortran_order': False, 'shape': {shape}, }}".encode()
        length = -(-(10 + len(text) + ROOM) // 64) * 64
        return b"\x93NUMPY\x01\x00" + (length - 10).to_bytes(2, "little") + text.ljust(length - 11) + b"\n"


class TextWriter(RowWriter):
    """The lines that the original program prints: fields apart by tabs, a tab at the end."""

    def __init__(self, file: BinaryIO | gzip.GzipFile) -> None:
        self._file: IO[bytes] = file  # type: ignore[assignment]
        numbers = IMPROVED.header - 1 + IMPROVED.descriptor("trajectory").stop - IMPROVED.header
        descriptors = IMPROVED.count - 1 - numbers
        self._line = "%d\t" + f"%.{DECIMALS}f\t" * numbers + f"%.{DECIMALS + 1}f\t" * descriptors + "\n"

    def add(self, rows: np.ndarray) -> None:
        self._file.write("".join(self._line % tuple(row) for row in rows.tolist()).encode())


@contextmanager
def write_rows(path: Path, form: str) -> Iterator[RowWriter]:
    """Yield a writer of one of ``FORMATS``; the file appears, complete, when the ``with`` statement ends without an error."""
    with atomic_path(path) as aside, aside.open("wb") as file:
        if form == "npy":
            writer = ArrayWriter(file)
            yield writer
            writer.close()
        elif form == "txt":
            yield TextWriter(file)
        else:
            with gzip.GzipFile("", "wb", GZIP_LEVEL, file, mtime=0) as packed:  # no name and no time: equal rows, equal bytes
                yield TextWriter(packed)
        file.flush()
        os.fsync(file.fileno())
