"""The picture of predictions: frames of each video beside its best classes as bars."""

from collections.abc import Mapping, Sequence
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from store.errors import SpecError
from store.scores import ScoreTable
from temporal.answers import COLOURS, Guess, best_guesses
from temporal.seen import Seen

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURED = 20  # videos, where nobody chose
MOST = 100  # videos: a taller picture is one that nobody looks at, and that no program opens
METADATA: dict[str, dict[str, Any]] = {".png": {"Software": None}, ".svg": {"Date": None}, ".pdf": {"CreationDate": None}}
ROW, TOP, WIDTH, LEFT = 1.7, 0.5, 12.0, 0.2  # inches: of a video, above them, of the picture, at its sides
BARS = 5  # of a video: what ``best_guesses`` gives where there are so many classes
GAP = 4  # pixels between frames
LEGEND = {"right": "best class, right", "wrong": "best class, wrong", "truth": "the true class", "": "another class, or no label"}
NOTES: dict[Seen, str] = {"trained on": "trained on", "validation": "validation part"}


def check_picture(path: Path | None, drawn: Sequence[str], ids: Sequence[str]) -> None:
    """SpecError for a name or videos that cannot be drawn, before anything is predicted."""
    if path is None:
        if drawn:
            raise SpecError("--draw names videos for the picture; give --picture FILE, too")
        return
    if path.suffix.lower() not in METADATA:
        raise SpecError(f"the picture {path} has the suffix {path.suffix!r}; it can be one of {', '.join(METADATA)}")
    if unknown := [id_ for id_ in drawn if id_ not in set(ids)]:
        raise SpecError(f"--draw {unknown[0]}: there is no such video among the {len(ids)}, e.g. {', '.join(ids[:3])}")
    if len(drawn) > MOST:
        raise SpecError(f"--draw names {len(drawn)} videos; a picture shows at most {MOST}")


def chosen(ids: Sequence[str], parts: Mapping[str, Seen], asked: Sequence[str]) -> tuple[list[str], str]:
    """The videos to draw, and which they are, in words: those asked for, else the first ones, new to the run before others."""
    if asked:
        found = [id_ for id_ in dict.fromkeys(asked) if id_ in set(ids)]
        if found:
            return found, f"{len(found)} of {len(ids)} videos"
        return list(ids[:PICTURED]), f"the first of {len(ids)} videos, for those asked for have no scores"
    new = [id_ for id_ in ids if parts[id_] == "unseen"]
    found = [*new, *(id_ for id_ in ids if parts[id_] != "unseen")][:PICTURED]
    if len(found) == len(ids):
        return list(ids), f"all {len(ids)} videos" if len(ids) > 1 else "the video"
    which = "the first that the run was not trained on" if len(new) >= len(found) else "those first that the run was not trained on"
    return found, f"{len(found)} of {len(ids)} videos, {which if new else 'the first ones'}; --draw ID (repeatable) chooses others"


def picture(table: ScoreTable, parts: Mapping[str, Seen], strips: Mapping[str, np.ndarray], frames: int, suffix: str = ".png") -> bytes:
    """A row a video: its strip of ``frames`` frames (uint8 [H, W, 3], where there is one) and its best classes as bars.

    Above the frames the id, what the video was to the run, and the true class where there are labels.
    """
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    guesses = best_guesses(table, BARS)
    height = TOP + ROW * len(guesses)
    figure = Figure(figsize=(WIDTH, height))
    marks = {guess.mark for found in guesses.values() for guess in found}
    patches = [Patch(color=COLOURS[mark], label=text) for mark, text in LEGEND.items() if mark in marks]
    if marks - {""}:
        figure.legend(handles=patches, loc="upper right", ncols=len(patches), fontsize="small", frameon=False)
    names = max(len(guess.name) for found in guesses.values() for guess in found)
    split = 0.56 + min(0.16, 0.006 * names)  # where the bars begin, so that their names have room
    most = max((abs(guess.value) for found in guesses.values() for guess in found), default=1.0) or 1.0
    kind = next(iter(guesses.values()))[0].unit.replace("_", " ")
    figure.text(split, 1 - (TOP - 0.05) / height, f"{kind} of each class", fontsize="small", va="top")
    for row, (id_, found) in enumerate(guesses.items()):
        bottom = 1 - (TOP + ROW * (row + 1)) / height
        shown = figure.add_axes((LEFT / WIDTH, bottom + 0.12 / height, 0.53, (ROW - 0.45) / height))
        shown.set_axis_off()
        shown.set_title(_title(table, row, parts[id_]), fontsize="small", loc="left", parse_math=False)
        if id_ in strips:
            shown.imshow(spaced(strips[id_], frames))
            shown.set_anchor("NW")
        _bars(figure.add_axes((split, bottom + 0.12 / height, 1 - LEFT / WIDTH - split, (ROW - 0.3) / height)), found, most)
    buffer = BytesIO()
    figure.savefig(buffer, format=suffix.lower()[1:], dpi=110, metadata=METADATA[suffix.lower()])
    return buffer.getvalue()


def spaced(strip: np.ndarray, frames: int) -> np.ndarray:
    """White lines between the frames of a strip, so that none runs into the next."""
    if strip.shape[1] % frames:
        return strip
    gap = np.full((len(strip), GAP, 3), 255, np.uint8)
    parts = [part for frame in np.split(strip, frames, axis=1) for part in (gap, frame)]
    return np.hstack(parts[1:])


def _title(table: ScoreTable, row: int, part: Seen) -> str:
    id_ = table.ids[row]
    words = [id_ if len(id_) <= 60 else f"...{id_[-57:]}"]
    words += [f"({NOTES[part]})"] if part in NOTES else []
    words += [f"- true class: {table.classes[table.labels[row]]}"] if table.labels is not None else []
    return " ".join(words)


def _bars(axes: "Axes", found: Sequence[Guess], most: float) -> None:
    """The classes, each with its number behind its bar."""
    rows = range(len(found))
    axes.barh(rows, [guess.value for guess in found], color=[COLOURS[guess.mark] for guess in found])
    for at, guess in zip(rows, found, strict=True):
        axes.annotate(guess.text().strip(), (max(guess.value, 0), at), (3, 0), textcoords="offset points", va="center", fontsize="small")
    axes.set(ylim=(max(len(found), BARS) - 0.4, -0.6))
    axes.set_yticks(rows, [_short(guess.name).replace("$", r"\$") for guess in found], fontsize="small")
    axes.set_xticks([])
    for side in ("top", "right", "bottom"):
        axes.spines[side].set_visible(False)
    probabilities = all(guess.unit == "probability" for guess in found)
    axes.set_xlim(0 if probabilities else -1.15 * most, 1.15 if probabilities else 1.4 * most)
    if not probabilities:
        axes.axvline(0, color="black", linewidth=0.8)


def _short(name: str) -> str:
    return name if len(name) <= 26 else f"{name[:25]}…"
