"""Join score tables by video id and class name; never by position."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from store.errors import AlignmentError
from store.names import NameRules, helpful, renamed, translate
from store.scores import Kind, ScoreTable

_SHOWN = 5


@dataclass(frozen=True)
class Aligned:
    """Score tables on the same rows and columns: the first table's order of ids and classes.

    ``values`` is float32 [T, V, C] in the order of ``names``; ``labels`` is int64 [V], or None unless every video has one;
    ``left_out`` counts what ``common`` removed: {table: {"ids": n, "classes": n}}. ``respelt``: the names that rules of spelling changed
    to the first table's, {table: {"ids": {old: new}, "classes": {old: new}}}, only where something was.
    """

    names: tuple[str, ...]
    ids: tuple[str, ...]
    classes: tuple[str, ...]
    values: np.ndarray
    kinds: tuple[Kind, ...]
    labels: np.ndarray | None
    left_out: dict[str, dict[str, int]]
    respelt: dict[str, dict[str, dict[str, str]]] = field(default_factory=dict)


def align(tables: Mapping[str, ScoreTable], common: bool = False, match: NameRules | None = None) -> Aligned:
    """Put named tables on the first one's ids and classes; names that only the rules ``match`` make equal are spelt as the first does.

    Other ids, classes or labels raise ``AlignmentError`` naming all differences. ``common`` keeps what all tables have instead (and
    the videos whose true class is kept); different labels stay an error.
    """
    if not tables:
        raise AlignmentError("no score tables were given; give at least one")
    names = tuple(tables)
    tables, respelt = respell(tables, match or NameRules())
    problems = _label_problems(tables)
    if not common:
        problems = _set_problems(tables, "ids") + _set_problems(tables, "classes") + problems
    if problems:
        listed = "\n".join(f"  - {problem}" for problem in problems)
        raise AlignmentError(f"{', '.join(names)} do not speak of the same videos and classes:\n{listed}\n{_advice(tables, common)}")
    ids, classes = _kept(tables)
    values = np.stack([_take(table, ids, classes) for table in tables.values()])
    left_out = {
        name: {"ids": len(table.ids) - len(ids), "classes": len(table.classes) - len(classes)} for name, table in tables.items() if common
    }
    kinds = tuple(table.kind for table in tables.values())
    return Aligned(names, ids, classes, values, kinds, _labels(tables, ids, classes), left_out, respelt)


def respell(tables: Mapping[str, ScoreTable], match: NameRules) -> tuple[dict[str, ScoreTable], dict[str, dict[str, dict[str, str]]]]:
    """The tables in the first one's spelling, and what was changed in each; two names of a table that become one are an error."""
    first = next(iter(tables.values()))
    made, respelt = dict(tables), {}
    for name, table in tables.items():
        ids = translate(table.ids, first.ids, match.ids, f"ids of {name}")
        classes = translate(table.classes, first.classes, match.classes, f"classes of {name}")
        if ids or classes:
            made[name] = dataclasses.replace(table, ids=renamed(table.ids, ids), classes=renamed(table.classes, classes))
            respelt[name] = {"ids": ids, "classes": classes}
    return made, respelt


def _kept(tables: Mapping[str, ScoreTable]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    first = next(iter(tables.values()))
    shared_ids = set.intersection(*(set(table.ids) for table in tables.values()))
    shared_classes = set.intersection(*(set(table.classes) for table in tables.values()))
    labels = _label_names(tables)
    ids = tuple(name for name in first.ids if name in shared_ids and (name not in labels or labels[name] in shared_classes))
    classes = tuple(name for name in first.classes if name in shared_classes)
    if not ids or not classes:
        what = "ids" if not shared_ids else "classes" if not classes else "videos of the classes they share"
        raise AlignmentError(f"{', '.join(tables)} have no {what} in common; are these tables of one dataset and split?")
    return ids, classes


def _take(table: ScoreTable, ids: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    row = {name: index for index, name in enumerate(table.ids)}
    column = {name: index for index, name in enumerate(table.classes)}
    return table.values[np.ix_([row[name] for name in ids], [column[name] for name in classes])]


def _label_names(tables: Mapping[str, ScoreTable]) -> dict[str, str]:
    """Class name of each labelled video, from whichever tables have labels."""
    names: dict[str, str] = {}
    for table in tables.values():
        if table.labels is not None:
            names |= {name: table.classes[label] for name, label in zip(table.ids, table.labels.tolist(), strict=True)}
    return names


def _labels(tables: Mapping[str, ScoreTable], ids: Sequence[str], classes: Sequence[str]) -> np.ndarray | None:
    names = _label_names(tables)
    if any(name not in names for name in ids):
        return None
    index = {name: place for place, name in enumerate(classes)}
    return np.array([index[names[name]] for name in ids], np.int64)


def _set_problems(tables: Mapping[str, ScoreTable], which: str) -> list[str]:
    (first, reference), *others = tables.items()
    expected = set(getattr(reference, which))
    problems = []
    for name, table in others:
        found = set(getattr(table, which))
        missing, extra = expected - found, found - expected
        if missing or extra:
            parts = [f"{len(left)} only in {where} ({_show(left)})" for left, where in ((missing, first), (extra, name)) if left]
            same = {item.lower() for item in missing} == {item.lower() for item in extra}
            rules = helpful(missing, extra)
            hint = f" (--match.{which} {rules} takes them as the same)" if rules else ""
            problems.append(f"{which}: {', '.join(parts)}" + ("; they differ only in upper and lower case" if same else "") + hint)
    return problems


def _label_problems(tables: Mapping[str, ScoreTable]) -> list[str]:
    known: dict[str, tuple[str, str]] = {}
    clashes: dict[tuple[str, str], list[str]] = {}
    for table_name, table in tables.items():
        for name, label in _label_names({table_name: table}).items():
            earlier, expected = known.setdefault(name, (table_name, label))
            if label != expected:
                clashes.setdefault((earlier, table_name), []).append(f"{name!r} is {expected!r} in {earlier} and {label!r} in {table_name}")
    return [f"labels: {len(items)} differ ({_cut(items)})" for items in clashes.values()]


def _show(names: set[str]) -> str:
    return _cut([repr(name) for name in sorted(names)])


def _cut(items: Sequence[str]) -> str:
    return ", ".join(items[:_SHOWN]) + (", ..." if len(items) > _SHOWN else "")


def _advice(tables: Mapping[str, ScoreTable], common: bool) -> str:
    if common or not (_set_problems(tables, "ids") or _set_problems(tables, "classes")):
        return "Labels are facts about the videos: find out which table is wrong."
    return "Make the tables from one list, or pass --common to keep only what all of them have."
