"""Give a score table its labels from a video list, by id; and the list's groups."""

import dataclasses
import re
from pathlib import PurePosixPath

import numpy as np

from store.errors import AlignmentError
from store.names import NameRules, helpful, renamed, translate
from store.scores import ScoreTable
from store.videos import VideoList

_SHOWN = 5
_UCF_NAME = re.compile(r"v_[^_]+_(?P<group>g\d+)_c\d+(\.\w+)?")


def with_labels(table: ScoreTable, videos: VideoList, match: NameRules | None = None) -> ScoreTable:
    """The same table with ``labels`` taken from ``videos`` by id; the list may hold more videos. Rules ``match`` bring ids and classes to
    the list's spelling.

    Ids without a label, labels that are no class of the table, and labels that contradict the table's own raise one ``AlignmentError``.
    """
    match = match or NameRules()
    ids = renamed(table.ids, translate(table.ids, videos.ids, match.ids, "ids"))
    classes = renamed(table.classes, translate(table.classes, videos.classes, match.classes, "classes"))
    table = dataclasses.replace(table, ids=ids, classes=classes)
    label = {video.id: video.label for video in videos}
    index = {name: place for place, name in enumerate(table.classes)}
    found = [label.get(name) for name in table.ids]
    absent = [repr(name) for name in table.ids if name not in label]
    unlabelled = [repr(name) for name in table.ids if name in label and label[name] is None]
    foreign = sorted({repr(name) for name in found if name is not None and name not in index})
    example = f" (which holds ids like {next(iter(label))!r})" if label else " (which is empty)"
    rules = helpful(table.ids, label) if absent and len(label) == len(table) else ""
    hint = f"; --match.ids {rules} takes them as the same" if rules else ""
    problems = _problem(absent, f"ids are not in the list{example}{hint}") + _problem(unlabelled, "videos of the list have no label")
    problems += _problem(foreign, "classes of the list are not classes of the table (class names must be spelt alike)")
    if not problems and table.labels is not None:
        own = [table.classes[place] for place in table.labels.tolist()]
        clashes = [
            f"{name!r}: {has} here, {given} in the list" for name, has, given in zip(table.ids, own, found, strict=True) if has != given
        ]
        problems += _problem(clashes, "labels contradict the table's own")
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise AlignmentError(f"the list does not label this score table:\n{listed}\nGive the list that the table was predicted for.")
    return dataclasses.replace(table, labels=np.array([index[str(name)] for name in found], np.int64))


def groups_of(videos: VideoList) -> dict[str, str]:
    """{id: group} of the videos that have one: what must stay on one side where something is learned."""
    return {video.id: video.group for video in videos if video.group}


def drawn_groups(videos: VideoList) -> dict[str, str]:
    """{id: group} of the videos that have one: what a bootstrap resample draws.

    UCF-101's g01 to g25 number the scenes of each class anew. The official splits keep a number together over all classes, but g01 of
    one class is another recording than g01 of the next: here they are two groups.
    """
    return {
        video.id: f"{video.label} {video.group}" if _is_ucf101(video.id, video.group) else video.group for video in videos if video.group
    }


def _is_ucf101(video_id: str, group: str) -> bool:
    match = _UCF_NAME.fullmatch(PurePosixPath(video_id).name)
    return match is not None and match["group"] == group


def _problem(items: list[str], text: str) -> list[str]:
    more = ", ..." if len(items) > _SHOWN else ""
    return [f"{len(items)} {text}: {', '.join(items[:_SHOWN])}{more}"] if items else []
