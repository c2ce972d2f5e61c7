"""CSV: a line a video; the first column is its id, a column ``label`` its class, every other column the scores of the class it names."""

import csv
import io
from pathlib import Path

import numpy as np

from store.errors import ScoreError
from store.files import write_text
from store.score_formats import SCORE_FORMATS, Found, Keys, ScoreFormat, read_bytes
from store.scores import ScoreTable


def read(path: Path, keys: Keys) -> Found:
    """The whole table; ``keys.ids`` and ``keys.labels`` name those columns where they are called otherwise."""
    try:
        rows = [row for row in csv.reader(io.StringIO(read_bytes(path).decode("utf-8-sig"), newline=""), strict=True) if row]
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{path} is no CSV of UTF-8 text: {error}") from None
    if len(rows) < 2:
        raise ScoreError(f"{path} holds no scores; the first line names the columns (id, classes), then comes a line a video")
    header = [name.strip() for name in rows.pop(0)]
    for asked, flag in ((keys.ids, "--ids"), (keys.labels, "--labels")):
        if asked and asked not in header:
            raise ScoreError(f"{path} has no column {asked!r} for {flag}; its columns are {', '.join(header[:20])}")
    ids_at = header.index(keys.ids) if keys.ids else 0
    label = keys.labels or "label"
    label_at = header.index(label) if label in header else None
    columns = [place for place in range(len(header)) if place not in (ids_at, label_at)]
    if wrong := [number for number, row in enumerate(rows, 2) if len(row) != len(header)]:
        raise ScoreError(f"{path}: line {wrong[0]} (and {len(wrong) - 1} more) has not the {len(header)} cells that the first line has")
    try:
        values = np.array([[float(row[place]) for place in columns] for row in rows], np.float64)
    except ValueError:
        raise ScoreError(f"{path}: {_first_word(rows, columns, header)}") from None
    labels = None if label_at is None or not any(row[label_at] for row in rows) else tuple(row[label_at] for row in rows)
    return Found(values, tuple(row[ids_at] for row in rows), tuple(header[place] for place in columns), labels)


def _first_word(rows: list[list[str]], columns: list[int], header: list[str]) -> str:
    for number, row in enumerate(rows, 2):
        for place in columns:
            try:
                float(row[place])
            except ValueError:
                return f"line {number}, column {header[place]}: {row[place][:40]!r} is no number"
    raise AssertionError("a cell was no number before")


def write(table: ScoreTable, path: Path) -> None:
    """Nine digits, from which every float32 comes back as it was; an empty label column where there are none."""
    if "label" in table.classes or "id" in table.classes:
        raise ScoreError("a class is called 'label' or 'id', as columns of the CSV are; export to npz")
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["id", "label", *table.classes])
    labels = [""] * len(table) if table.labels is None else [table.classes[label] for label in table.labels.tolist()]
    for name, label, row in zip(table.ids, labels, table.values.tolist(), strict=True):
        writer.writerow([name, label, *(f"{value:.9g}" for value in row)])
    write_text(path, text.getvalue())


SCORE_FORMATS.register("csv")(ScoreFormat("a line a video: id, label, the scores of each class", (".csv",), read, write))
