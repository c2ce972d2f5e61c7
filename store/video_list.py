"""Videos as every stage sees them: who, where the file is, and what is known about it."""

import difflib
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from store.errors import ListError, SpecError

SPLITS = ("train", "val", "test", "")  # "" is a video without a part, e.g. flag 0 of HMDB-51
MAX_ID_BYTES = 4096
MAX_SHOWN = 20
_SHOWN_NAMES = 5


class Problems:
    """Collects what is wrong with a list, each with its place, to be raised as one ``ListError``."""

    def __init__(self, source: object) -> None:
        self.source = str(source)
        self.found: list[str] = []

    def add(self, where: str, text: str) -> None:
        """Note a problem at ``where``, e.g. ``line 12``."""
        self.found.append(f"{where}: {text}" if where else text)

    def check(self) -> None:
        """Raise what was collected, if anything; a long collection is cut and says by how much."""
        if not self.found:
            return
        count = len(self.found)
        lines = [f"{self.source} has {count} problem{'s' if count > 1 else ''}:", *(f"  {text}" for text in self.found[:MAX_SHOWN])]
        if count > MAX_SHOWN:
            lines.append(f"  ... and {count - MAX_SHOWN} more")
        raise ListError("\n".join(lines))


@dataclass(frozen=True)
class Video:
    """One video: its id (never a path, never only the stem), its file or folder of frames, and what the list says of it.

    ``split`` is one of "train", "val", "test" or "" (none); videos of one ``group`` (source film, scene, person) stay on one side of
    every cut; "" is no group.
    """

    id: str
    path: Path
    label: str | None = None
    split: str = ""
    group: str = ""


@dataclass(frozen=True)
class VideoList:
    """Videos in order, and the classes whose order numbers the labels. Unusable ids, labels or splits raise one ``ListError``."""

    videos: tuple[Video, ...]
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        object.__setattr__(self, "videos", tuple(self.videos))
        object.__setattr__(self, "classes", tuple(self.classes))
        problems = Problems("the video list")
        check_classes(self.classes, problems)
        check_videos(((f"video {number}", video) for number, video in enumerate(self.videos, 1)), self.classes, problems)
        problems.check()

    def __len__(self) -> int:
        return len(self.videos)

    def __iter__(self) -> Iterator[Video]:
        return iter(self.videos)

    @property
    def ids(self) -> list[str]:
        """Ids, in list order."""
        return [video.id for video in self.videos]

    @cached_property
    def _by_id(self) -> dict[str, Video]:
        return {video.id: video for video in self.videos}

    def by_id(self, video_id: str) -> Video:
        """The video with this id; an unknown one raises ``ListError``."""
        return self._find([video_id])[0]

    def select(self, split: str) -> "VideoList":
        """The videos of one split ("train", "val", "test", or "" for those without), maybe none; the same classes."""
        if split not in SPLITS:
            raise ListError(f"there is no split {split!r}; splits are train, val, test, or '' for none")
        return VideoList(tuple(video for video in self.videos if video.split == split), self.classes)

    def subset(self, ids: Iterable[str]) -> "VideoList":
        """The videos with these ids, in that order; the same classes. Unknown ids raise ``ListError``."""
        return VideoList(tuple(self._find(list(ids))), self.classes)

    def part(self, index: int, count: int) -> "VideoList":
        """Part ``index`` of ``count`` (from 1): every ``count``-th video; the parts are disjoint and together the list."""
        if not 1 <= index <= count:
            raise SpecError(f"part {index}/{count}: parts are counted from 1 to {max(count, 1)}")
        return VideoList(self.videos[index - 1 :: count], self.classes)

    def labels(self) -> np.ndarray:
        """Labels as positions in ``classes``, int64 [V]; unlabelled videos raise ``ListError``."""
        unlabelled = [video.id for video in self.videos if video.label is None]
        if unlabelled:
            raise ListError(f"{len(unlabelled)} of {len(self)} videos have no label: {some(unlabelled)}; add them to the list")
        position = {name: index for index, name in enumerate(self.classes)}
        return np.array([position[str(video.label)] for video in self.videos], np.int64)

    def groups(self) -> dict[str, list[str]]:
        """Ids of each group, in order of first appearance; videos without a group are left out."""
        groups: dict[str, list[str]] = {}
        for video in self.videos:
            if video.group:
                groups.setdefault(video.group, []).append(video.id)
        return groups

    def missing_files(self) -> list[str]:
        """Ids whose file or folder of frames does not exist."""
        return [video.id for video in self.videos if not video.path.exists()]

    def _find(self, ids: Sequence[str]) -> list[Video]:
        unknown = [name for name in ids if name not in self._by_id]
        if unknown:
            raise ListError(f"{len(unknown)} of {len(ids)} ids are not in this list of {len(self)} videos: {some(unknown)}")
        return [self._by_id[name] for name in ids]


def check_classes(classes: Sequence[str], problems: Problems) -> None:
    """Note empty, repeated and unprintable class names."""
    for name in sorted(name for name, count in Counter(classes).items() if count > 1):
        problems.add("", f"class {name!r} is listed more than once")
    for name in classes:
        if text := text_problem(name):
            problems.add("", f"class {name!r} {text}")


def check_videos(videos: Iterable[tuple[str, Video]], classes: Sequence[str], problems: Problems) -> None:
    """Note every (place, video) with an unusable or repeated id, a label that is no class, an unknown split or an unusable group."""
    known = set(classes)
    first: dict[str, str] = {}
    for where, video in videos:
        if text := text_problem(video.id):
            problems.add(where, f"id {video.id[:80]!r} {text}")
        elif len(video.id.encode()) > MAX_ID_BYTES:
            problems.add(where, f"id {video.id[:80]!r}... has {len(video.id.encode())} bytes; {MAX_ID_BYTES} are allowed")
        if (earlier := first.setdefault(video.id, where)) != where:
            problems.add(where, f"id {video.id!r} is the id at {earlier} too; ids must be unique")
        if video.label is not None and video.label not in known:
            problems.add(where, f"label {video.label!r} is not one of the {len(known)} classes{nearest(video.label, known)}")
        if video.split not in SPLITS:
            problems.add(where, f"split {video.split!r} is not one of train, val, test, or empty{nearest(video.split, SPLITS)}")
        if video.group and (text := text_problem(video.group)):
            problems.add(where, f"group {video.group!r} {text}")


def text_problem(text: str) -> str:
    """Why a text cannot be an id, class or group ("" if it can): empty, white space at an end, control characters, not Unicode."""
    if not text:
        return "is empty"
    if text != text.strip():
        return "has white space at an end"
    if not text.isprintable():
        if any("\ud800" <= character <= "\udfff" for character in text):
            return "is not Unicode (a file name that is not UTF-8?)"
        if any(ord(character) < 32 or ord(character) == 127 for character in text):
            return "holds control characters"
    return ""


def nearest(name: str, known: Iterable[str]) -> str:
    """``; did you mean 'x'?`` for the nearest known name (upper and lower case apart first), or nothing."""
    by_lower = {candidate.lower(): candidate for candidate in known if candidate}
    near = difflib.get_close_matches(name.lower(), by_lower, n=1)
    return f"; did you mean {by_lower[near[0]]!r}?" if near else ""


def some(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f", ... and {more} more" if more > 0 else "")
