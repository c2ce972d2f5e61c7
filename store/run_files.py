"""Digests over the files of a finished run, in its spec.json, so that a damaged or exchanged file does not pass for the run's own.

    {"identity": ..., "result": ..., "digests": {"run": SHA-256 of identity and result, "files": {name: SHA-256}}}

spec.json is written last, so a run has all of these files and digests or it is not finished. Runs of versions before have no digests.
"""

import json
from collections.abc import Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from store.digest import digest
from store.errors import SpecError, StoreError
from store.files import check_writable, sha256_file

SPEC = "spec.json"
TABLES = ("scores.npz", "validation.npz")  # of any run, which one without digests does not list
FOLDS = "folds"  # of a cross-validation, a run each
DIGESTS = "digests"
UNCHECKED = "made by a version that recorded no digests of a run's files, so nothing tells whether they were damaged or exchanged since"
UNCHECKED_RUNS = f"runs that were there already were {UNCHECKED}"


def digests_of(folder: Path, identity: Any, result: Any, names: Iterable[str]) -> dict[str, Any]:
    """What spec.json says of the run and of those of ``names`` that are in ``folder``."""
    files = {name: sha256_file(folder / name) for name in names if (folder / name).is_file()}
    return {"run": digest({"identity": identity, "result": result}), "files": files}


def recorded_files(data: Mapping[str, Any], file: Path) -> dict[str, str] | None:
    """Name -> SHA-256 of ``data``, read from the spec.json ``file``; None of a run without digests; StoreError where it was changed."""
    if DIGESTS not in data:
        return None
    try:
        recorded, files = str(data[DIGESTS]["run"]), {str(name): str(value) for name, value in dict(data[DIGESTS]["files"]).items()}
        found = digest({"identity": data.get("identity"), "result": data.get("result")})
    except (KeyError, TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"{file} is damaged: its digests cannot be read ({error!r}); {train_again(file.parent)}") from None
    if any(PurePosixPath(name).is_absolute() or ".." in PurePosixPath(name).parts for name in files):
        raise StoreError(f"{file} is damaged: it speaks of files outside its folder; {train_again(file.parent)}")
    if recorded != found:
        raise StoreError(f"{file} was changed or damaged after the run was finished; {train_again(file.parent)}")
    return files


def check_files(folder: Path, files: Mapping[str, str], names: Iterable[str] | None = None) -> None:
    """StoreError for the first of ``names`` (default: all of ``files``) that is missing or is not what the run wrote."""
    for name in files if names is None else names:
        path = folder / name
        if name not in files:
            raise StoreError(f"{path} is none of the files that the run {folder} wrote; {train_again(folder)}")
        try:
            found = sha256_file(path) if path.is_file() else ""
        except FileNotFoundError:
            found = ""
        if found == files[name]:
            continue
        if _replaced(folder, files):
            raise StoreError(f"the run {folder} was replaced or removed while it was read; run the command again")
        again = train_again(path.parent if name.startswith(f"{FOLDS}/") and path.parent.is_dir() else folder)
        if not found:
            raise StoreError(f"the run {folder} is incomplete: it has no {name}; {again}")
        raise StoreError(
            f"{path} is not the file that the run wrote: it was damaged, or comes from another run (SHA-256 {found[:12]}..., recorded "
            f"in {SPEC}: {files[name][:12]}...); {again}"
        )


def check_beside(path: Path) -> None:
    """``check_files`` for a file in whatever folder: nothing where that is no run, or one that did not write it."""
    data = _run_data(path.parent / SPEC)
    files = recorded_files(data, path.parent / SPEC) if data else None
    if files and path.name in files:
        check_files(path.parent, files, [path.name])


def check_output(*finals: Path) -> None:
    """Before the work for the files ``finals``: SpecError for one that a run beside it wrote, else what ``check_writable`` raises."""
    for final in finals:
        file = final.parent / SPEC
        data = _run_data(file)
        if data is None:
            continue
        try:
            files = recorded_files(data, file)
        except StoreError:
            files = None
        if final.name in {SPEC, *(TABLES if files is None else files)}:
            raise SpecError(f"{final} is not written, for this file belongs to the run {final.parent}; choose another name")
    check_writable(*finals)


def is_unchecked(path: Path) -> bool:
    """Whether a file lies in a run without digests."""
    data = _run_data(path.parent / SPEC)
    return data is not None and DIGESTS not in data


def train_again(folder: Path) -> str:
    """Advice: how a run in ``folder`` is made anew. A fold's cross-validation is finished until its spec.json goes, too.

    Of a cross-validation itself that alone goes: it is joined anew from its folds, each of which took its time.
    """
    if (folder / FOLDS).is_dir():
        return f"remove {folder / SPEC} and run the command that trained it again: it joins the folds anew and trains only those not there"
    whole = folder.parent.parent / SPEC
    also = f" and {whole}" if folder.parent.name == FOLDS and whole.is_file() else ""
    return f"remove {folder}{also} and run the command that trained it again (train-head also replaces it with --force)"


def _replaced(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the run's spec.json does not speak (any more) of ``files``, which were read from it before."""
    data = _run_data(folder / SPEC)
    try:
        return data is None or recorded_files(data, folder / SPEC) != dict(files)
    except StoreError:
        return True


def _run_data(file: Path) -> dict[str, Any] | None:
    """What a run's spec.json holds; None for a file that is none."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) and {"identity", "result"} <= data.keys() else None
