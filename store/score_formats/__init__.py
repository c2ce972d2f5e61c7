"""Scores as other tools write them, one file a format: what a file holds, and how a table is written as one. No pickle is ever run."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.errors import ScoreError
from store.registry import Registry
from store.scores import ScoreTable

MAX_BYTES = 1 << 30  # of a file, and of the numbers in it


@dataclass(frozen=True)
class Keys:
    """Names in the file of what to read; "" for the format's own choice."""

    values: str = ""
    ids: str = ""
    classes: str = ""
    labels: str = ""


@dataclass(frozen=True)
class Found:
    """What a file holds: numbers [V, C], and names as far as the file has them; ``labels`` are numbers [V] or names."""

    values: np.ndarray
    ids: tuple[str, ...] | None = None
    classes: tuple[str, ...] | None = None
    labels: np.ndarray | tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class ScoreFormat:
    """How files of one kind are read and written; the first suffix is the usual one."""

    about: str
    suffixes: tuple[str, ...]
    read: Callable[[Path, Keys], Found]
    write: Callable[[ScoreTable, Path], None]


SCORE_FORMATS: Registry[ScoreFormat] = Registry("score format", "store.score_formats")


def find_format(path: Path) -> str:
    """The name of the format that a file's suffix says."""
    for name in SCORE_FORMATS:
        if path.suffix.lower() in SCORE_FORMATS.get(name).suffixes:
            return name
    known = ", ".join(f"{name} ({', '.join(SCORE_FORMATS.get(name).suffixes)})" for name in SCORE_FORMATS)
    raise ScoreError(f"{path.name} has no suffix of a score format; say which it is with --format: {known}")


def read_bytes(path: Path) -> bytes:
    """The bytes of a file that is not larger than ``MAX_BYTES``."""
    if not path.is_file():
        raise ScoreError(f"there is no file {path}")
    if path.stat().st_size > MAX_BYTES:
        raise ScoreError(f"{path} has {path.stat().st_size} bytes; score files of at most {MAX_BYTES} are read")
    return path.read_bytes()


def whole_numbers(path: Path, array: np.ndarray, name: str) -> np.ndarray:
    """Labels as int64 [V], whatever type of number the file keeps them as; ``ScoreError`` for fractions, NaN and what is no number."""
    if array.dtype.kind not in "fiu" or not (np.isfinite(array).all() and (array == np.round(array)).all()):
        raise ScoreError(f"{path}: {name} is no vector of whole numbers")
    if array.size and np.abs(array.astype(np.float64)).max() > 2**53:
        raise ScoreError(f"{path}: {name} holds numbers as large as {array.max()}, which are no labels")
    return array.ravel().astype(np.int64)


def choose(path: Path, asked: str, fitting: dict[str, str], what: str, flag: str, all_of: dict[str, str]) -> str:
    """The name of what to read: as asked, or the only fitting one ({name: how it looks}); an error lists all that the file holds."""
    if asked and asked in all_of:
        return asked
    listed = ", ".join(f"{name} ({look})" for name, look in list(all_of.items())[:20]) or "nothing"
    if asked:
        raise ScoreError(f"{path} holds no {asked!r} for {flag}; it holds {listed}")
    if len(fitting) != 1:
        problem = "nothing that can be" if not fitting else f"{len(fitting)} things that can be"
        raise ScoreError(f"{path} holds {problem} {what}: {', '.join(fitting) or listed}; name one with {flag}")
    return next(iter(fitting))
