"""Video lists made from the files of a folder: a folder per class, or names that match a pattern."""

import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from store.errors import SpecError
from store.list_files import finish, read_classes
from store.video_list import Problems, Video, VideoList, nearest, some

VIDEO_SUFFIXES = (".3gp", ".avi", ".flv", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".mts", ".ogv", ".ts", ".webm", ".wmv")
IMAGE_SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".webp")
SPLIT_FOLDERS = frozenset({"train", "val", "test"})
PATTERN_GROUPS = ("label", "split", "group")


def read_folders(source: Path, classes: Path | None) -> VideoList:
    """Read ``<class>/.../<video>``: the folder directly below ``source`` is the class, the id is the path below ``source``.

    Videos are files with one of ``VIDEO_SUFFIXES`` (upper or lower case) at any depth, and folders that directly hold images (a folder of
    frames, not searched further). Hidden files and folders are left out, links are followed. Where every folder is called train, val
    or test, that is the split and the class is one level below. In the order of the ids.
    """
    problems = Problems(source)
    splits = {path.name for path in source.iterdir() if path.is_dir() and not path.name.startswith(".")}
    depth = 1 if splits and splits <= SPLIT_FOLDERS else 0
    places, found = [], find_videos(source)
    for name in found:
        parts = PurePosixPath(name).parts
        if len(parts) < depth + 2:
            problems.add(name, "lies beside the class folders; move it into the folder of its class, or give a CSV list or --pattern")
        else:
            places.append((name, Video(name, source / name, parts[depth], parts[0] if depth else "")))
    used = {(video.split, video.label) for _, video in places}
    for folder in class_folders(source, depth):
        name = folder.relative_to(source).as_posix()
        if ((folder.parent.name if depth else ""), folder.name) not in used and name not in found:
            problems.add(name, f"holds no video ({_contents(folder)}); known: {' '.join(VIDEO_SUFFIXES)}")
    if not places:
        problems.add("", "has no folder per class with videos in it")
    return finish(places, None if classes is None else read_classes(classes), problems)


def read_pattern(source: Path, pattern: str, class_names: Mapping[str, str] | None, classes: Path | None) -> VideoList:
    """Read every video below ``source`` whose path, relative to it, fully matches a regular expression; others are problems.

    Named groups ``label``, ``split`` and ``group`` of the pattern fill these columns. ``class_names`` translates labels as they stand in
    the names ({"0": "shake_hands"}) and orders the classes; without it the labels are the classes, sorted (or as in ``classes``).
    """
    expression = _compiled(pattern)
    problems = Problems(source)
    places = []
    for name in find_videos(source):
        match = expression.fullmatch(name)
        if match is None:
            problems.add(name, f"does not match {pattern!r}")
            continue
        found = {key: text or "" for key, text in match.groupdict().items()}
        label = found.get("label", "")
        if class_names is not None and label and label not in class_names:
            problems.add(name, f"label {label!r} is not among the class names given: {some(list(class_names))}")
            continue
        label = label if class_names is None else class_names.get(label, "")
        places.append((name, Video(name, source / name, label or None, found.get("split", ""), found.get("group", ""))))
    if not places and not problems.found:
        problems.add("", f"holds no video ({_contents(source)}); known: {' '.join(VIDEO_SUFFIXES)}")
    order = tuple(dict.fromkeys(class_names.values())) if class_names is not None else None
    return finish(places, order if classes is None else read_classes(classes), problems)


def find_videos(folder: Path) -> list[str]:
    """Paths of all videos and folders of frames below ``folder``, relative to it, POSIX, sorted."""
    return sorted(PurePosixPath(os.path.relpath(path, folder)).as_posix() for path in _walk(folder))


def class_folders(source: Path, depth: int) -> list[Path]:
    """The folders ``depth`` levels below the direct subfolders of ``source``, hidden ones left out, sorted."""
    folders = [source]
    for _ in range(depth + 1):
        folders = sorted(path for folder in folders for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    return folders


def _walk(top: Path) -> Iterator[str]:
    seen: set[tuple[int, int]] = set()  # folders, so that a link to a parent ends
    for folder, folders, files in os.walk(top, followlinks=True, onerror=_refuse):
        here = Path(folder).stat()
        if (here.st_dev, here.st_ino) in seen:
            folders.clear()
            continue
        seen.add((here.st_dev, here.st_ino))
        shown = [name for name in files if not name.startswith(".")]
        if folder != os.fspath(top) and any(name.lower().endswith(IMAGE_SUFFIXES) for name in shown):
            folders.clear()
            yield folder
            continue
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (f"{folder}{os.sep}{name}" for name in shown if name.lower().endswith(VIDEO_SUFFIXES))


def _refuse(error: OSError) -> None:
    raise error  # os.walk would leave the folder out without a word


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        expression = re.compile(pattern)
    except re.error as error:
        raise SpecError(f"pattern {pattern!r} is not a regular expression: {error}") from None
    for name in expression.groupindex:
        if name not in PATTERN_GROUPS:
            hint = (
                nearest(name, PATTERN_GROUPS)
                or f"; known: {', '.join(PATTERN_GROUPS)} (use plain parentheses for parts that are not needed)"
            )
            raise SpecError(f"pattern {pattern!r} names a group {name!r}{hint}")
    return expression


def _contents(folder: Path) -> str:
    suffixes = Counter(path.suffix.lower() or "no suffix" for path in folder.rglob("*") if path.is_file())
    return ", ".join(f"{count} x {suffix}" for suffix, count in suffixes.most_common(5)) or "it is empty"
