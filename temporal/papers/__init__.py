"""The papers' tables and curves, one file a paper: what each line trains or fuses, and the number that the paper prints. No torch."""

import importlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Union

from store.digest import digest
from temporal.papers.inputs import Facts

PAPERS = ("lakhal2018", "zheng2017", "iqbal2017")
UCF, HMDB = "UCF-101", "HMDB-51"


@dataclass(frozen=True)
class Train:
    """One head on one or two (mid fusion) of the inputs, each a role and a level ("" for the store's only one).

    ``varied``: dotted settings that the line is about, which no flag changes; ``base``: the paper's other settings for it, below the flags.
    """

    inputs: tuple[tuple[str, str], ...]
    varied: Mapping[str, Any] = field(default_factory=dict)
    base: Mapping[str, Any] = field(default_factory=dict)

    def __hash__(self) -> int:
        return hash(digest(self))  # the mappings themselves have none


@dataclass(frozen=True)
class Scores:
    """A score table that the user gives (--scores NAME=FILE.npz)."""

    name: str


@dataclass(frozen=True)
class Fuse:
    """Late fusion, by a rule of `actioncache fuse`, of the scores of others."""

    of: Mapping[str, Union["Train", "Scores", "Fuse"]]
    rule: str
    weights: Mapping[str, float] = field(default_factory=dict)


How = Train | Scores | Fuse


@dataclass(frozen=True)
class Line:
    """``names``: one for each column of names; ``published``: data set -> top-1 in per cent; ``how``: a text says why it cannot be done."""

    names: tuple[str, ...]
    how: How | str
    published: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Table:
    """``where`` it stands in the paper, ``said``: what the paper finds, ``columns``: of names. A curve's last one is its axis."""

    where: str
    title: str
    said: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    curve: bool = False


@dataclass(frozen=True)
class Paper:
    """``roles``: what each input is and how to make it; the first one is what a store without a name is taken for.

    ``levels``: the paper's names of levels -> this project's; ``scores``: names of the score tables that it fuses with; ``split``: of
    the data sets, the one that the tables' numbers are of.
    """

    name: str
    title: str
    roles: Mapping[str, str]
    levels: Mapping[str, str]
    scores: Mapping[str, str]
    tables: Callable[[Facts], list[Table]]
    split: int = 1


def load_paper(name: str) -> Paper:
    """The paper called ``name``, one of ``PAPERS``."""
    paper: Paper = importlib.import_module(f"temporal.papers.{name}").PAPER
    return paper
