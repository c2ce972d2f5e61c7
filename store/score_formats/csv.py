"""CSV: a line a video; the first column is its id, a column ``label`` its class, every other column the scores of the class it names."""

import csv
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from store.errors import ScoreError
from store.files import write_text
from store.score_formats import SCORE_FORMATS, Found, Keys, ScoreFormat, read_bytes
from store.scores import ScoreTable


def read(path: Path, keys: Keys) -> Found:
    """The whole table; ``keys.ids`` and ``keys.labels`` name those columns where they are called otherwise."""
    for asked, flag in ((keys.values, "--values"), (keys.classes, "--class-key")):
        if asked:
            raise ScoreError(f"{path} is a CSV: every column but ids and labels holds scores of the class it names; leave {flag} away")
    try:
        reader = csv.reader(io.StringIO(read_bytes(path).decode("utf-8-sig"), newline=""), strict=True)
        lines = dict(_numbered(reader))
    except (UnicodeDecodeError, csv.Error) as error:
        raise ScoreError(f"{path} is no CSV of UTF-8 text: {error}") from None
    if len(lines) < 2:
        raise ScoreError(f"{path} holds no scores; the first line names the columns (id, classes), then comes a line a video")
    header = [name.strip() for name in lines.pop(next(iter(lines)))]
    rows = list(lines.values())
    if len(header) == 1:
        raise ScoreError(f"{path} has one column, {header[0][:60]!r}; cells must be set apart by commas (and numbers written 0.5, not 0,5)")
    for asked, flag in ((keys.ids, "--ids"), (keys.labels, "--labels")):
        if asked and asked not in header:
            raise ScoreError(f"{path} has no column {asked!r} for {flag}; its columns are {', '.join(header[:20])}")
    ids_at = header.index(keys.ids) if keys.ids else 0
    label = keys.labels or "label"
    label_at = header.index(label) if label in header else None
    columns = [place for place in range(len(header)) if place not in (ids_at, label_at)]
    if wrong := [(number, len(row)) for number, row in lines.items() if len(row) != len(header)]:
        more = f" ({len(wrong)} such lines)" if len(wrong) > 1 else ""
        raise ScoreError(f"{path}: line {wrong[0][0]} has {wrong[0][1]} cells, the first line {len(header)}{more}")
    try:
        values = np.array([[float(row[place]) for place in columns] for row in rows], np.float64)
    except ValueError:
        raise ScoreError(f"{path}: {_first_word(lines, columns, header)}") from None
    labels = None if label_at is None or not any(row[label_at] for row in rows) else tuple(row[label_at] for row in rows)
    if labels is not None and "" in labels:
        raise ScoreError(
            f"{path}: {labels.count('')} of {len(rows)} videos have no label (first: {rows[labels.index('')][ids_at]!r}); label all or none"
        )
    return Found(values, tuple(row[ids_at] for row in rows), tuple(header[place] for place in columns), labels)


def _numbered(reader: Any) -> Iterator[tuple[int, list[str]]]:
    """Rows that are not empty, with the number of the line where each ends."""
    for row in reader:
        if row:
            yield reader.line_num, row


def _first_word(lines: dict[int, list[str]], columns: list[int], header: list[str]) -> str:
    for number, row in lines.items():
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
