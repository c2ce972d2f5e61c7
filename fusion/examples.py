"""Example videos for the report: which ones, their top-5 bars in the papers' colours, and small pictures."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from fusion.footing import softmax
from fusion.metrics import order
from fusion.results import Results
from store.errors import ScoreError

Picture = Path | np.ndarray
Frames = Callable[[str], Sequence[Picture]]
Role = Literal["truth", "right", "wrong", "other"]

_MAX_PICTURES = 3
_PICTURE_WIDTH = 240
_STRIP_WIDTH = 640  # of several frames side by side


@dataclass(frozen=True)
class Bar:
    """One class of a video's best: its number, the length of its bar in 0..1, and whether that number is a probability."""

    name: str
    value: float
    share: float
    role: Role
    is_probability: bool


@dataclass(frozen=True)
class Example:
    """One video: the five best classes (the truth added where it is not among them) and JPEG pictures as data URIs."""

    id: str
    truth: str
    predicted: str
    bars: tuple[Bar, ...]
    pictures: tuple[str, ...]


def choose_examples(results: Results, number: int = 4, frames: Frames | None = None) -> dict[str, list[Example]]:
    """Groups of at most ``number`` videos, drawn at random (``results.spec.seed``), classes as different as possible.

    ``frames(id)`` gives pictures of a video: image files or uint8 RGB arrays [H, W, 3]; an empty sequence where there are none.
    """
    right = results.table(results.best).predicted == results.labels
    groups = {"Right": right, "Wrong": ~right}
    if results.best_single not in (None, results.best):
        single = results.table(str(results.best_single)).predicted == results.labels
        groups = {
            f"Right, where {results.best_single} alone is wrong": right & ~single,
            "Right": right & single,
            f"Wrong, where {results.best_single} alone is right": ~right & single,
            "Wrong": ~right & ~single,
        }
    generator = np.random.default_rng(results.spec.seed)
    rows = {title: _draw(np.flatnonzero(mask), results.labels, number, generator) for title, mask in groups.items()}
    return {title: [_example(results, row, frames) for row in chosen] for title, chosen in rows.items() if chosen}


def _draw(rows: np.ndarray, labels: np.ndarray, number: int, generator: np.random.Generator) -> list[int]:
    """Up to ``number`` of ``rows`` in random order: first one of each class, then a second one, and so on."""
    shuffled = generator.permutation(rows)
    seen: dict[int, int] = {}
    turns = []
    for row in shuffled:
        label = int(labels[row])
        turns.append(seen.setdefault(label, 0))
        seen[label] += 1
    return [int(row) for row in shuffled[np.argsort(turns, kind="stable")][:number]]


def _example(results: Results, row: int, frames: Frames | None) -> Example:
    classes, truth = results.aligned.classes, int(results.labels[row])
    values = results.scores(results.best)[row].astype(np.float64)
    is_probability = results.table(results.best).kind != "decision_values"
    ranking = order(values[None], results.labels[row : row + 1], results.spec.ties)[0]
    shown = list(ranking[:5]) + ([truth] if truth not in ranking[:5] else [])
    if is_probability:
        values = softmax(values)
    spread = float(values.max() - values.min()) or 1.0
    shares = values if is_probability else (values - values.min()) / spread
    bars = [
        Bar(classes[index], float(values[index]), float(shares[index]), _role(int(index), truth, int(ranking[0])), is_probability)
        for index in shown
    ]
    name = results.aligned.ids[row]
    pictures = [encode(picture, name) for picture in list(frames(name))[:_MAX_PICTURES]] if frames else []
    return Example(name, classes[truth], classes[ranking[0]], tuple(bars), tuple(pictures))


def _role(index: int, truth: int, predicted: int) -> Role:
    if index == predicted:
        return "right" if index == truth else "wrong"
    return "truth" if index == truth else "other"


def encode(picture: Picture, name: str) -> str:
    """A picture as a small JPEG data URI; ``name`` is the video's id for the error message."""
    import cv2  # slow to import, and needed only where pictures are given

    if isinstance(picture, Path):
        pixels = cv2.imread(str(picture), cv2.IMREAD_COLOR)
        if pixels is None:
            raise ScoreError(f"the picture {picture} of video {name!r} cannot be read as an image")
    else:
        if picture.ndim != 3 or picture.shape[2] != 3 or picture.dtype != np.uint8:
            raise ScoreError(f"a picture of video {name!r} is {picture.dtype} {picture.shape}; give uint8 [H, W, 3], RGB")
        pixels = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    width = _STRIP_WIDTH if pixels.shape[1] > 2.2 * pixels.shape[0] else _PICTURE_WIDTH
    height = max(1, round(pixels.shape[0] * width / pixels.shape[1]))
    small = cv2.resize(pixels, (width, height), interpolation=cv2.INTER_AREA)
    _, data = cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 82])
    return "data:image/jpeg;base64," + base64.b64encode(data.tobytes()).decode("ascii")
