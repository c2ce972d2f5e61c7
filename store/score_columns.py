"""Do the columns of foreign scores stand in the order that the class names say? Labels of the videos tell.

Scores made from a listing of files have ``climb_stairs`` before ``climb`` (climb_stairs_test_split1.txt is sorted before
climb_test_split1.txt), while sorted class names have it behind. Such scores still look right for all other classes.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MOST_P = 1e-3  # that chance would raise an alarm anywhere in a table


@dataclass(frozen=True)
class Misplaced:
    """Columns (positions) that fit one another's names better.

    For two, ``as_named`` of ``videos`` (those of the two classes) have the higher of the two scores at their label; for more, ``as_named``
    of their videos are right, and ``moved`` would be if the columns were renamed.
    """

    columns: tuple[int, ...]
    as_named: int
    moved: int
    videos: int

    def words(self, classes: Sequence[str]) -> str:
        """``climb and climb_stairs look exchanged: ...``, with the counts."""
        names = [classes[place] for place in self.columns]
        if len(names) == 2:
            return f"{names[0]} and {names[1]} look exchanged: of their {self.videos} videos {self.moved} score higher at the other one"
        return (
            f"{', '.join(names)} look moved among one another: {self.as_named} of their {self.videos} videos are right as named, "
            f"{self.moved} if moved"
        )


def in_listing_order(names: Sequence[str]) -> tuple[str, ...]:
    """The names as a listing of files such as climb_test_split1.txt sorts them."""
    return tuple(sorted(names, key=lambda name: f"{name}_test_split1.txt"))


def looks_listed(values: np.ndarray, labels: np.ndarray, names: Sequence[str]) -> str:
    """Do the columns look as if they stood in the order of a listing, not in that of ``names``? "" if not, else which, with the counts.

    One question about all classes that the two orders place differently, so it sees what pairs alone would leave in doubt: of their videos,
    how many score higher in the column that the listing gives their class than in the one that ``names`` gives it?
    """
    listing = in_listing_order(names)
    place = {name: column for column, name in enumerate(listing)}
    in_order = list(names) == sorted(names)  # of other orders one cannot say what they were meant to be
    moved = [column for column, name in enumerate(names) if in_order and listing[column] != name]
    rows = np.flatnonzero(np.isin(labels, moved))
    if not len(rows):
        return ""
    other = np.array([place[name] for name in names])[labels[rows]]
    better = values[rows, other] > values[rows, labels[rows]]
    wrong, total = int(better.sum()), len(rows)
    if _tail(total - wrong, total) >= MOST_P:
        return ""
    return (
        f"the columns of {', '.join(names[column] for column in moved)} look as if they stood in the order of a listing of files "
        f"(climb_stairs_test before climb_test): {wrong} of their {total} videos score higher there; --columns listing takes that order"
    )


def misplaced(values: np.ndarray, labels: np.ndarray) -> list[Misplaced]:
    """Groups of columns that the labels say are exchanged; scores [V, C], labels [V] as positions of columns.

    Pairs: the videos of two classes that score higher at the other one (exact test against 1/2, times the number of pairs). Longer cycles
    of the order of columns that makes most videos right: those right then against those right as named (times the number of cycles).
    """
    return _pairs(values, labels) + _longer(values, labels)


def _pairs(values: np.ndarray, labels: np.ndarray) -> list[Misplaced]:
    number = values.shape[1]
    truth = values[np.arange(len(labels)), labels]
    lower, counts = np.zeros((number, number), np.int64), np.bincount(labels, minlength=number)
    np.add.at(lower, labels, truth[:, None] < values)  # [a, b]: videos of a that score higher at b
    found = []
    for a, b in zip(*np.nonzero(np.triu(lower + lower.T > (counts[:, None] + counts) / 2, 1)), strict=True):
        wrong, total = int(lower[a, b] + lower[b, a]), int(counts[a] + counts[b])
        if min(lower[a, b] / max(counts[a], 1), lower[b, a] / max(counts[b], 1)) > 0.5 and (
            _tail(total - wrong, total) * number * (number - 1) / 2 < MOST_P
        ):
            found.append(Misplaced((int(a), int(b)), total - wrong, wrong, total))
    return found


def _longer(values: np.ndarray, labels: np.ndarray) -> list[Misplaced]:
    from scipy.optimize import linear_sum_assignment

    number = values.shape[1]
    confusion = np.bincount(labels * number + values.argmax(axis=1), minlength=number**2).reshape(number, number)
    _, column_of = linear_sum_assignment(confusion + 0.5 * np.eye(number), maximize=True)  # equal counts stay as they are
    found = []
    for cycle in _cycles(column_of):
        as_named = sum(int(confusion[label, label]) for label in cycle)
        moved = sum(int(confusion[label, column_of[label]]) for label in cycle)
        chances = math.perm(number, len(cycle)) // len(cycle)
        if len(cycle) > 2 and moved > as_named and _log10_tail(as_named, as_named + moved) + math.log10(chances) < math.log10(MOST_P):
            found.append(Misplaced(tuple(int(column_of[label]) for label in cycle), as_named, moved, int(confusion[cycle].sum())))
    return found


def knows_nothing(values: np.ndarray, labels: np.ndarray) -> bool:
    """Whether no more videos are right than chance would have it: rows or columns are then in another order altogether."""
    right, total, number = int((values.argmax(axis=1) == labels).sum()), len(labels), values.shape[1]
    deviation = math.sqrt(total * (1 / number) * (1 - 1 / number))
    return number > 1 and total >= 30 and right < total / number + 2 * deviation


def _cycles(order: np.ndarray) -> list[list[int]]:
    left = {place for place, other in enumerate(order) if place != other}
    cycles = []
    while left:
        place = min(left)
        cycle = []
        while place in left:
            left.remove(place)
            cycle.append(place)
            place = int(order[place])
        cycles.append(cycle)
    return cycles


def _tail(few: int, total: int) -> float:
    """P[Binomial(total, 1/2) <= few]."""
    return float(10 ** _log10_tail(few, total))


def _log10_tail(few: int, total: int) -> float:
    return math.log10(sum(math.comb(total, k) for k in range(few + 1))) - total * math.log10(2)


def numbering(numbers: np.ndarray, names: Sequence[str]) -> dict[int, str] | None:
    """{number: class} where every number of a file's own labels stands for one class of the list, and each class for one number."""
    pairs = set(zip(numbers.tolist(), names, strict=True))
    meaning = dict(pairs)
    return meaning if len(meaning) == len(pairs) == len(set(meaning.values())) else None
