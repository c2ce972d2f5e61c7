"""Result files of mmaction2 (``--dump``, or ``--out`` of its versions 0.x): a list with an entry a video, in the order of its list.

They are pickles; ``store.safe_pickle`` reads their plain data and runs nothing. JSON, which versions 0.x write too, is read as well.
"""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import ScoreError
from store.files import write_bytes
from store.safe_pickle import Refused, read_pickle
from store.score_formats import SCORE_FORMATS, Found, Keys, ScoreFormat, read_bytes
from store.scores import ScoreTable

_SCORES = ("pred_score", "pred_scores")
_LABELS = ("gt_label", "gt_labels")


def read(path: Path, keys: Keys) -> Found:
    """Scores of each entry: the entry itself (0.x), or its ``pred_score`` (1.x); ``gt_label`` where every entry has one."""
    data = read_bytes(path)
    try:
        entries = json.loads(data) if path.suffix.lower() == ".json" else read_pickle(data)
    except Refused as error:
        raise ScoreError(f"{path} is not read: {error}") from None
    except (ValueError, RecursionError) as error:
        raise ScoreError(f"{path} is no JSON: {str(error)[:200]}") from None
    if not isinstance(entries, list) or not entries:
        raise ScoreError(f"{path} holds a {type(entries).__name__}; mmaction2's results are a list with an entry a video")
    rows = [_row(path, number, _part(path, number, entry, keys.values)) for number, entry in enumerate(entries)]
    if len({row.shape for row in rows}) > 1:
        raise ScoreError(f"{path}: entries have {', '.join(sorted({str(len(row)) for row in rows}))} scores; all must have as many")
    return Found(np.stack(rows), _ids(path, entries, keys.ids), None, _labels(path, entries, keys.labels))


def _ids(path: Path, entries: list[Any], asked: str) -> tuple[str, ...] | None:
    if not asked:
        return None
    for number, entry in enumerate(entries):
        if not isinstance(entry, dict) or not isinstance(_item(entry.get(asked)), str):
            held = ", ".join(map(str, entry)) if isinstance(entry, dict) else "scores alone"
            raise ScoreError(f"{path}: entry {number} has no text {asked!r} for --ids; it has {held}; see --rows list")
    return tuple(_item(entry[asked]) for entry in entries)


def _part(path: Path, number: int, entry: Any, asked: str) -> Any:
    if not isinstance(entry, dict):
        return entry
    name = asked or next((name for name in _SCORES if name in entry), "")
    if name not in entry:
        raise ScoreError(f"{path}: entry {number} has no {asked or 'pred_score'}; it has {', '.join(map(str, entry))}; see --values")
    return _item(entry[name])


def _item(value: Any) -> Any:
    """Version 1.0 of mmaction2 wraps each value: {"item": value}."""
    return value["item"] if isinstance(value, dict) and "item" in value else value


def _row(path: Path, number: int, value: Any) -> np.ndarray:
    try:
        row = np.asarray(value, np.float64)
    except (ValueError, TypeError):
        row = np.array([])
    if row.ndim != 1 or not row.size:
        raise ScoreError(f"{path}: entry {number} holds no vector of scores (its shape is {list(row.shape)})")
    return row


def _labels(path: Path, entries: list[Any], asked: str) -> np.ndarray | None:
    dicts = [entry for entry in entries if isinstance(entry, dict)]
    name = asked or next((name for name in _LABELS if dicts and all(name in entry for entry in dicts)), "")
    found = [np.ravel(_item(entry.get(name))) for entry in dicts] if name else []
    alone = [label.dtype.kind in "iu" and len(label) == 1 for label in found]  # several: a video of several classes, not read
    if len(found) == len(entries) and all(alone):
        return np.array([int(label[0]) for label in found], np.int64)
    if asked:
        raise ScoreError(
            f"{path}: {len(entries) - sum(alone)} of {len(entries)} entries have no single whole number {asked!r} for --labels"
        )
    return None


def write(table: ScoreTable, path: Path) -> None:
    """The form of 0.x as a pickle of numpy arrays, in the table's order of rows and columns; as JSON where the suffix says so."""
    rows = list(np.ascontiguousarray(table.values))
    if path.suffix.lower() == ".json":
        write_bytes(path, json.dumps([row.tolist() for row in rows]).encode())
    else:
        write_bytes(path, pickle.dumps(rows, protocol=4))


SCORE_FORMATS.register("mmaction2")(
    ScoreFormat("result files of mmaction2, no code of theirs run", (".pkl", ".pickle", ".json"), read, write)
)
