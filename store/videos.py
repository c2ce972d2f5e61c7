"""Video lists: read any kind, write CSV."""

from collections.abc import Mapping
from pathlib import Path
from typing import Literal, get_args

from store import list_files, list_folders, official_lists
from store.errors import ListError, SpecError
from store.list_files import write_csv
from store.video_list import Video, VideoList

__all__ = ["KINDS", "Kind", "Video", "VideoList", "find_kind", "read_list", "write_csv"]

Kind = Literal["auto", "csv", "txt", "folders", "pattern", "ucf101", "hmdb51"]
KINDS: tuple[str, ...] = get_args(Kind)


def read_list(
    source: Path,
    kind: str = "auto",
    root: Path | None = None,
    fold: int | None = None,
    *,
    classes: Path | None = None,
    pattern: str | None = None,
    class_names: Mapping[str, str] | None = None,
) -> VideoList:
    """Read a video list of any kind (``find_kind`` for "auto"); all of its problems are raised as one ``ListError`` with their places.

    ``root``: the folder that the paths of a file or an official list are relative to (default: where the list lies). ``fold``: 1 to 3
    of an official list (default 1). ``classes``: a file with the classes in order. ``pattern``, ``class_names``: see ``read_pattern``.
    Settings that a kind has no use for raise ``SpecError``.
    """
    source = Path(source)
    try:
        kind = find_kind(source, pattern) if kind == "auto" else kind
        _check_settings(source, kind, root, fold, pattern, class_names)
        if kind == "csv":
            return list_files.read_csv(source, root, classes)
        if kind == "txt":
            return list_files.read_paths(source, root, classes)
        if kind == "ucf101":
            return official_lists.read_ucf101(source, root, 1 if fold is None else fold, classes)
        if kind == "hmdb51":
            return official_lists.read_hmdb51(source, root, 1 if fold is None else fold, classes)
        if pattern is not None:
            return list_folders.read_pattern(source, pattern, class_names, classes)
        return list_folders.read_folders(source, classes)
    except OSError as error:
        raise ListError(f"{error.filename or source} cannot be read: {error.strerror}; nothing of {source} was used") from None


def find_kind(source: Path, pattern: str | None = None) -> str:
    """What a source is: a ``.csv`` or ``.txt`` file; a folder of UCF-101's or HMDB-51's lists, of names to match, or of classes."""
    if source.is_dir():
        if pattern is not None:
            return "pattern"
        return "ucf101" if official_lists.is_ucf101(source) else "hmdb51" if official_lists.is_hmdb51(source) else "folders"
    if not source.exists():
        raise ListError(f"there is no video list {source}; give a CSV file, a folder per class, or the folder of the official lists")
    if source.suffix.lower() not in (".csv", ".txt"):
        raise ListError(f"{source} is not a video list: its suffix is {source.suffix!r}, not .csv or .txt; say what it is with --kind")
    return source.suffix.lower()[1:]


def _check_settings(
    source: Path, kind: str, root: Path | None, fold: int | None, pattern: str | None, class_names: Mapping[str, str] | None
) -> None:
    if kind not in KINDS:
        raise SpecError(f"there is no kind of list {kind!r}; kinds: {', '.join(KINDS)}")
    if not (source.is_file() if kind in ("csv", "txt") else source.is_dir()):
        raise ListError(f"{source} is not a {'file' if kind in ('csv', 'txt') else 'folder'}, as a list of kind {kind} must be")
    if fold is not None and kind not in ("ucf101", "hmdb51"):
        raise SpecError(f"a list of kind {kind} has no folds; leave --fold away (its splits are in the list)")
    if root is not None and kind in ("folders", "pattern"):
        raise SpecError(f"a list of kind {kind} is made from the folder {source} itself; leave --root away")
    if (pattern is None) == (kind == "pattern"):
        raise SpecError(f"kind {kind} {'needs a' if pattern is None else 'takes no'} --pattern")
    if class_names is not None and kind != "pattern":
        raise SpecError(f"--class-names translates what a --pattern finds; a list of kind {kind} takes none")
