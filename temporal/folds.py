"""Which videos learn, which decide when to stop, which are tested; whole groups always stay on one side. Pure index arithmetic."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from store.errors import TrainingError

if TYPE_CHECKING:
    from store.videos import VideoList


@dataclass(frozen=True)
class Part:
    """Positions of the videos that train, validate (none: cut from ``train``) and test; ``name``: "split", or "group <left out>"."""

    name: str
    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def group_numbers(groups: Sequence[str]) -> np.ndarray:
    """int64 [V]: equal numbers for equal groups, in order of first appearance; a video without a group is its own."""
    known: dict[tuple[str, int], int] = {}
    keys = [(group, -1) if group else ("", position) for position, group in enumerate(groups)]
    return np.array([known.setdefault(key, len(known)) for key in keys], dtype=np.int64)


def list_part(videos: "VideoList") -> Part:
    """The list's own split; a list without any split trains on all of its videos. Videos without a split beside others are left out."""
    named = [video.split for video in videos]
    splits = np.array(named if any(named) else ["train"] * len(named))
    train, validation, test = (np.flatnonzero(splits == name) for name in ("train", "val", "test"))
    if not len(train):
        raise TrainingError(
            f"none of the {len(splits)} videos is in the split train (the list has {', '.join(sorted({*named} - {''}))}); mark training "
            "videos, or use --cross-validate to leave out one group at a time"
        )
    return Part("split", train, validation, test)


def leave_one_group_out(groups: Sequence[str]) -> list[Part]:
    """A part for each group, in order of the groups' names; TrainingError where a video has none or there is only one."""
    without = sum(not group for group in groups)
    if without:
        raise TrainingError(
            f"{without} of {len(groups)} videos have no group; cross-validation leaves out one group at a time, so give every video one "
            "(column group of the list)"
        )
    names = sorted(set(groups))
    if len(names) < 2:
        raise TrainingError(f"all {len(groups)} videos are of one group {names[:1]}; cross-validation needs at least two")
    of = np.array(groups)
    none = np.array([], dtype=np.int64)
    return [Part(f"group {name}", np.flatnonzero(of != name), none, np.flatnonzero(of == name)) for name in names]


def validation_part(labels: np.ndarray, groups: Sequence[str], share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Positions (training, validation): about ``share`` of each class in whole groups, at least one group.

    Groups are tried in an order drawn from ``seed`` and taken where that brings the class counts nearer to their share. A group that
    holds the last training videos of a class is never taken. TrainingError where no group can be taken, saying what to do.
    """
    numbers = group_numbers(groups)
    num_groups = int(numbers.max()) + 1
    if num_groups < 2:
        raise TrainingError(
            f"all {len(groups)} training videos are of one group, so no group-respecting validation part can be cut; use "
            "--train.validation 0 to train a fixed number of epochs, or mark videos of the list as val"
        )
    counts = np.zeros((num_groups, int(labels.max()) + 1))
    np.add.at(counts, (numbers, labels), 1)
    taken = _choose_groups(counts, share, np.random.default_rng(seed))
    if not taken:
        raise TrainingError(
            f"each of the {num_groups} groups holds all training videos of some class, so a validation part would take that class out of "
            "training; use --train.validation 0 to train a fixed number of epochs"
        )
    held_out = np.isin(numbers, taken)
    return np.flatnonzero(~held_out), np.flatnonzero(held_out)


def _choose_groups(counts: np.ndarray, share: float, generator: np.random.Generator) -> list[int]:
    remaining = counts.sum(axis=0)
    wanted = share * remaining
    taken: list[int] = []
    fallback: tuple[float, int] | None = None
    for group in generator.permutation(len(counts)):
        own = counts[group]
        if np.any((own > 0) & (remaining - own <= 0)):
            continue
        change = float(np.abs(wanted - own).sum() - np.abs(wanted).sum())
        if change < 0:
            taken.append(int(group))
            wanted, remaining = wanted - own, remaining - own
        elif not taken and (fallback is None or change < fallback[0]):
            fallback = (change, int(group))
    return taken or ([fallback[1]] if fallback else [])
