"""Files of a source: found below a folder or named by a list, and arrays read with every claim of their headers checked."""

import os
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath

import numpy as np

from store.errors import FeatureError, ListError, StoreError
from store.exchange.layout import Source
from store.list_files import inside_root, read_text
from store.npz import read_array
from store.video_list import Problems

UNREADABLE = (OSError, ValueError, TypeError, EOFError, MemoryError, RecursionError, OverflowError, SyntaxError)


def find_files(folder: Path, wanted: Callable[[str], object]) -> list[str]:
    """Paths of all files below ``folder`` whose name is wanted, relative to it, POSIX, sorted. Hidden ones are left out, links followed."""
    if not folder.is_dir():
        raise StoreError(f"there is no {'folder' if not folder.exists() else 'folder, but a file,'} {folder}")
    found = [os.path.relpath(path, folder) for path in _walk(folder) if wanted(os.path.basename(path))]  # noqa: PTH119 - names only
    return sorted(PurePosixPath(path).as_posix() for path in found)


def need_some(found: list[str], folder: Path, what: str) -> list[str]:
    """Return ``found``, or raise ``StoreError`` that says what the folder holds instead."""
    if not found:
        suffixes = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path in _walk(folder))  # noqa: PTH122 - names only
        inside = ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(5)) or "nothing"
        raise StoreError(f"{folder} holds no {what} (it holds {inside})")
    return found


def listed_files(source: Source, suffix: str) -> tuple[Path, list[str]]:
    """The folder that files lie in and their paths below it: those found in a folder, or those that a text file lists, one a line.

    A list's paths are relative to ``source.root`` (default: the list's folder) or absolute and below it. ``ListError`` has all problems.
    """
    if not source.path.is_file():
        if source.root is not None:
            raise ListError(f"{source.path} is no list of paths, so --root says nothing; leave it away")
        return source.path, need_some(find_files(source.path, lambda name: name.endswith(suffix)), source.path, f"{suffix} file")
    if source.path.suffix == suffix:
        raise ListError(f"{source.path} is one {suffix} file; give the folder that holds the files of all videos, or a list of paths")
    root = source.path.parent if source.root is None else source.root
    problems = Problems(source.path)
    found: dict[str, int] = {}
    for number, line in enumerate(read_text(source.path).splitlines(), 1):
        if not (text := line.strip()):
            continue
        inside = inside_root(text, root)
        if not text.endswith(suffix):
            problems.add(f"line {number}", f"{text[:120]!r} does not end in {suffix}; the list has one path a line")
        elif inside is None:
            problems.add(f"line {number}", f"{text!r} is not below {root}; say with --root what the paths are relative to")
        elif (first := found.setdefault(inside, number)) != number:
            problems.add(f"line {number}", f"{text!r} is the file of line {first} too")
    if not found and not problems.found:
        problems.add("", "lists no files")
    problems.check()
    return root, list(found)


def read_npy(path: Path) -> np.ndarray:
    """The array of a ``.npy`` file, read-only; one that is cut, has bytes too many, or needs pickle is a ``FeatureError``."""
    check_ordinary(path)
    try:
        with path.open("rb") as file:
            return read_array(file, os.fstat(file.fileno()).st_size, path.name)
    except FileNotFoundError:
        raise FeatureError(f"there is no file {path}") from None
    except UNREADABLE as error:
        raise FeatureError(f"{path} is not a .npy file that can be read: {words(error)}") from None


def check_ordinary(path: Path) -> None:
    """Raise ``FeatureError`` for what is there and no file with bytes in it; opening a pipe would wait for ever."""
    if path.exists() and not path.is_file():
        raise FeatureError(f"{path} is not a regular file")


def words(error: BaseException) -> str:
    """What an error says, on one line."""
    said = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join((said or type(error).__name__).split())[:400]


def _walk(top: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()  # folders, so that a link to a parent ends

    def refuse(error: OSError) -> None:
        raise StoreError(f"{error.filename} cannot be read: {error.strerror}; nothing was imported")

    for folder, folders, files in os.walk(top, followlinks=True, onerror=refuse):
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{folder}{os.sep}{name}" for name in files if not name.startswith("."))
