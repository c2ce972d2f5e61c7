"""``--force`` for many heads: the new runs come about aside and take the place of the old ones once all of them are complete.

Until then the old results stay, whatever goes wrong; and the same command, run again after an interruption, finds in the folder aside
what it has finished. (A single run needs no such folder: ``workplace`` does the same for it.)

    .<name>.<digest>.forced.partial/<name>/...    the folder as it will be

A folder aside is removed by the command that it belongs to, once that is done, and by no other: it may hold a night's work.
"""

import glob
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from store.digest import digest
from store.files import PARTIAL_SUFFIX, fsync_folder
from temporal.workplace import abandoned

FORCED_SUFFIX = f".forced{PARTIAL_SUFFIX}"


def aside(path: Path, identities: Sequence[Any]) -> Path:
    """Where what shall replace ``path`` comes about: the same folder for the same command, another one for other settings."""
    return path.with_name(f".{path.name}.{digest(list(identities))[:8]}{FORCED_SUFFIX}") / path.name


def take_places(folders: Sequence[Path], finals: Sequence[Path]) -> None:
    """Move each complete folder to its place; what is there goes, whatever it is."""
    for folder, final in zip(folders, finals, strict=True):
        final.parent.mkdir(parents=True, exist_ok=True)
        old = _moved_away(folder)
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        folder.rename(final)
        fsync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def put_back(path: Path, finals: Sequence[Path]) -> None:
    """Give those of ``finals`` (``path``, or folders in it) their old results that a command killed amid ``take_places`` moved away."""
    for place in _places(path):
        for final in finals:
            old = _moved_away(place / final.relative_to(path))
            if old.is_dir() and not final.exists():
                final.parent.mkdir(parents=True, exist_ok=True)
                old.rename(final)


def remove_aside(place: Path) -> None:
    """Remove the folder of ``aside``, unless another process works in it."""
    folder = place.parent
    if all(abandoned(inner) for inner in folder.rglob(f".*{PARTIAL_SUFFIX}") if inner.is_dir()):
        shutil.rmtree(folder, ignore_errors=True)


def _places(path: Path) -> Iterator[Path]:
    """What commands with whatever settings have aside for ``path``."""
    for folder in path.parent.glob(f".{glob.escape(path.name)}.*{FORCED_SUFFIX}"):
        if folder.name.removesuffix(FORCED_SUFFIX)[1:].rpartition(".")[0] == path.name:
            yield folder / path.name


def _moved_away(folder: Path) -> Path:
    """Where the results lie that ``folder`` replaces, until it has."""
    return folder.with_name(f".{folder.name}.old{PARTIAL_SUFFIX}")
