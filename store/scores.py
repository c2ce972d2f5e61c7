"""Class scores of videos: who, which classes, what kind of numbers. Never joined by position."""

import dataclasses
import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np

from store.errors import ScoreError
from store.files import atomic_path
from store.npz import read_npz
from store.run_files import check_beside

Kind = Literal["scores", "log_probs", "decision_values"]
KINDS: tuple[str, ...] = get_args(Kind)
FORMAT = "actioncache-scores-1"
MEMBERS = ("format", "ids", "classes", "values", "kind", "source")  # and "labels", where there are any
LOG_SUM_TOLERANCE = 1e-3  # float32 log-probabilities of 700 classes sum to 1 within 1e-4
_SHOWN = 5


@dataclass(frozen=True, eq=False)
class ScoreTable:
    """Scores of V videos for C classes; checked and frozen when made, ``ScoreError`` lists what is wrong.

    ``values``: float32 [V, C], finite. ``kind``: "scores" (raw class scores, before softmax), "log_probs" (log of probabilities that sum
    to 1) or "decision_values" (of an SVM: not comparable with the others). ``labels``: int64 [V], the true class as a position in
    ``classes``, or None where any is unknown. ``source``: where the table comes from, as JSON's types.
    """

    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    kind: Kind
    labels: np.ndarray | None = None
    source: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ids, classes = tuple(map(str, self.ids)), tuple(map(str, self.classes))
        problems = _name_problems("id", ids) + _name_problems("class", classes)
        if self.kind not in KINDS:
            problems.append(f"kind is {self.kind!r}; it must be one of {', '.join(KINDS)}")
        values, value_problems = _checked_values(self.values, ids, classes, self.kind)
        labels, label_problems = _checked_labels(self.labels, ids, classes)
        source, source_problems = _checked_source(self.source)
        problems += value_problems + label_problems + source_problems
        if problems:
            raise ScoreError("not a score table:\n" + "\n".join(f"  - {problem}" for problem in problems))
        for name, checked in (("ids", ids), ("classes", classes), ("values", values), ("labels", labels), ("source", source)):
            object.__setattr__(self, name, checked)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Iterable[str]) -> "ScoreTable":
        """The table of these videos, in this order; ids that it does not hold raise ``ScoreError``."""
        place = {name: row for row, name in enumerate(self.ids)}
        wanted = list(ids)
        unknown = [name for name in wanted if name not in place]
        if unknown:
            raise ScoreError(f"{len(unknown)} of {len(wanted)} videos are not in this table of {len(self)}: {_some(unknown)}")
        index = [place[name] for name in wanted]
        labels = None if self.labels is None else self.labels[index]
        return dataclasses.replace(self, ids=tuple(wanted), values=self.values[index], labels=labels)

    @staticmethod
    def concat(tables: Sequence["ScoreTable"]) -> "ScoreTable":
        """One table of the videos of all, e.g. of the folds of a cross-validation; columns are joined by class name.

        The tables must share kind and classes, no video, and all or none have labels. ``source`` becomes ``{"tables": [each one's]}``.
        """
        if not tables:
            raise ScoreError("there are no score tables to join")
        _check_joinable(tables)
        first = tables[0]
        columns = [[table.classes.index(name) for name in first.classes] for table in tables]
        values = np.concatenate([table.values[:, order] for table, order in zip(tables, columns, strict=True)])
        labels = None
        if first.labels is not None:  # the position of each of a table's classes in the first one's is the inverse of its column order
            labels = np.concatenate([np.argsort(order)[table.labels] for table, order in zip(tables, columns, strict=True)])
        ids = tuple(name for table in tables for name in table.ids)
        return ScoreTable(ids, first.classes, values, first.kind, labels, {"tables": [table.source for table in tables]})

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all: arrays of text, float32 and int64 only, readable without pickle."""
        self.check_name(path)
        texts = {"format": FORMAT, "kind": self.kind, "source": json.dumps(self.source, ensure_ascii=False)}
        arrays = {"ids": np.array(self.ids), "classes": np.array(self.classes), "values": self.values}
        arrays |= {name: np.array(text) for name, text in texts.items()}
        if self.labels is not None:
            arrays["labels"] = self.labels
        with atomic_path(path) as aside, aside.open("wb") as file:
            np.savez(file, allow_pickle=False, **arrays)

    @staticmethod
    def check_name(path: Path) -> None:
        """``ScoreError`` for a name that ``save`` would refuse, to be known before the work."""
        if path.suffix != ".npz":
            raise ScoreError(f"a score table is saved as an .npz file, not {path.name!r}")

    @classmethod
    def load(cls, path: Path) -> "ScoreTable":
        """Read what ``save`` wrote; a file that is none, damaged or hostile raises ``ScoreError`` and runs nothing.

        ``StoreError`` for one in the folder of a run that wrote another one under this name.
        """
        check_beside(path)
        arrays = read_npz(path, ScoreError)
        absent = [name for name in MEMBERS if name not in arrays]
        if absent:
            raise ScoreError(f"{path} is not a score table: it holds {_some(sorted(arrays))}, but not {', '.join(absent)}")
        try:
            texts = {name: _text(name, arrays[name], 0).item() for name in ("format", "kind", "source")}
            if texts["format"] != FORMAT:
                raise ScoreError(f"the format is {texts['format']!r}; this version reads {FORMAT!r}")
            ids, classes = (tuple(_text(name, arrays[name], 1).tolist()) for name in ("ids", "classes"))
            return cls(ids, classes, arrays["values"], texts["kind"], arrays.get("labels"), json.loads(texts["source"]))
        except (ValueError, RecursionError) as error:  # ScoreError is one; so are text that is no Unicode and JSON that is none
            raise ScoreError(f"{path}: {error}") from None


def _name_problems(what: str, names: tuple[str, ...]) -> list[str]:
    if not names:
        return [f"there is no {what}"]
    problems = []
    if any(not name or "\0" in name for name in names):
        problems.append(
            f"{what} number {next(at for at, name in enumerate(names, 1) if not name or chr(0) in name)} is empty or holds a NUL"
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        problems.append(f"{len(twice)} {what} names occur more than once: {_some(twice)}")
    return problems


def _checked_values(values: Any, ids: Sequence[str], classes: Sequence[str], kind: str) -> tuple[np.ndarray, list[str]]:
    given = np.asarray(values)
    if given.dtype.kind not in "fiu" or given.shape != (len(ids), len(classes)):
        shape = f"{given.dtype} {list(given.shape)}"
        return given, [f"values are {shape}; they must be numbers [{len(ids)} videos, {len(classes)} classes]"]
    with np.errstate(over="ignore"):
        table = np.array(given, np.float32, order="C")
    table.setflags(write=False)
    broken = [ids[row] for row in np.flatnonzero(~np.isfinite(table).all(axis=1)).tolist()]
    if broken:
        return table, [f"{len(broken)} videos have scores that are NaN, Inf or too large for float32: {_some(broken)}"]
    if kind == "log_probs":
        off = np.abs(_log_sum_exp(table))
        wrong = [f"{ids[row]} ({np.exp(min(off[row], 700.0)):.3g} times off)" for row in np.flatnonzero(off > LOG_SUM_TOLERANCE).tolist()]
        if wrong:
            text = "; raw class scores are of kind scores"
            return table, [f"{len(wrong)} videos have log_probs that do not sum to 1 as probabilities{text}: {_some(wrong)}"]
    return table, []


def _log_sum_exp(table: np.ndarray) -> np.ndarray:
    highest = table.max(axis=1).astype(np.float64)
    sums: np.ndarray = highest + np.log(np.exp(table - highest[:, None]).sum(axis=1))
    return sums


def _checked_labels(labels: Any, ids: Sequence[str], classes: Sequence[str]) -> tuple[np.ndarray | None, list[str]]:
    if labels is None:
        return None, []
    given = np.asarray(labels)
    if given.dtype.kind not in "iu" or given.shape != (len(ids),):
        return None, [f"labels are {given.dtype} {list(given.shape)}; they must be whole numbers [{len(ids)}], a position in classes each"]
    wrong = [f"{ids[row]} ({given[row]})" for row in np.flatnonzero((given < 0) | (given >= len(classes))).tolist()]
    table = np.array(given, np.int64)
    table.setflags(write=False)
    return table, [f"{len(wrong)} labels are not in 0..{len(classes) - 1}: {_some(wrong)}"] if wrong else []


def _checked_source(source: Any) -> tuple[dict[str, Any], list[str]]:
    try:
        if not isinstance(source, Mapping):
            raise TypeError(f"{type(source).__name__} is not a dict")
        return json.loads(json.dumps(dict(source), allow_nan=False)), []  # also a private copy
    except (TypeError, ValueError, RecursionError) as error:
        return {}, [f"source must be a dict of JSON's types: {error}"]


def _check_joinable(tables: Sequence[ScoreTable]) -> None:
    first = tables[0]
    problems = []
    if len({table.kind for table in tables}) > 1:
        problems.append(f"they are of different kinds: {', '.join(sorted({table.kind for table in tables}))}")
    differing = sorted(set().union(*(set(table.classes) ^ set(first.classes) for table in tables)))
    if differing:
        problems.append(f"{len(differing)} classes are not in all of them: {_some(differing)}")
    counts = Counter(name for table in tables for name in table.ids)
    twice = [name for name, count in counts.items() if count > 1]
    if twice:
        problems.append(f"{len(twice)} videos are in more than one: {_some(twice)}")
    labelled = sum(table.labels is not None for table in tables)
    if labelled not in (0, len(tables)):
        problems.append(f"{labelled} of {len(tables)} have labels; give labels to all or to none")
    if problems:
        raise ScoreError(f"these {len(tables)} score tables cannot be joined:\n" + "\n".join(f"  - {problem}" for problem in problems))


def _text(name: str, array: np.ndarray, dimensions: int) -> np.ndarray:
    if array.dtype.kind != "U" or array.ndim != dimensions:
        raise ScoreError(f"{name} is {array.dtype} {list(array.shape)}; it must be text with {dimensions} dimensions")
    points = np.atleast_1d(np.ascontiguousarray(array)).view(np.dtype(np.uint32).newbyteorder(array.dtype.byteorder))
    if points.size and points.max() > sys.maxunicode:
        raise ScoreError(f"{name} holds characters that are not Unicode")
    return array


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f", ... and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
