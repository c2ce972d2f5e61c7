"""The grid of a sweep: some settings, several values each, every combination once. Pure; imports no torch."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.digest import to_plain
from store.errors import SpecError
from store.options import merge, parse_setting, resolve
from temporal.spec import RunSpec

FEATURES = "features"  # the one axis that is no setting of RunSpec
NOT_AXES = {"train.seed": "several seeds are trained for every setting: use --seeds", "format": "it is set by the program"}


@dataclass(frozen=True)
class Axis:
    """What varies: its name, its values as given, and for each value the settings (dotted name -> value) or the stores that it means."""

    name: str
    texts: tuple[str, ...]
    values: tuple[Any, ...]


@dataclass(frozen=True)
class Setting:
    """One combination: what it is called on each axis, the stores it reads, and its spec (whose seed is not used)."""

    labels: Mapping[str, str]
    features: tuple[Path, ...]
    spec: RunSpec

    def text(self) -> str:
        """``head.hidden 128, train.learning_rate 1e-3``."""
        return ", ".join(f"{name} {label}" for name, label in self.labels.items()) or "the one setting"


def parse_axis(text: str) -> Axis:
    """``head.hidden=128,256`` -> Axis. ``sequence.width+head.hidden=128,256`` gives two settings the same value.

    Values that hold commas themselves (lists, tables) are separated by ``;``.
    """
    name, equals, rest = (part.strip() for part in text.partition("="))
    names = [part.strip().replace("-", "_") for part in name.split("+")]
    if not equals or not all(names):
        raise SpecError(f"grid {text!r} is no axis; write SETTING=VALUE,VALUE, e.g. head.hidden=128,256")
    for each in NOT_AXES.keys() & set(names):
        raise SpecError(f"{each} cannot be an axis of the grid: {NOT_AXES[each]}")
    texts = [part.strip() for part in rest.split(";" if ";" in rest else ",")]
    if not all(texts):
        raise SpecError(f"grid {text!r} has an empty value; write {name}=VALUE,VALUE")
    name = "+".join(names)
    values = [_stores(part) if name == FEATURES else {each: parse_setting(RunSpec, each, part) for each in names} for part in texts]
    if twice := sorted({texts[i] for i, value in enumerate(values) if value in values[:i]}):
        raise SpecError(f"grid {name} has {', '.join(twice)} twice; give each value once")
    return Axis(name, tuple(texts), tuple(values))


def _stores(text: str) -> tuple[Path, ...]:
    """``rgb-store+flow-store`` -> two paths (for mid fusion); a path that exists may hold a plus sign."""
    return (Path(text),) if Path(text).is_dir() else tuple(Path(part) for part in text.split("+"))


def combinations(axes: Sequence[Axis], base: Mapping[str, Any], features: Sequence[Path]) -> list[Setting]:
    """Every combination, the last axis fastest; ``base``: nested settings below all of them, ``features``: where no axis names stores.

    Raises one SpecError with every combination that is no valid spec.
    """
    names = [axis.name for axis in axes]
    single = [each for name in names for each in name.split("+")]
    if twice := sorted({name for name in single if single.count(name) > 1}):
        raise SpecError(f"grid {', '.join(twice)} is given twice; write all of its values in one --grid")
    _check_features(FEATURES in names, bool(features))
    settings, problems = [], []
    for chosen in itertools.product(*[list(zip(axis.texts, axis.values, strict=True)) for axis in axes]):
        labels = dict(zip(names, [text for text, _ in chosen], strict=True))
        values = dict(zip(names, [value for _, value in chosen], strict=True))
        stores = values.pop(FEATURES, tuple(features))
        over = {name: value for table in values.values() for name, value in table.items()}
        try:
            settings.append(Setting(labels, stores, resolve(RunSpec, merge(base, nested(over)))))
        except SpecError as error:
            problems.append(f"{', '.join(f'{name} {label}' for name, label in labels.items())}: {error}")
    if problems:
        raise SpecError(f"{len(problems)} of the grid's settings cannot be used; nothing was trained:\n  " + "\n  ".join(problems))
    return settings


def _check_features(in_grid: bool, given: bool) -> None:
    if in_grid and given:
        raise SpecError("features are given by --features and by --grid features; leave one of them out")
    if not in_grid and not given:
        raise SpecError("no features are given; use --features STORE, or --grid features=STORE,STORE")


def nested(dotted: Mapping[str, Any]) -> dict[str, Any]:
    """{"head.hidden": 128} -> {"head": {"hidden": 128}}."""
    tree: dict[str, Any] = {}
    for name, value in dotted.items():
        *tables, last = name.split(".")
        at = tree
        for table in tables:
            at = at.setdefault(table, {})
        at[last] = to_plain(value)
    return tree
