"""Coarse categories of classes (PAPERS A): those that the authors of UCF-101 and HMDB-51 published, or a CSV file ``class,category``."""

import csv
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.errors import ListError, SpecError
from store.list_files import read_text
from store.video_list import some

FOLDER = Path(__file__).parent
MAX_BYTES = 1 << 22


@dataclass(frozen=True)
class CategoryFigures:
    """One category: ``accuracy`` of the class, ``category_accuracy`` of the category alone (which class of it does not matter)."""

    name: str
    num_classes: int
    num_videos: int
    accuracy: float
    category_accuracy: float


def known() -> list[str]:
    """Names of the data sets whose categories are here."""
    return sorted(path.stem for path in FOLDER.glob("*.csv"))


def read_categories(path: Path) -> dict[str, str]:
    """{class: category} of a CSV file with that header, in its order."""
    if not path.is_file() or path.stat().st_size > MAX_BYTES:
        raise SpecError(f"there is no file of categories {path}; known data sets: {', '.join(known())}")
    try:
        rows = list(csv.DictReader(io.StringIO(read_text(path), newline=""), strict=True))
    except (csv.Error, ListError) as error:
        raise SpecError(f"{path} is no CSV: {error}") from None
    if not rows or set(rows[0]) != {"class", "category"} or any(None in row.values() for row in rows):
        raise SpecError(f"{path} holds no categories; its columns must be class,category")
    found: dict[str, str] = {}
    for row in rows:
        if found.setdefault(row["class"], row["category"]) != row["category"]:
            raise SpecError(f"{path}: class {row['class']!r} is in two categories")
    return found


def categories_of(asked: str, classes: Sequence[str]) -> tuple[str, ...] | None:
    """The category of each class: of the data set or file asked for; of the data set that has exactly such classes; or none."""
    if asked == "none":
        return None
    if not asked:
        for name in known():
            table = read_categories(FOLDER / f"{name}.csv")
            if set(table) == set(classes):
                return tuple(table[one] for one in classes)
        return None
    table = read_categories(FOLDER / f"{asked}.csv" if asked in known() else Path(asked))
    if absent := [name for name in classes if name not in table]:
        raise SpecError(f"{len(absent)} classes have no category in {asked}: {some(absent)}")
    return tuple(table[name] for name in classes)


def category_order(categories: Sequence[str]) -> list[int]:
    """Positions of the classes with those of one category together; categories in order of first appearance, classes as they are."""
    place = {name: number for number, name in enumerate(dict.fromkeys(categories))}
    return sorted(range(len(categories)), key=lambda index: place[categories[index]])


def by_category(confusion: np.ndarray, categories: Sequence[str]) -> list[CategoryFigures]:
    """Figures of each category that has videos; ``confusion`` [true, predicted] counts videos."""
    names = list(dict.fromkeys(categories))
    number = np.array([names.index(name) for name in categories])
    coarse = np.zeros((len(names), len(names)), np.int64)
    np.add.at(coarse, (number[:, None], number[None]), confusion)
    right = np.bincount(number, np.diag(confusion), minlength=len(names))
    found = []
    for index, name in enumerate(names):
        videos = int(coarse[index].sum())
        if videos:
            found.append(
                CategoryFigures(
                    name, int((number == index).sum()), videos, float(right[index] / videos), float(coarse[index, index] / videos)
                )
            )
    return found
