"""Trajectory files row by row, in bounded memory: text as the original programs print it, plain or gzip, and ``.npy``."""

import gzip
import io
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

import numpy as np

from store.errors import FeatureError
from store.trajectory_format import BY_COUNT, SUFFIXES, Columns, candidates

BLOCK_BYTES = 8 << 20  # of text at a time; some 2,000 trajectories
BLOCK_ROWS = 4096  # of an array at a time
_KINDS = " or ".join(f"{columns.count} ({name})" for columns, name in zip(BY_COUNT.values(), ("improved", "dense 2011"), strict=True))

Block = tuple[Columns, np.ndarray]
"""The columns' meaning, the same for all of a file, and some rows: float32 [n, 436] or [n, 433], finite."""


def find_file(root: Path, video_id: str) -> Path:
    """The trajectory file of a video below ``root``, see ``candidates``; ``FeatureError`` where there is none or more than one."""
    found = [path for path in candidates(root, video_id) if path.is_file()]
    if not found:
        raise FeatureError(
            f"{root} has no trajectories of {video_id!r}; looked for that name, with or without suffix, and {', '.join(SUFFIXES)}"
        )
    if len(found) > 1:
        raise FeatureError(f"{' and '.join(map(str, found))} may both be the trajectories of {video_id!r}; remove one")
    return found[0]


def read_blocks(path: Path) -> Iterator[Block]:
    """Yield a file's trajectories in order; none for an empty file, as of a video in which nothing moves.

    Raises ``FeatureError`` with the file, and the line or row, for another number of columns, for NaN, Inf and what is no number, and for
    files that are damaged or cut short.
    """
    seen: Columns | None = None
    for first, rows in _array_blocks(path) if path.suffix == ".npy" else _text_blocks(path):
        columns = BY_COUNT.get(rows.shape[1])
        if columns is None or seen not in (None, columns):
            expected = _KINDS if seen is None else f"{seen.count} as before"
            raise FeatureError(f"{path}, {first}: {rows.shape[1]} columns; a trajectory has {expected}")
        seen = columns
        finite = np.isfinite(rows).all(1)
        if not finite.all():
            raise FeatureError(f"{path}, row {int(np.argmin(finite)) + 1} after {first}: NaN or Inf, or too large for float32")
        yield columns, rows


def _array_blocks(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, TypeError, SyntaxError, EOFError) as error:
        raise FeatureError(f"{path} is no array that can be read ({error}); extract this video again") from None
    if not isinstance(array, np.ndarray) or array.ndim != 2 or array.dtype.kind != "f":
        raise FeatureError(f"{path} is no array of floating point numbers with two dimensions, as trajectories are")
    for start in range(0, len(array), BLOCK_ROWS):
        with np.errstate(over="ignore"):
            rows = np.array(array[start : start + BLOCK_ROWS], np.float32)
        yield f"row {start}", rows


def _text_blocks(path: Path) -> Iterator[tuple[str, np.ndarray]]:
    line = 1
    with _open_text(path) as file:
        while text := _read(file, path):
            if not text.strip():
                line += text.count(b"\n")
                continue
            try:
                with np.errstate(over="ignore"):
                    rows = np.loadtxt(io.BytesIO(text), np.float32, comments=None, ndmin=2)
            except ValueError:
                raise FeatureError(_first_problem(path, text, line)) from None
            yield f"line {line}", rows
            line += text.count(b"\n")


def _read(file: IO[bytes], path: Path) -> bytes:
    try:
        text = file.read(BLOCK_BYTES)
        return text + file.readline(BLOCK_BYTES)
    except (OSError, EOFError, zlib.error) as error:
        raise FeatureError(f"{path} cannot be read: {error}; is it damaged, cut short or still being written?") from None


@contextmanager
def _open_text(path: Path) -> Iterator[IO[bytes]]:
    try:
        with path.open("rb") as raw:
            if raw.peek(2)[:2] == b"\x1f\x8b":  # by what it is: names lie
                with gzip.GzipFile(fileobj=raw) as packed:
                    yield packed  # type: ignore[misc]
            else:
                yield raw
    except OSError as error:
        raise FeatureError(f"{path} cannot be read: {error.strerror or error}") from None


def _first_problem(path: Path, text: bytes, line: int) -> str:
    """In words, the first line of a block that is no row like the others."""
    expected = 0
    for number, content in enumerate(text.split(b"\n"), line):
        fields = content.split()
        if not fields:
            continue
        for place, field in enumerate(fields, 1):
            try:
                float(field)
            except ValueError:
                return f"{path}, line {number}, column {place}: {field[:20].decode(errors='replace')!r} is no number"
        expected = expected or len(fields)
        if len(fields) != expected or expected not in BY_COUNT:
            return f"{path}, line {number}: {len(fields)} columns; a trajectory has {_KINDS}" + (
                " (the last line is cut short?)" if len(fields) < expected else ""
            )
    return f"{path}, in the lines from {line} on: no table of numbers"
