"""Video lists as files: CSV in and out, one path a line, and the order of the classes."""

import csv
import io
import os
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from store.errors import ListError
from store.files import write_text
from store.video_list import Problems, Video, VideoList, check_classes, check_videos, nearest

COLUMNS = ("id", "path", "label", "split", "group")
_NUMBERED = re.compile(r"(\d+)\s+(\S.*)")


def read_csv(source: Path, root: Path | None, classes: Path | None) -> VideoList:
    """Read a CSV list: a header with any of ``COLUMNS`` in any order, at least ``id`` or ``path``; blank lines are skipped.

    Paths are relative to ``root`` (default: the CSV's folder). A missing ``path`` is the id; a missing id is the path relative to the
    root, suffix included. Classes: the file ``classes``, else ``<name>.classes.txt`` beside the CSV, else the labels, sorted.
    """
    problems = Problems(source)
    lines = csv.reader(io.StringIO(read_text(source), newline=""), skipinitialspace=True, strict=True)
    rows = list(_rows(lines, problems))
    if not rows:
        problems.add("", "is empty; the first line names the columns, e.g. id,path,label,split,group")
        problems.check()
    header = rows.pop(0)[1]
    _check_header(header, problems)
    root = source.parent if root is None else root
    places = []
    for where, cells in rows:
        if len(cells) == len(header):
            places.append((where, _video(dict(zip(header, cells, strict=True)), root, where, problems)))
        else:
            problems.add(where, f"{len(cells)} cells; the header has {len(header)}")
    beside = class_file(source)
    explicit = read_classes(classes or beside) if classes or beside.is_file() else None
    return finish(places, explicit, problems)


def read_paths(source: Path, root: Path | None, classes: Path | None) -> VideoList:
    """Read a text file with one path a line (relative to ``root``, default the file's folder); blank lines are skipped."""
    problems = Problems(source)
    root = source.parent if root is None else root
    lines = [(f"line {number}", line.strip()) for number, line in enumerate(read_text(source).splitlines(), 1)]
    places = [(where, _video({"path": line}, root, where, problems)) for where, line in lines if line]
    return finish(places, None if classes is None else read_classes(classes), problems)


def write_csv(videos: VideoList, path: Path) -> None:
    """Write a list so that ``read_csv`` gives an equal one back: every column, and ``<name>.classes.txt`` where sorting would not do.

    Paths below the CSV's folder are written relative to it, others absolute.
    """
    folder = path.parent.absolute()
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(COLUMNS)
    for video in videos:
        writer.writerow([video.id, _written_path(video.path, folder), video.label or "", video.split, video.group])
    beside = class_file(path)
    try:
        if beside.exists() or videos.classes != tuple(sorted({video.label for video in videos if video.label is not None})):
            write_text(beside, "".join(f"{name}\n" for name in videos.classes))
        write_text(path, text.getvalue())
    except UnicodeEncodeError as error:
        raise ListError(f"{path} cannot be written: {error}; a list is UTF-8, so rename the file or folder that is not") from None


def class_file(path: Path) -> Path:
    """Where the class order of a CSV list lies: ``list.csv`` -> ``list.classes.txt``."""
    return path.with_name(path.stem + ".classes.txt")


def read_classes(path: Path) -> tuple[str, ...]:
    """Class names in order: one a line, or ``number name`` on every line, numbered from 0 or 1 without a gap (classInd.txt)."""
    problems = Problems(path)
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    numbered = [_NUMBERED.fullmatch(name) for name in names]
    if names and all(numbered):
        entries = {int(match[1]): match[2] for match in numbered if match}
        start = min(entries)
        if start > 1 or len(entries) != len(names) or max(entries) != start + len(names) - 1:
            problems.add("", f"the classes are numbered {start} to {max(entries)}, but there are {len(names)}; count from 0 or 1, no gap")
        names = [entries[number] for number in sorted(entries)]
    if not names:
        problems.add("", "holds no class names; write one a line")
    check_classes(names, problems)
    problems.check()
    return tuple(names)


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, with or without a byte order mark; anything else raises ``ListError``."""
    try:
        return path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise ListError(f"{path} is not UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except OSError as error:
        raise ListError(f"{path} cannot be read: {error.strerror}") from None


def finish(places: Sequence[tuple[str, Video]], classes: tuple[str, ...] | None, problems: Problems) -> VideoList:
    """Check what a reader found (place, video), raise all problems, and make the list; without ``classes`` the labels are sorted."""
    if classes is None:
        classes = tuple(sorted({video.label for _, video in places if video.label is not None}))
        check_classes(classes, problems)
    check_videos(places, classes, problems)
    first: dict[str, str] = {}
    for where, video in places:
        if (earlier := first.setdefault(os.path.normpath(video.path), where)) != where:
            problems.add(where, f"path {str(video.path)!r} is the file at {earlier} too; one file is one video")
    if not places and not problems.found:
        problems.add("", "lists no videos")
    problems.check()
    return VideoList(tuple(video for _, video in places), classes)


def _rows(lines: Iterator[list[str]], problems: Problems) -> Iterator[tuple[str, list[str]]]:
    number = 0
    try:
        for cells in lines:
            where, number = f"line {number + 1}", lines.line_num  # type: ignore[attr-defined]
            if any(cell.strip() for cell in cells):
                yield where, cells
    except csv.Error as error:
        problems.add(f"line {number + 1}", f"is not CSV: {error}")


def _check_header(header: list[str], problems: Problems) -> None:
    header[:] = [name.strip() for name in header]
    for name in header:
        if name not in COLUMNS:
            problems.add("line 1", f"unknown column {name!r}{nearest(name, COLUMNS) or '; known: ' + ', '.join(COLUMNS)}")
    for name in sorted({name for name in header if header.count(name) > 1}):
        problems.add("line 1", f"column {name!r} is there more than once")
    if "id" not in header and "path" not in header:
        problems.add("line 1", "there is no column 'id' and no column 'path'; one of them is needed (and commas between columns)")
    problems.check()


def _video(row: dict[str, str], root: Path, where: str, problems: Problems) -> Video:
    """One row as a video. Only a ``path`` cell may leave the root, and only beside an id."""
    path, name = row.get("path", ""), row.get("id", "")
    if "\0" in path or (path and path != path.strip()):
        problems.add(where, f"path {path!r} has white space at an end or a NUL")
    if path and name:
        identity, location = name, root / path
    else:
        inside = inside_root(path or name, root)
        if not path and not name:
            problems.add(where, "has neither id nor path")
        elif inside is None and not path:
            problems.add(where, f"id {name!r} leaves the list's folder, so it cannot also be the path; add a column 'path'")
        elif inside is None:
            problems.add(where, f"path {path!r} is not below {root}, so the video has no id; give it one (column 'id'), or another --root")
        identity, location = name or inside or where, root / (inside or where)
    return Video(identity, location, row.get("label") or None, row.get("split", ""), row.get("group", ""))


def inside_root(text: str, root: Path) -> str | None:
    """``text`` as a normal POSIX path relative to ``root``, or None where it lies outside."""
    inside = os.path.normpath(text)
    if inside.startswith("/"):
        base = os.path.normpath(root.absolute()).rstrip("/") + "/"
        return inside.removeprefix(base) if inside.startswith(base) else None
    return None if inside in (".", "..") or inside.startswith("../") else inside


def _written_path(path: Path, folder: Path) -> str:
    absolute = path.absolute()
    below = absolute.is_relative_to(folder) and ".." not in absolute.parts
    return (absolute.relative_to(folder) if below else absolute).as_posix()
