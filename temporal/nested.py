"""What a sweep by cross-validation is worth: each fold's setting chosen within the fold, by its own validation videos alone.

The validation videos of one fold are test videos of others, so a rank over all folds has seen test labels of all of them, if only as a
mean. A choice within each fold has not: its head and its choice never saw the group that it is tested on.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import NamedTuple

from temporal.many import SeedFigures, hits, loss_sum
from temporal.sweep import Figure, RankBy, Row, better


class FoldFigures(NamedTuple):
    """One setting in one fold: means over the seeds of the validation figures, and for each seed how many test videos were right."""

    accuracy: float
    loss: float | None
    right: tuple[int, ...]
    videos: tuple[str, ...]


@dataclass(frozen=True)
class Nested:
    """Test top-1, mean and deviation over the seeds, of what each fold chose; ``choices``: fold -> setting."""

    top1: Figure
    choices: dict[str, str]


UNEQUAL = (
    "the settings were tested on different videos, since their stores lack different ones, so no fold can choose among them: complete "
    "the stores, or sweep those that lack the same videos"
)


def nested(rows: Sequence[Row], rank_by: RankBy) -> Nested | str | None:
    """None where there are no folds, no validation part or no test labels, or only one setting; in words, where it is for the stores.

    A store that lacks videos has smaller folds, or fewer: what is chosen in each is then a figure of other videos.
    """
    known = [(row, found) for row in rows if not row.trained.failure and (found := _folds(row))]
    if len(known) < 2:
        return None
    tested = [{name: fold.videos for name, fold in folds.items()} for _, folds in known]
    if any(each != tested[0] for each in tested):
        return UNEQUAL
    chosen: dict[str, tuple[Row, FoldFigures]] = {}
    for name in known[0][1]:
        keys = [better(folds[name].accuracy, folds[name].loss, rank_by) for _, folds in known]
        ranked = [(key, number) for number, key in enumerate(keys) if key]
        if not ranked:
            return None
        row, folds = known[min(ranked)[1]]
        chosen[name] = row, folds[name]
    figures = [each for _, each in chosen.values()]
    videos = sum(len(each.videos) for each in figures)
    top1 = Figure.of([sum(right) / videos for right in zip(*(each.right for each in figures), strict=True)])
    return None if top1 is None else Nested(top1, {name: row.setting.text() for name, (row, _) in chosen.items()})


def _folds(row: Row) -> dict[str, FoldFigures] | None:
    """Figures of every fold of a setting."""
    seeds = [_of_seed(each) for each in row.trained.figures]
    known = [found for found in seeds if found]
    if not known or len(known) < len(seeds):
        return None
    merged = {}
    for name in known[0]:
        folds = [found[name] for found in known]
        losses = [fold.loss for fold in folds if fold.loss is not None]
        loss = mean(losses) if len(losses) == len(folds) else None
        merged[name] = FoldFigures(mean(fold.accuracy for fold in folds), loss, tuple(fold.right[0] for fold in folds), folds[0].videos)
    return merged


def _of_seed(figures: SeedFigures) -> dict[str, FoldFigures] | None:
    from temporal.run_dir import FOLDS, SCORES, VALIDATION, Run

    run = Run.open(Path(figures.path))
    found = {}
    for name, fold in run.result.get("folds", {}).items():
        one = Run.open(run.path / FOLDS / fold["folder"])
        if not ((one.path / VALIDATION).is_file() and (one.path / SCORES).is_file()):
            return None
        validation, test = one.validation_scores(), one.scores()
        if test.labels is None:
            return None
        total = loss_sum(validation)
        loss = None if total is None else total / len(validation)
        found[name] = FoldFigures(hits(validation) / len(validation), loss, (hits(test),), tuple(test.ids))
    return found or None
