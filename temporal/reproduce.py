"""A paper's tables on the stores at hand: every line's settings trained over splits and seeds, fused, and put beside the paper's number.

Late fusion is handed in (``Fuser``): this package knows nothing of score fusion beyond the tables that go in and come out.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from store.errors import PipelineError, SpecError
from store.options import merge, resolve
from temporal.grid import Setting, nested
from temporal.many import Plan, Trained, Work, setting_name, train_all
from temporal.papers import Fuse, How, Line, Paper, Scores, Table, Train
from temporal.papers.inputs import Facts
from temporal.protocols import protocol
from temporal.spec import RunSpec
from temporal.sweep import Figure

if TYPE_CHECKING:
    from store.scores import ScoreTable
    from store.videos import VideoList

Fuser = Callable[[Mapping[str, "ScoreTable"], str, Mapping[str, float]], "ScoreTable"]  # tables by name, rule, weights (or none)
ScoreFiles = Mapping[str, Mapping[str, Path]]  # name -> split -> file
RUNS, SCORES = "runs", "scores"
QUICK: dict[str, Any] = {"train": {"epochs": 12, "patience": 4}}


@dataclass(frozen=True)
class Measured:
    """A line with what came of it: top-1 as a share for each split and seed, or why there is none."""

    line: Line
    top1: Mapping[str, Sequence[float]]
    skipped: str = ""
    failed: str = ""
    spec: RunSpec | None = None

    @property
    def figure(self) -> Figure | None:
        """Mean over the splits, then over the seeds; the deviation is that of the seeds."""
        return Figure.of([mean(values) for values in zip(*self.top1.values(), strict=True)]) if self.top1 else None

    def of_split(self, split: str) -> Figure | None:
        """The same of one split."""
        return Figure.of(self.top1[split]) if split in self.top1 else None


@dataclass(frozen=True)
class Reproduction:
    """A paper's tables with figures; ``splits``: name -> number of test videos; ``unchecked``: whether from runs without digests."""

    paper: Paper
    tables: tuple[tuple[Table, tuple[Measured, ...]], ...]
    plan: Plan
    splits: Mapping[str, int]
    features: Mapping[str, Sequence[str]]
    settings: Mapping[str, Any]
    num_classes: int
    quick: bool
    missing: int
    unchecked: bool = False

    @property
    def papers_split(self) -> str:
        """The split that the paper's numbers are of, where it is one of several here; else empty."""
        name = f"split-{self.paper.split}"
        return name if name in self.splits and len(self.splits) > 1 else ""

    @property
    def failed(self) -> list[Measured]:
        """Lines that could not be done though their inputs are there."""
        return [measured for _, lines in self.tables for measured in lines if measured.failed]


@dataclass(frozen=True)
class Bench:
    """What every line needs: where to work, with what, on which lists."""

    path: Path
    facts: Facts
    lists: Mapping[str, "VideoList"]
    plan: Plan
    overrides: Mapping[str, Any]
    score_files: ScoreFiles
    fuse: Fuser
    stopped: Callable[[], bool] = lambda: False  # whether to save and raise ``Interrupted``


def reproduce(paper: Paper, bench: Bench) -> Reproduction:
    """Train what the paper's lines need (what is complete is kept), fuse, and collect the figures."""
    tables = paper.tables(bench.facts)
    settings: dict[Train, Setting] = {}
    problems: dict[Train, str] = {}
    for train in _distinct(train for table in tables for line in table.lines for train in trains(line.how)):
        if missing := _missing(train, bench.facts):
            problems[train] = missing
        else:
            settings[train] = make_setting(paper.name, train, bench)
    trained = _train(list(settings.values()), bench)
    measured = tuple((table, tuple(_measure(line, settings, problems, trained, bench) for line in table.lines)) for table in tables)
    done = [result for results in trained.values() for result in results.values()]
    return Reproduction(
        paper,
        measured,
        bench.plan,
        {name: max((results[name].test_videos for results in trained.values() if name in results), default=0) for name in bench.lists},
        {role: [store.path.name for store in stores] for role, stores in bench.facts.stores.items()},
        bench.overrides,
        len(next(iter(bench.lists.values())).classes),
        bench.facts.quick,
        max((result.missing for result in done), default=0),
        any(result.unchecked for result in done),
    )


def trains(how: How | str) -> Iterator[Train]:
    """Every training that a line needs."""
    if isinstance(how, Train):
        yield how
    elif isinstance(how, Fuse):
        for part in how.of.values():
            yield from trains(part)


