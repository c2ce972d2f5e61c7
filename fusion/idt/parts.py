"""Which videos codebook and SVM are fitted to, and which they are tested on; whole groups stay on one side."""

from collections.abc import Sequence
from dataclasses import dataclass

from store.errors import TrainingError
from store.videos import Video, VideoList


@dataclass(frozen=True)
class Part:
    """Ids of the videos of one fit; ``name``: "split", or "group <left out>"; ``folder``: what its files are called."""

    name: str
    folder: str
    train: tuple[str, ...]
    validation: tuple[str, ...]
    test: tuple[str, ...]

    @property
    def ids(self) -> tuple[str, ...]:
        """All of its videos."""
        return self.train + self.validation + self.test


def parts_of(videos: VideoList, cross_validate: bool) -> list[Part]:
    """The list's own split, or with ``cross_validate`` one part a group, in order of the groups' names, that tests this group.

    Videos in no split where others are in one (HMDB-51's flag 0) are left out; a list without any split trains on all videos. Videos of the
    split "val" are scored, never fitted to. ``TrainingError`` where there is nothing to train on.
    """
    if cross_validate:
        return _leave_one_group_out(list(videos))
    any_split = any(video.split for video in videos)
    train, validation, test = (
        tuple(video.id for video in videos if video.split == split) if any_split else () for split in ("train", "val", "test")
    )
    train = train if any_split else tuple(videos.ids)
    if not train:
        raise TrainingError(
            f"none of the {len(videos)} videos is in the split train; mark training videos, or use --cross-validate to leave out one group "
            "at a time"
        )
    return [Part("split", "split", train, validation, test)]


def _leave_one_group_out(videos: Sequence[Video]) -> list[Part]:
    if without := [video.id for video in videos if not video.group]:
        raise TrainingError(f"{len(without)} of {len(videos)} videos have no group (first: {without[0]!r}), so none can be left out")
    names = sorted({video.group for video in videos})
    if len(names) < 2:
        raise TrainingError(f"all {len(videos)} videos are of one group {names[:1]}; cross-validation needs at least two")
    return [
        Part(
            f"group {name}",
            f"fold-{number:02d}",
            tuple(video.id for video in videos if video.group != name),
            (),
            tuple(video.id for video in videos if video.group == name),
        )
        for number, name in enumerate(names)
    ]
