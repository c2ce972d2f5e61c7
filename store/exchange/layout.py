"""What a layout must offer: a reader of a source, and an exporter into a folder."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, ClassVar

import numpy as np

from store.exchange.spec import ImportSpec
from store.layout import Features, Level


@dataclass(frozen=True)
class Source:
    """Where foreign features lie: a file or folder, and the folder that paths in a list file are relative to (None: the list's own)."""

    path: Path
    root: Path | None = None


@dataclass(frozen=True)
class Item:
    """One video as a layout found it: its id, the file or folder that a failure names, and where each of its arrays is."""

    id: str
    path: Path
    parts: Mapping[str, Any]


@dataclass(frozen=True)
class Loaded:
    """Arrays as the files hold them. ``timing``: those of ``spec.COMPANIONS`` that are there, and ``first`` int64 [N], first frames."""

    values: dict[str, np.ndarray]
    timing: dict[str, np.ndarray] = field(default_factory=dict)


class Reader(ABC):
    """An opened source: ``items``, every video in it; ``spec``, completed with what the layout found out; ``notes`` for the user."""

    def __init__(self, spec: ImportSpec, items: list[Item], notes: list[str]) -> None:
        self.spec, self.items, self.notes = spec, items, notes

    @abstractmethod
    def read(self, item: Item) -> Loaded:
        """Load one video's arrays; ``PipelineError`` or ``OSError`` says why that cannot be done."""

    def accept(self, level: str, rows: np.ndarray) -> np.ndarray:
        """Check the rows [N, ...] of one level against what the layout promises; ``FeatureError`` if they break it."""
        return rows

    def close(self) -> None:  # noqa: B027 - most have nothing open
        """Let go of open files."""

    def __enter__(self) -> "Reader":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


@dataclass(frozen=True)
class Plan:
    """What an export writes: levels as they come out (after any change of type), and how."""

    levels: tuple[Level, ...]
    plain: bool = False  # features only: no names of levels, no frames and times
    overwrite: bool = False
    names: tuple[str, ...] = ()  # every video's name below the folder, checked, in order
    spans: int = 0  # frames that each row speaks of, where the first video's rows all have as many; 0: they differ

    @property
    def level(self) -> Level:
        """The only level."""
        (level,) = self.levels
        return level


class Exporter(ABC):
    """Writes videos into the folder ``out``; used in a ``with`` statement."""

    def __init__(self, out: Path, plan: Plan) -> None:
        self.out, self.plan = out, plan
        self.check()

    def check(self) -> None:  # noqa: B027 - some hold anything
        """Raise ``SpecError`` where the layout cannot hold these levels."""

    @abstractmethod
    def targets(self, name: str) -> list[str]:
        """Paths, relative to ``out``, of the files (in a container: of the arrays) that one video becomes."""

    @abstractmethod
    def write(self, name: str, features: Features) -> bool:
        """Write one video; False where equal files were there already. ``StoreError`` where other ones are and must not be replaced."""

    @abstractmethod
    def settings(self) -> dict[str, Any]:
        """What ``ImportSpec`` must say to read this back."""

    def extra_files(self) -> dict[str, str]:
        """Other files to write: {path relative to ``out``: text}."""
        return {}

    def notes(self) -> list[str]:
        """What the user should know about the files once they are written."""
        return []

    def main_file(self) -> str:
        """The file to import from, relative to ``out``; empty where that is the folder."""
        return ""

    def __enter__(self) -> "Exporter":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:  # noqa: B027
        """Finish; on an error, leave nothing half-written."""


class Layout(ABC):
    """One way to keep features. ``settings`` are the fields of ``ImportSpec`` that it uses beside those that all use."""

    about: ClassVar[str]
    settings: ClassVar[frozenset[str]] = frozenset()

    @abstractmethod
    def open(self, source: Source, spec: ImportSpec) -> Reader:
        """Look through a source without reading features. ``PipelineError`` where it is nothing of this layout."""

    @abstractmethod
    def exporter(self, out: Path, plan: Plan) -> Exporter:
        """An exporter into the folder ``out``."""
