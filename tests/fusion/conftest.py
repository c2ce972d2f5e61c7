"""Small score tables for the tests of fusion."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from fusion.fuse import fuse
from fusion.spec import FuseSpec
from store.scores import ScoreTable

MakeTable = Callable[..., ScoreTable]


@pytest.fixture
def make_table() -> MakeTable:
    """``make_table(seed, kind=..., classes=..., ids=..., labels=..., gain=...)``: random scores that know the label a little."""

    def make(seed: int, **changes: Any) -> ScoreTable:
        ids = changes.get("ids", tuple(f"v{index:02d}" for index in range(40)))
        classes = changes.get("classes", ("run", "jump", "wave", "clap", "sit", "stand"))
        labels = changes.get("labels", np.arange(len(ids)) % len(classes))
        values = np.random.default_rng(seed).normal(size=(len(ids), len(classes)))
        if labels is not None:
            values[np.arange(len(ids)), labels] += changes.get("gain", 1.0)
        kind = changes.get("kind", "scores")
        if kind == "log_probs":
            values -= np.log(np.exp(values).sum(axis=1, keepdims=True))
        source = changes.get("source", {"seed": seed})
        return ScoreTable(ids=ids, classes=classes, values=values.astype(np.float32), kind=kind, labels=labels, source=source)

    return make


@pytest.fixture
def shuffled() -> Callable[[ScoreTable, int], ScoreTable]:
    """The same table with rows and columns in another order."""

    def shuffle(table: ScoreTable, seed: int) -> ScoreTable:
        generator = np.random.default_rng(seed)
        rows, columns = generator.permutation(len(table.ids)), generator.permutation(len(table.classes))
        place = np.argsort(columns)
        return ScoreTable(
            ids=tuple(table.ids[row] for row in rows),
            classes=tuple(table.classes[column] for column in columns),
            values=table.values[np.ix_(rows, columns)],
            kind=table.kind,
            labels=None if table.labels is None else place[table.labels[rows]],
            source=table.source,
        )

    return shuffle


@pytest.fixture
def tables(make_table: MakeTable) -> dict[str, ScoreTable]:
    """Two streams and two fusions of them."""
    streams = {"rgb": make_table(0, gain=1.0), "flow": make_table(1, gain=1.4)}
    return streams | {
        "product": fuse(streams, "product"),
        "late": fuse(streams, FuseSpec(rule="weighted", weights={"rgb": 1, "flow": 1.5})),
    }
