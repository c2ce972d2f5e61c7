"""The official lists of UCF-101 and HMDB-51, read as they are published."""

import re
from pathlib import Path, PurePosixPath

from store.errors import ListError
from store.list_files import finish, inside_root, read_classes, read_text
from store.video_list import Problems, Video, VideoList

# v_HandStandPushups_g01_c02.avi -> name of the action, scene
_UCF_NAME = re.compile(r"v_(?P<action>[^_]+)_(?P<group>g\d+)_c\d+\.\w+")
_UCF_LIST = re.compile(r"(?P<part>train|test)list(?P<fold>\d+)\.txt")
_HMDB_LIST = re.compile(r"(?P<action>.+)_test_split(?P<fold>\d+)\.txt")
# <film>_<action>_<visible body part>_<camera moves or not>_np<people>_<from where>_<quality>_<number>.avi
_HMDB_END = r"_[a-z]+_(?:cm|nm)_np\d+_[a-z]+_[a-z]+_\d+\.\w+"
_HMDB_FLAGS = {"0": "", "1": "train", "2": "test"}


def is_ucf101(folder: Path) -> bool:
    """Whether a folder holds UCF-101's lists."""
    return (folder / "classInd.txt").is_file()


def is_hmdb51(folder: Path) -> bool:
    """Whether a folder holds HMDB-51's lists."""
    return any(_HMDB_LIST.fullmatch(path.name) for path in folder.iterdir())


def read_ucf101(source: Path, root: Path | None, fold: int, classes: Path | None) -> VideoList:
    """Read classInd.txt, trainlist0k.txt and testlist0k.txt (k = ``fold``); ids as the lists have them: ``class/v_..._g01_c01.avi``.

    The label is the folder in the path; classInd.txt orders the classes and the numbers of the train list are checked against it. The
    group is the scene ``g01`` .. ``g25``: as in the official splits, a number stands for one scene of every class at once. Files may
    spell the action in other upper and lower case than their folder (``HandstandPushups/v_HandStandPushups_...``): nothing is renamed.
    """
    order = read_classes(source / "classInd.txt") if classes is None else read_classes(classes)
    numbers = {name: str(number) for number, name in enumerate(order, 1)}
    problems = Problems(source)
    places = []
    for part in ("train", "test"):
        path = source / f"{part}list{fold:02d}.txt"
        if not path.is_file():
            raise ListError(_no_fold(source, path.name, sorted(_folds(source, _UCF_LIST))))
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                where = f"{path.name} line {number}"
                name, _, index = line.strip().partition(" ")
                places.append((where, _ucf_video(name, part, source if root is None else root, where, problems)))
                _check_index(name, index.strip(), numbers, where, problems)
    return finish(places, order, problems)


def read_hmdb51(source: Path, root: Path | None, fold: int, classes: Path | None) -> VideoList:
    """Read every ``<class>_test_split<k>.txt`` (k = ``fold``); flag 1 is train, 2 test, 0 neither. Ids are ``class/file.avi``.

    The group is the source film, the file's name before ``_<class>_<body part>_...``. Classes are sorted by name unless a file
    ``classes`` orders them.
    """
    actions = sorted({match["action"] for path in source.iterdir() if (match := _HMDB_LIST.fullmatch(path.name))})
    problems = Problems(source)
    places = []
    for action in actions:
        path = source / f"{action}_test_split{fold}.txt"
        if not path.is_file():
            problems.add("", _no_fold(source, path.name, sorted(_folds(source, _HMDB_LIST))))
            continue
        for number, line in enumerate(read_text(path).splitlines(), 1):
            if line.strip():
                where = f"{path.name} line {number}"
                places.append((where, _hmdb_video(line.strip(), action, source if root is None else root, where, problems)))
    return finish(places, tuple(actions) if classes is None else read_classes(classes), problems)


def _ucf_video(name: str, part: str, root: Path, where: str, problems: Problems) -> Video:
    path = PurePosixPath(name)
    label = path.parts[0] if len(path.parts) == 2 else None
    match = _UCF_NAME.fullmatch(path.name)
    if label is None or inside_root(name, root) is None:
        problems.add(where, f"{name!r} is not class/file")
    if match is None:
        problems.add(where, f"{path.name!r} is not v_<action>_g<scene>_c<clip>.avi, so its scene (group) is unknown")
    elif label is not None and match["action"].lower() != label.lower():
        problems.add(where, f"{name!r}: the folder says {label}, the file {match['action']}")
    return Video(name, root / (inside_root(name, root) or "unknown"), label, part, match["group"] if match else "")


def _check_index(name: str, index: str, numbers: dict[str, str], where: str, problems: Problems) -> None:
    """The number after a path of a train list must be its class's; a class that is not listed is found by ``finish``."""
    label = name.partition("/")[0]
    if index and index != numbers.get(label, index):
        problems.add(where, f"{name} is numbered {index}, but {label} has the number {numbers[label]} in the class list")


def _hmdb_video(line: str, action: str, root: Path, where: str, problems: Problems) -> Video:
    name, _, flag = line.rpartition(" ")
    name = name.strip()
    match = re.fullmatch(f"(?P<film>.+)_{re.escape(action)}{_HMDB_END}", name)
    if flag not in _HMDB_FLAGS:
        problems.add(where, f"{line!r} does not end in a flag 0, 1 or 2")
    elif match is None or "/" in name:
        problems.add(
            where, f"{name!r} is not <film>_{action}_<body>_<cm|nm>_np<n>_<view>_<quality>_<n>.avi, so its film (group) is unknown"
        )
    relative = f"{action}/{name.replace('/', '_')}"
    return Video(f"{action}/{name}", root / relative, action, _HMDB_FLAGS.get(flag, ""), match["film"] if match else "")


def _folds(folder: Path, pattern: re.Pattern[str]) -> set[int]:
    return {int(match["fold"]) for path in folder.iterdir() if (match := pattern.fullmatch(path.name))}


def _no_fold(folder: Path, file: str, folds: list[int]) -> str:
    return f"{folder} has no {file}; it has lists of the folds {', '.join(map(str, folds)) or 'none'}"
