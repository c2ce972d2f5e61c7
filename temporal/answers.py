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


def guesses_png(guesses: Mapping[str, list[Guess]], strips: Mapping[str, np.ndarray]) -> bytes:
    """A row a video: its strip of frames (uint8 [H, W, 3], where there is one) and its best classes as bars.

    Blue: the truth; green: the first, and right; red: the first, and wrong; grey: any other, or nobody knows.
    """
    from io import BytesIO

    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 1.9 * len(guesses)), layout="constrained")
    panels = figure.subplots(len(guesses), 2, squeeze=False, width_ratios=(3, 2))
    for (picture, bars), (id_, found) in zip(panels, guesses.items(), strict=True):
        picture.set_axis_off()
        picture.set_title(id_ if len(id_) <= 70 else f"...{id_[-67:]}", fontsize="small", loc="left", parse_math=False)
        if id_ in strips:
            picture.imshow(strips[id_])
        rows = range(len(found))
        bars.barh(rows, [guess.value for guess in found], color=[COLOURS[guess.mark] for guess in found])
        bars.set(ylim=(len(found) - 0.4, -0.6))
        bars.set_yticks(rows, [guess.name.replace("$", r"\$") for guess in found], fontsize="small")
        if all(guess.unit == "probability" for guess in found):
            bars.set(xlim=(0, 1))
            bars.xaxis.set_major_formatter("{x:.0%}")
        else:
            bars.axvline(0, color="black", linewidth=0.8)
            bars.set(xlabel="decision value")
    buffer = BytesIO()
    figure.savefig(buffer, format="png", dpi=110, metadata={"Software": None})
    return buffer.getvalue()


def _mark(place: int, at: int, label: int | None) -> str:
    if label is None:
        return ""
    if place == 0:
        return "right" if at == label else "wrong"
    return "truth" if at == label else ""
