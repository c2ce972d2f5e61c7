"""Classes that a head never sees: whatever it learns, their test videos cannot be right. Said before anything is trained."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from temporal.experiment import videos_in_use
from temporal.folds import Part, leave_one_group_out, list_part

if TYPE_CHECKING:
    from store.videos import VideoList

NAMED = 8  # classes in a note


def untrained_notes(lists: "Mapping[int, VideoList]", cross_validate: bool, refit: bool) -> list[str]:
    """A note for every list (number -> list, 0: the only one) with classes without a training video; ``refit``: on val videos, too."""
    notes = []
    for number, videos in lists.items():
        note = _of_folds(videos) if cross_validate else _of_split(videos, refit)
        notes += [(f"split {number}: " if number else "") + note] if note else []
    return notes


def _of_split(videos: "VideoList", refit: bool) -> str:
    used = videos_in_use(videos)
    part = list_part(used)
    lost, tested = _lost(used, part, refit)
    if not lost:
        return ""
    right = f"their {tested} test videos can never be right" if tested else "the list has no test video of them"
    return f"{len(lost)} of {len(used.classes)} classes have no training video, so {right}: {_some(lost)}"


def _of_folds(videos: "VideoList") -> str:
    """A class whose videos are of one group is in no fold trained on and tested."""
    lost: dict[str, None] = {}
    total = 0
    for part in leave_one_group_out([video.group for video in videos]):
        names, tested = _lost(videos, part, refit=False)
        total += tested
        lost |= dict.fromkeys(name for name in names if any(videos.videos[at].label == name for at in part.test))
    if not lost:
        return ""
    return (
        f"{len(lost)} of {len(videos.classes)} classes have videos of one group only, so in the fold that leaves it out nothing of them is "
        f"trained on, and their {total} videos can never be right: {_some(list(lost))}"
    )


def _lost(videos: "VideoList", part: Part, refit: bool) -> tuple[list[str], int]:
    """Classes without a video to train on, and the number of test videos of them."""
    trained = np.concatenate([part.train, part.validation]) if refit else part.train
    known = {videos.videos[at].label for at in trained}
    lost = [name for name in videos.classes if name not in known]
    return lost, sum(videos.videos[at].label in set(lost) for at in part.test)


def _some(names: list[str]) -> str:
    return ", ".join(names[:NAMED]) + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")
