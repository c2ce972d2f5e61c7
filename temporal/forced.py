"""``--force`` for many heads: the new runs come about aside and take the place of the old ones once all of them are complete.

Until then the old results stay, whatever goes wrong; and the same command, run again after an interruption, finds in the folder aside
what it has finished. (A single run needs no such folder: ``workplace`` does the same for it.)

    .<name>.<digest>.forced.partial/<name>/...    the folder as it will be
"""

import shutil
from collections.abc import Sequence
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
        old = folder.with_name(f".{folder.name}.old{PARTIAL_SUFFIX}")
        shutil.rmtree(old, ignore_errors=True)
        if final.exists():
            final.rename(old)
        folder.rename(final)
        fsync_folder(final.parent)
        shutil.rmtree(old, ignore_errors=True)


def remove_asides(path: Path) -> None:
    """Remove the folders aside of ``path``, unless another process works in them."""
    for folder in path.parent.glob(f".*{FORCED_SUFFIX}"):
        named = folder.name.removesuffix(FORCED_SUFFIX)[1:].rpartition(".")[0] == path.name
        if named and all(abandoned(place) for place in folder.rglob(f".*{PARTIAL_SUFFIX}") if place.is_dir()):
            shutil.rmtree(folder, ignore_errors=True)
