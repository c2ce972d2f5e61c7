"""numpy's ``.npz``: one array of scores [V, C], perhaps text arrays of ids and classes, and labels."""

from pathlib import Path

import numpy as np

from store.errors import ScoreError
from store.files import atomic_path
from store.npz import read_npz
from store.score_formats import MAX_BYTES, SCORE_FORMATS, Found, Keys, ScoreFormat, choose, whole_numbers
from store.scores import FORMAT, ScoreTable

_LABEL_NAMES = ("labels", "label")


def read(path: Path, keys: Keys) -> Found:
    """The only array of numbers with two dimensions, the only text with a name a row; others are chosen by name."""
    arrays = read_npz(path, ScoreError, MAX_BYTES)
    if arrays.get("format") is not None and str(arrays["format"]) == FORMAT:
        raise ScoreError(f"{path} is a score table of this program already; use it as it is")
    looks = {name: f"{array.dtype} {list(array.shape)}" for name, array in arrays.items()}
    fitting = {name: looks[name] for name, array in arrays.items() if array.ndim == 2 and array.dtype.kind in "fiu"}
    chosen = choose(path, keys.values, fitting, "scores [videos, classes]", "--values", looks)
    values = arrays[chosen]
    if values.ndim != 2:
        raise ScoreError(f"{path}: {chosen} is {looks[chosen]}; scores have two dimensions, videos and classes")
    texts = {name: array for name, array in arrays.items() if array.ndim == 1 and array.dtype.kind == "U"}
    ids = _text(path, arrays, looks, keys.ids, "--ids") if keys.ids else _only(texts, len(values), values.shape)
    classes = _text(path, arrays, looks, keys.classes, "--class-key") if keys.classes else _only(texts, values.shape[1], values.shape)
    return Found(values, ids, classes, _labels(path, arrays, looks, keys.labels, len(values)), (f"scores are the array {chosen}",))


def _only(texts: dict[str, np.ndarray], length: int, shape: tuple[int, ...]) -> tuple[str, ...] | None:
    """The one text array of this length; none where both sides are as long, or several fit."""
    fitting = [array for array in texts.values() if len(array) == length]
    return tuple(fitting[0].tolist()) if len(fitting) == 1 and shape[0] != shape[1] else None


def _text(path: Path, arrays: dict[str, np.ndarray], looks: dict[str, str], name: str, flag: str) -> tuple[str, ...]:
    array = arrays[choose(path, name, {}, "names", flag, looks)]
    if array.dtype.kind not in "US" or array.ndim != 1:
        raise ScoreError(f"{path}: {name} is {looks[name]}; {flag} names an array of text with one dimension")
    return tuple(str(item.decode("utf-8", "replace") if isinstance(item, bytes) else item) for item in array.tolist())


def _labels(
    path: Path, arrays: dict[str, np.ndarray], looks: dict[str, str], name: str, length: int
) -> np.ndarray | tuple[str, ...] | None:
    name = name or next((known for known in _LABEL_NAMES if known in arrays and arrays[known].shape == (length,)), "")
    if not name:
        return None
    array = arrays[choose(path, name, {}, "labels", "--labels", looks)]
    return _text(path, arrays, looks, name, "--labels") if array.dtype.kind in "US" else whole_numbers(path, array, name)


def write(table: ScoreTable, path: Path) -> None:
    """Plain arrays ``values``, ``ids``, ``classes``, and ``labels`` where there are any."""
    arrays = {"values": table.values, "ids": np.array(table.ids), "classes": np.array(table.classes)}
    if table.labels is not None:
        arrays["labels"] = table.labels
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **arrays)


SCORE_FORMATS.register("npz")(ScoreFormat("numpy arrays: scores [V, C], ids, classes, labels", (".npz",), read, write))
