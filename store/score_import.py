"""Foreign scores become a ``ScoreTable``: whose rows, whose columns, which kind of numbers; nothing is taken for granted silently."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np

from store.digest import Checked, setting, to_plain
from store.errors import AlignmentError, ScoreError, SpecError
from store.files import sha256_file
from store.names import NameRules, helpful, key, renamed, translate
from store.score_columns import in_listing_order, knows_nothing, looks_listed, misplaced, numbering
from store.score_formats import MAX_BYTES, SCORE_FORMATS, Found, Keys, find_format
from store.scores import LOG_SUM_TOLERANCE, ScoreTable
from store.video_list import VideoList, some


@dataclass(frozen=True)
class ImportSpec(Checked):
    """How a file of another tool is read; recorded in the table."""

    kind: Literal["", "scores", "log_probs", "decision_values", "probabilities"] = setting(
        "", "what the numbers are; probabilities are kept as their logarithms. Must be said"
    )
    format: str = setting("", "csv, mat, mmaction2 or npz; default: what the suffix says")
    values: str = setting("", "name in the file of the scores [videos, classes]")
    ids: str = setting("", "name in the file of the videos' ids")
    class_key: str = setting("", "name in the file of the class names of the columns")
    labels: str = setting("", "name in the file of its labels")
    first_label: int = setting(0, "the smallest number of the file's labels: 0, or 1 as in MATLAB")
    rows: Literal["file", "list", "numbered"] = setting(
        "file", "the ids of the rows: in the file; the list's, in its order; or numbers, if nothing else is known"
    )
    columns: Literal["classes", "listing", "labels", "numbered"] = setting(
        "classes",
        "the order of the columns: that of the class names; that of a listing of files CLASS_test...; that by which the file's labels "
        "number the list's classes; or numbers",
    )
    accept_columns: bool = setting(False, "import although the labels say that columns are exchanged")
    origin: str = setting("", "what made the scores: network, training, tool, as they should be cited")
    match: NameRules = field(default_factory=NameRules)

    def check(self) -> None:
        if not self.kind:
            raise SpecError(
                "say what the numbers are: --kind scores (raw class scores), probabilities, log_probs or decision_values (of an SVM); "
                "softmax is taken of the one and not of the other, so it is not guessed"
            )
        if self.first_label not in (0, 1):
            raise SpecError(f"first_label is {self.first_label}; labels are counted from 0 or 1")


@dataclass(frozen=True)
class Imported:
    """The table, and what one should know about how it came about."""

    table: ScoreTable
    notes: tuple[str, ...]


def import_scores(path: Path, spec: ImportSpec, videos: VideoList | None = None, classes: Sequence[str] | None = None) -> Imported:
    """Read a foreign score file.

    ``videos`` gives labels by id (and the ids, with ``rows`` "list"); ``classes`` are the names of the columns in their order, where the
    file has none. Raises ``ScoreError`` or ``AlignmentError`` for what does not fit, is missing or cannot be told.
    """
    found = SCORE_FORMATS.get(spec.format or find_format(path)).read(path, Keys(spec.values, spec.ids, spec.class_key, spec.labels))
    if found.values.size * 8 > MAX_BYTES:
        raise ScoreError(f"{path} holds {found.values.size} scores, which is more than {MAX_BYTES} bytes")
    ids, spelt = _ids(path, found, spec, videos)
    truth = None if videos is None else _truth(path, ids, videos)
    names, class_notes = _columns(path, found, spec, videos, classes, truth)
    values = _numbers(path, found.values, spec, ids)
    labels = _labels(path, found, spec, names, truth)
    notes = [*found.notes, *spelt, *class_notes]
    if labels is not None and spec.columns != "numbered":
        notes += _check_columns(path, values, labels, names, spec)
    source: dict[str, Any] = {
        "made_by": "scores import",
        "file": path.name,
        "sha256": sha256_file(path),
        "origin": spec.origin,
        "import": to_plain(spec),
        "notes": notes,
    }
    kind = "log_probs" if spec.kind == "probabilities" else spec.kind
    return Imported(ScoreTable(ids, names, values, kind, labels, source), tuple(notes))  # type: ignore[arg-type]


def _ids(path: Path, found: Found, spec: ImportSpec, videos: VideoList | None) -> tuple[tuple[str, ...], list[str]]:
    count = len(found.values)
    if spec.rows == "numbered":
        return tuple(f"row{number:06d}" for number in range(count)), ["ids are numbers of rows: join only with tables of the same order"]
    if spec.rows == "list":
        if videos is None:
            raise SpecError("rows in the order of a list need that list: --list LIST (and --split, if only a part of it was scored)")
        if len(videos) != count:
            raise AlignmentError(f"{path} has {count} rows, the list {len(videos)} videos; give the list that was scored, or --split")
        return tuple(videos.ids), [f"ids are those of the list, in its order ({count} rows)"]
    if found.ids is None:
        raise ScoreError(
            f"{path} names no ids for its {count} rows; name them with --ids, or say --rows list with the --list that was scored"
        )
    if len(found.ids) != count:
        raise ScoreError(f"{path} has {count} rows of scores and {len(found.ids)} ids")
    if videos is None:
        return found.ids, []
    translation = translate(found.ids, videos.ids, spec.match.ids, "ids")
    note = [f"{len(translation)} ids are spelt as the list spells them (ignoring {', '.join(spec.match.ids)})"] if translation else []
    return renamed(found.ids, translation), note


def _truth(path: Path, ids: Sequence[str], videos: VideoList) -> list[str]:
    """The class name of every row, from the list."""
    known = {video.id: video.label for video in videos}
    absent = [name for name in ids if name not in known]
    if absent:
        rules = helpful(ids, videos.ids) or next((text for text in _COMMON if _inside(ids, videos.ids, text)), "")
        hint = f"; --match.ids {rules} would make them equal" if rules else ""
        raise AlignmentError(
            f"{path}: {len(absent)} of {len(ids)} ids are not in the list (which holds ids like {videos.ids[0]!r}): {some(absent)}{hint}"
        )
    if without := [name for name in ids if known[name] is None]:
        raise AlignmentError(f"{path}: {len(without)} videos have no label in the list: {some(without)}")
    return [str(known[name]) for name in ids]


_COMMON = ("case", "suffix", "folder", "folder,suffix", "folder,suffix,case", "folder,suffix,prefix", "folder,suffix,prefix,case")


def _inside(ids: Sequence[str], listed: Sequence[str], rules: str) -> bool:
    chosen = rules.split(",")
    return {key(name, chosen) for name in ids} <= {key(name, chosen) for name in listed}


def _columns(
    path: Path, found: Found, spec: ImportSpec, videos: VideoList | None, classes: Sequence[str] | None, truth: list[str] | None
) -> tuple[tuple[str, ...], list[str]]:
    count = found.values.shape[1]
    if spec.columns == "numbered":
        return tuple(f"class{number:04d}" for number in range(count)), ["class names are numbers of columns"]
    if spec.columns == "labels":
        return _by_labels(path, found, spec, truth)
    names = tuple(classes) if classes is not None else found.classes
    if names is None and videos is not None and len(videos.classes) == count:
        names = videos.classes
    if names is None:
        raise ScoreError(
            f"{path} names no classes for its {count} columns; give them in the order of the columns with --classes FILE, or say with "
            "--class-key which array of the file names them"
        )
    if len(names) != count:
        raise AlignmentError(f"{path} has {count} columns of scores, but {len(names)} class names were given ({some(names)})")
    listed = []
    if spec.columns == "listing":
        names, listed = in_listing_order(names), ["columns are in the order of a listing of files"]
    if videos is None:
        return names, listed
    translation = translate(names, videos.classes, spec.match.classes, "class names")
    names = renamed(names, translation)
    if differing := sorted(set(names) ^ set(videos.classes)):
        rules = helpful(names, videos.classes)
        hint = f"; --match.classes {rules} would make them equal" if rules else ""
        raise AlignmentError(f"{path}: {len(differing)} class names are only in the file or only in the list: {some(differing)}{hint}")
    spelt = [f"{len(translation)} classes are spelt as the list spells them: {some(list(translation))}"] if translation else []
    return names, [*listed, *spelt]


def _by_labels(path: Path, found: Found, spec: ImportSpec, truth: list[str] | None) -> tuple[tuple[str, ...], list[str]]:
    if truth is None or not isinstance(found.labels, np.ndarray):
        raise SpecError("the order of columns by labels needs a --list and numbered labels in the file (--labels NAME)")
    meaning = numbering(found.labels, truth)
    count = found.values.shape[1]
    if meaning is None or sorted(meaning) != list(range(spec.first_label, spec.first_label + count)):
        raise AlignmentError(
            f"{path}: its labels do not number the list's classes from {spec.first_label} to {spec.first_label + count - 1}, each once; "
            "see --first-label, or give the order with --classes FILE"
        )
    return tuple(meaning[number] for number in sorted(meaning)), ["columns are in the order by which the file's labels number the classes"]


def _numbers(path: Path, values: np.ndarray, spec: ImportSpec, ids: Sequence[str]) -> np.ndarray:
    if spec.kind != "probabilities":
        _check_not_probabilities(path, values, spec.kind)
        return values
    given = values.astype(np.float64)
    off = np.abs(given.sum(axis=1) - 1) > LOG_SUM_TOLERANCE
    wrong = off | (given < 0).any(axis=1) | ~np.isfinite(given).all(axis=1)
    if wrong.any():
        at = int(wrong.argmax())
        raise ScoreError(
            f"{path}: {int(wrong.sum())} rows are no probabilities ({ids[at]}: sum {given[at].sum():.6g}, least {given[at].min():.3g}); "
            "are they raw scores (--kind scores)?"
        )
    given /= given.sum(axis=1, keepdims=True)
    return np.log(np.maximum(given, np.finfo(np.float32).tiny))


def _check_not_probabilities(path: Path, values: np.ndarray, kind: str) -> None:
    """Softmax of what has been through softmax already is another, flatter thing, and nothing later would tell."""
    if values.shape[1] > 1 and (values >= 0).all() and (np.abs(values.sum(axis=1, dtype=np.float64) - 1) <= LOG_SUM_TOLERANCE).all():
        raise ScoreError(
            f"{path}: all {len(values)} rows are 0 or more and sum to 1, so these are probabilities and not {kind}; say "
            "--kind probabilities (softmax would be taken of them a second time)"
        )


def _labels(path: Path, found: Found, spec: ImportSpec, names: Sequence[str], truth: list[str] | None) -> np.ndarray | None:
    place = {name: index for index, name in enumerate(names)}
    own = found.labels
    if own is not None and len(own) != len(found.values):
        raise ScoreError(f"{path} has {len(found.values)} rows of scores and {len(own)} labels")
    if truth is None:
        return _own_labels(path, own, spec, place)
    if isinstance(own, np.ndarray) and spec.columns != "numbered":
        _compare_labels(path, own - spec.first_label, names, truth, spec)
    if spec.columns == "numbered":
        return None if own is None else _own_labels(path, own, spec, place)
    return np.array([place[name] for name in truth], np.int64)


def _own_labels(path: Path, own: Any, spec: ImportSpec, place: dict[str, int]) -> np.ndarray | None:
    if own is None:
        return None
    if not isinstance(own, np.ndarray):
        if unknown := sorted({name for name in own if name not in place}):
            raise AlignmentError(f"{path}: {len(unknown)} labels are no class of the table: {some(unknown)}")
        return np.array([place[name] for name in own], np.int64)
    numbers = own - spec.first_label
    if ((numbers < 0) | (numbers >= len(place))).any():
        raise AlignmentError(
            f"{path}: its labels are {own.min()} to {own.max()}, which are no positions of {len(place)} classes counted from "
            f"{spec.first_label}; see --first-label"
        )
    return numbers


def _compare_labels(path: Path, own: np.ndarray, names: Sequence[str], truth: list[str], spec: ImportSpec) -> None:
    """The file's own numbers against the list's classes: another order of classes is told apart from other rows."""
    said = [names[number] if 0 <= number < len(names) else None for number in own.tolist()]
    differing = [at for at, name in enumerate(truth) if said[at] != name]
    if not differing or spec.accept_columns:
        return
    meaning = numbering(own, truth)
    if meaning is None:
        at = differing[0]
        raise AlignmentError(
            f"{path}: {len(differing)} of {len(truth)} rows have another label in the file than in the list (row {at}: {said[at]}, "
            f"in the list {truth[at]}), with no order of the classes that would explain it; are these the rows of this list?"
        )
    moved = [f"number {number + spec.first_label} is {name}, not {names[number]}" for number, name in sorted(meaning.items())
             if 0 <= number < len(names) and names[number] != name]  # fmt: skip
    raise AlignmentError(
        f"{path}: its labels number the classes in another order than the class names given: {some(moved)}. Its columns are most likely "
        "in that order too: --columns labels takes it from there; --accept-columns imports as named"
    )


def _check_columns(path: Path, values: np.ndarray, labels: np.ndarray, names: Sequence[str], spec: ImportSpec) -> list[str]:
    told = [text] if (text := looks_listed(values, labels, names)) else [group.words(names) for group in misplaced(values, labels)]
    if knows_nothing(values, labels):
        right = int((values.argmax(axis=1) == labels).sum())
        told.append(
            f"only {right} of {len(labels)} videos are right, no more than by chance: are the rows, or all columns, in another order?"
        )
    if not told:
        return []
    if spec.accept_columns:
        return [f"accepted: {text}" for text in told]
    listed = "\n".join(f"  - {text}" for text in told)
    raise AlignmentError(
        f"{path}: the columns do not fit their class names:\n{listed}\n"
        "Find out in which order they were written and give it with --classes FILE; --accept-columns imports as named"
    )
