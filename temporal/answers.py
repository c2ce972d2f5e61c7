"""A score table for people: the most probable classes of each video, as text and as a picture."""

from collections.abc import Mapping
from typing import Literal, NamedTuple

import numpy as np

from store.scores import ScoreTable

COLOURS = {"truth": "tab:blue", "right": "tab:green", "wrong": "tab:red", "": "tab:gray"}


class Guess(NamedTuple):
    """A class and its probability, or, of an SVM, which has none, its decision value.

    For a labelled video ``mark`` is "truth", "right" (first and true), or "wrong" (first, not true).
    """

    name: str
    value: float
    mark: str
    unit: Literal["probability", "decision_value"] = "probability"

    def text(self) -> str:
        """``12.5 %``, or ``+0.25``: above 0 the SVM of the class says yes."""
        return f"{self.value:6.1%}".replace("%", " %") if self.unit == "probability" else f"{self.value:+8.2f}"


def shown_values(table: ScoreTable) -> np.ndarray:
    """float64 [V, C]: softmax of raw scores, exp of log-probabilities; decision values as they are."""
    values = table.values.astype(np.float64)
    if table.kind == "decision_values":
        return values
    shifted = np.exp(values - values.max(axis=1, keepdims=True))
    shares: np.ndarray = shifted / shifted.sum(axis=1, keepdims=True)
    return shares


def best_guesses(table: ScoreTable, count: int = 5) -> dict[str, list[Guess]]:
    """The ``count`` highest classes of each video, highest first."""
    values = shown_values(table)
    unit: Literal["probability", "decision_value"] = "decision_value" if table.kind == "decision_values" else "probability"
    order = np.argsort(-table.values, axis=1, kind="stable")[:, :count]
    labels = [None] * len(table.ids) if table.labels is None else table.labels.tolist()
    return {
        id_: [
            Guess(table.classes[at], float(values[row, at]), _mark(place, at, label), unit) for place, at in enumerate(order[row].tolist())
        ]
        for row, (id_, label) in enumerate(zip(table.ids, labels, strict=True))
    }


def guesses_text(guesses: Mapping[str, list[Guess]]) -> str:
    """A line a video and an indented one a class."""
    lines = []
    for id_, found in guesses.items():
        lines.append(id_)
        lines += [f"  {guess.text()}  {guess.name}" for guess in found]
    return "\n".join(lines)


def _mark(place: int, at: int, label: int | None) -> str:
    if label is None:
        return ""
    if place == 0:
        return "right" if at == label else "wrong"
    return "truth" if at == label else ""