def make_setting(paper: str, train: Train, bench: Bench) -> Setting:
    """Stores and spec of one training: defaults < protocol < quick < the line's base < the user's flags < what the line is about."""
    found = [bench.facts.find(role, level) for role, level in train.inputs]
    stores = [place for place in found if not isinstance(place, str)]
    spec = merge(protocol(paper), QUICK if bench.facts.quick else {})
    level = stores[0][1].name if len({found.name for _, found in stores}) == 1 else ""  # two stores that name theirs differently
    for layer in (nested(train.base), bench.overrides, nested({**train.varied, "sequence.level": level})):
        spec = merge(spec, layer)
    return Setting({}, tuple(store.path for store, _ in stores), resolve(RunSpec, spec))


def _distinct(items: Iterator[Train]) -> list[Train]:
    found: list[Train] = []
    for item in items:
        if item not in found:
            found.append(item)
    return found


def _missing(train: Train, facts: Facts) -> str:
    """Why a training has no inputs, in words."""
    found = [facts.find(role, level) for role, level in train.inputs]
    return "; ".join(dict.fromkeys(place for place in found if isinstance(place, str)))


def _train(settings: Sequence[Setting], bench: Bench) -> dict[str, dict[str, Trained]]:
    """Setting name -> split -> figures; equal settings of several tables are trained once."""
    named = {setting_name(setting, bench.plan): setting for setting in settings}
    keys = [(name, split) for name in named for split in bench.lists]
    works = [Work(named[name], bench.lists[split], run_folder(bench, name, split)) for name, split in keys]
    found: dict[str, dict[str, Trained]] = {name: {} for name in named}
    for (name, split), result in zip(keys, train_all(works, bench.plan, "reproduce", bench.stopped) if works else [], strict=True):
        found[name][split] = result
    return found


def run_folder(bench: Bench, name: str, split: str) -> Path:
    """Where one setting is trained on one split."""
    return bench.path / RUNS / name / split


def _measure(
    line: Line, settings: Mapping[Train, Setting], problems: Mapping[Train, str], trained: Mapping[str, Mapping[str, Trained]], bench: Bench
) -> Measured:
    if isinstance(line.how, str):
        return Measured(line, {}, skipped=line.how)
    needed = list(trains(line.how))
    if missing := "; ".join(dict.fromkeys(problems[train] for train in needed if train in problems)):
        return Measured(line, {}, skipped=missing)
    names = {train: setting_name(settings[train], bench.plan) for train in needed}
    failures = [result.failure for train in needed for result in trained[names[train]].values() if result.failure]
    spec = settings[line.how].spec if isinstance(line.how, Train) else None
    if failures:
        return Measured(line, {}, failed=failures[0], spec=spec)
    try:
        return Measured(line, {split: _top1s(line.how, names, split, bench) for split in bench.lists}, spec=spec)
    except PipelineError as error:
        return Measured(line, {}, failed=str(error), spec=spec)


def _top1s(how: How, names: Mapping[Train, str], split: str, bench: Bench) -> list[float]:
    from temporal.task import top1

    values = [top1(_table(how, names, split, seed, bench)) for seed in bench.plan.seeds]
    known = [value for value in values if value is not None]
    if len(known) < len(values):
        raise SpecError("the test videos of the list have no labels, so there is no accuracy; label them")
    return known


def _table(how: How, names: Mapping[Train, str], split: str, seed: int, bench: Bench) -> "ScoreTable":
    """Scores of the test part for one split and seed; a fusion's labels are those of the first part that has them."""
    from store.scores import ScoreTable
    from temporal.run_dir import Run

    if isinstance(how, Train):
        return Run.open(run_folder(bench, names[how], split) / f"seed-{seed}").scores()
    if isinstance(how, Scores):
        return ScoreTable.load(bench.score_files[how.name][split])
    parts = {name: _table(part, names, split, seed, bench) for name, part in how.of.items()}
    first = next(iter(parts.values()))
    if any(part.labels is None for part in parts.values()):  # a foreign table without labels, joined by id like the others
        parts = {name: replace(part, labels=None) for name, part in parts.items()}
    fused = bench.fuse(parts, how.rule, how.weights)
    if fused.labels is None and first.labels is not None:
        fused = replace(fused, labels=_labels(first, fused))
    return fused


def _labels(table: "ScoreTable", of: "ScoreTable") -> Any:
    import numpy as np

    assert table.labels is not None, "the caller looked"
    names = {id_: table.classes[label] for id_, label in zip(table.ids, table.labels, strict=True)}
    position = {name: index for index, name in enumerate(of.classes)}
    return np.array([position[names[id_]] for id_ in of.ids], dtype=np.int64)
