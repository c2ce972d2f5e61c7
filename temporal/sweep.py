"""A sweep: every combination of a grid, trained, ranked by the validation part, never by test, and written as tables and pictures."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean, stdev
from typing import TYPE_CHECKING, Any, Literal

from store.errors import SpecError
from store.files import safe_name
from temporal.grid import Axis, Setting
from temporal.many import Plan, SeedFigures, Trained, Work, opened_name, setting_name, train_all
from temporal.sweep_before import check_same, list_facts

if TYPE_CHECKING:
    from store.videos import VideoList
    from temporal.nested import Nested

RUNS = "runs"
RankBy = Literal["accuracy", "loss"]


@dataclass(frozen=True)
class Figure:
    """Mean over the seeds and their deviation (of a sample; None for one seed)."""

    mean: float
    deviation: float | None

    @classmethod
    def of(cls, values: Sequence[float | None]) -> "Figure | None":
        """None where any seed lacks the figure."""
        known = [value for value in values if value is not None]
        if not known or len(known) < len(values):
            return None
        return cls(mean(known), stdev(known) if len(known) > 1 else None)


@dataclass(frozen=True)
class Row:
    """One setting of the sweep. ``rank`` is None without validation figures and for failures."""

    setting: Setting
    path: Path
    trained: Trained
    rank: int | None = None

    def figure(self, of: Callable[[SeedFigures], float | None]) -> Figure | None:
        """Mean and deviation of one figure over the seeds."""
        return Figure.of([of(each) for each in self.trained.figures])

    @property
    def val_accuracy(self) -> Figure | None:
        """Accuracy on the validation part."""
        return self.figure(lambda each: each.val_accuracy)

    @property
    def val_loss(self) -> Figure | None:
        """Cross-entropy on the validation part."""
        return self.figure(lambda each: each.val_loss)

    @property
    def top1(self) -> Figure | None:
        """Accuracy on the test part; decides nothing."""
        return self.figure(lambda each: each.top1)

    @property
    def epochs(self) -> Figure | None:
        """Epochs trained."""
        return self.figure(lambda each: each.epochs)


@dataclass(frozen=True)
class Sweep:
    """All settings: ranked ones first, best first, then those that cannot be ranked in the grid's order, then failures.

    ``nested``: of a cross-validation, what the settings are worth that each fold chose for itself, or why that cannot be told.
    ``videos`` and ``stores``: what it is a sweep of, see ``sweep_before``.
    """

    path: Path
    axes: tuple[Axis, ...]
    rows: tuple[Row, ...]
    plan: Plan
    rank_by: RankBy
    nested: "Nested | str | None" = None
    videos: Mapping[str, Any] = field(default_factory=dict)
    stores: tuple[str, ...] = ()

    @property
    def failed(self) -> tuple[Row, ...]:
        """Settings that could not be trained."""
        return tuple(row for row in self.rows if row.trained.failure)

    @property
    def missing(self) -> int:
        """Most videos that any setting was trained without, for want of features."""
        return max((row.trained.missing for row in self.rows), default=0)


def sweep(
    settings: Sequence[Setting],
    axes: Sequence[Axis],
    videos: "VideoList",
    path: Path,
    plan: Plan,
    rank_by: RankBy = "accuracy",
    stopped: Callable[[], bool] = lambda: False,
) -> Sweep:
    """Train every setting into ``path/runs/<digest>`` and rank them; what is complete there is not trained again.

    ``Interrupted``, with the state of every head saved, once ``stopped()``; ``SpecMismatchError`` where ``path`` holds the sweep of
    another list or of other features.
    """
    from temporal.nested import nested

    safe_name(path.name, "sweep name")
    folders = [path / RUNS / setting_name(setting, plan) for setting in settings]
    if len(set(folders)) < len(folders):
        first = next(i for i, folder in enumerate(folders) if folder in folders[:i])
        twin = settings[folders.index(folders[first])]
        raise SpecError(f"the settings {settings[first].text()!r} and {twin.text()!r} of the grid are the same; leave one of them out")
    opened = {opened_name(store) for setting in settings for store in setting.features}  # one that does not open fails its settings
    listed, stores = list_facts(videos), tuple(sorted(name for name in opened if name))
    check_same(path, listed, stores)
    works = [Work(setting, videos, folder) for setting, folder in zip(settings, folders, strict=True)]
    rows = [Row(work.setting, work.path, done) for work, done in zip(works, train_all(works, plan, "sweep", stopped), strict=True)]
    of_folds = nested(rows, rank_by) if plan.cross_validate else None
    return Sweep(path, tuple(axes), tuple(ranked(rows, rank_by)), plan, rank_by, of_folds, listed, stores)


def ranked(rows: Sequence[Row], rank_by: RankBy) -> list[Row]:
    """Best validation figure first: accuracy, ties by the lower loss; or the loss alone. No test figure is looked at."""
    known = [row for row in rows if not row.trained.failure and sort_key(row, rank_by)]
    known.sort(key=lambda row: sort_key(row, rank_by) or ())
    places = [Row(row.setting, row.path, row.trained, place) for place, row in enumerate(known, 1)]
    rest = [row for row in rows if not row.trained.failure and not sort_key(row, rank_by)]
    return [*places, *rest, *(row for row in rows if row.trained.failure)]


def sort_key(row: Row, rank_by: RankBy) -> tuple[float, ...] | None:
    """Smaller is better; None where the setting has no such figure."""
    accuracy, loss = row.val_accuracy, row.val_loss
    return better(None if accuracy is None else accuracy.mean, None if loss is None else loss.mean, rank_by)


def better(accuracy: float | None, loss: float | None, rank_by: RankBy) -> tuple[float, ...] | None:
    """What to sort by, smallest first, of validation figures."""
    if rank_by == "loss":
        return None if loss is None else (loss,)
    return None if accuracy is None else (-accuracy, float("inf") if loss is None else loss)
