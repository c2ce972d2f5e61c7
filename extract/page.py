"""A page of pictures in rows and columns with words around them, drawn with Pillow."""

import functools
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

PAPER, INK, SOFT, RULE = (255, 255, 255), (24, 24, 28), (98, 98, 108), (214, 214, 220)
MARGIN, GAP, LINE = 18, 10, 17  # pixels
TEXT, TITLE = 13, 17  # font sizes, pixels

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Cell:
    """A picture, RGB uint8 [h, w, 3], with words below it."""

    picture: np.ndarray
    words: tuple[str, ...] = ()

    @property
    def width(self) -> int:
        """That picture and words need, pixels."""
        return max(self.picture.shape[1], *(text_length(line) for line in ("", *self.words)))


@dataclass(frozen=True)
class Row:
    """Cells side by side, what they are (left of them), and a heading above."""

    label: tuple[str, ...]
    cells: tuple[Cell, ...]
    heading: str = ""

    @property
    def picture_height(self) -> int:
        """Of the highest picture, pixels."""
        return max(cell.picture.shape[0] for cell in self.cells)


class Page:
    """A page of a fixed width, in pixels, that grows downwards."""

    def __init__(self, width: int) -> None:
        self._width, self._y = width, MARGIN
        self._pictures: list[tuple[int, int, np.ndarray]] = []
        self._lines: list[tuple[int, int, str, int, Colour]] = []
        self._rules: list[int] = []
        self._frames: list[tuple[int, int, int, int]] = []

    def title(self, title: str, text: str) -> None:
        """A line of large words and one of small ones."""
        self._words(title, MARGIN, TITLE)
        self._y += 3
        self._words(text, MARGIN, colour=SOFT)
        self._y += GAP

    def row(self, row: Row, left: int, widths: list[int]) -> None:
        """A row whose first column begins at ``left``; columns are ``widths`` wide."""
        if row.heading:
            self._rule()
            self._words(row.heading, MARGIN)
            self._y += GAP // 2
        middle = self._y + row.picture_height // 2
        for number, line in enumerate(row.label):
            self._lines.append((MARGIN, middle + LINE * number - LINE * len(row.label) // 2, line, TEXT, SOFT))
        below = self._y + row.picture_height + 3
        for cell, width in zip(row.cells, widths, strict=True):
            inner, (high, wide) = left + (width - cell.picture.shape[1]) // 2, cell.picture.shape[:2]
            self._pictures.append((inner, self._y, cell.picture))
            self._frames.append((inner - 1, self._y - 1, inner + wide, self._y + high))  # a white picture would have no edge
            for number, line in enumerate(cell.words):
                self._lines.append((left + (width - text_length(line)) // 2, below + LINE * number, line, TEXT, INK))
            left += width + GAP
        self._y = below + LINE * max(len(cell.words) for cell in row.cells) + GAP

    def legend(self, paragraphs: list[str], picture: np.ndarray) -> None:
        """A picture with words to its right, below a rule."""
        self._rule()
        top = self._y
        self._pictures.append((MARGIN, top, picture))
        for text in paragraphs:
            self._words(text, MARGIN + picture.shape[1] + 2 * GAP)
            self._y += 4
        self._y = max(self._y, top + picture.shape[0]) + MARGIN

    def image(self) -> np.ndarray:
        """The page so far, RGB uint8 [H, W, 3]."""
        page = Image.new("RGB", (self._width, self._y), PAPER)
        draw = ImageDraw.Draw(page)
        for y in self._rules:
            draw.line((MARGIN, y, self._width - MARGIN, y), RULE)
        for frame in self._frames:
            draw.rectangle(frame, outline=RULE)
        for left, top, picture in self._pictures:
            page.paste(Image.fromarray(picture), (left, top))
        for left, top, text, size, colour in self._lines:
            draw.text((left, top), text, colour, _font(size))
        return np.asarray(page)

    def _rule(self) -> None:
        self._rules.append(self._y)
        self._y += GAP

    def _words(self, text: str, left: int, size: int = TEXT, colour: Colour = INK) -> None:
        for line in wrapped(text, self._width - left - MARGIN, size):
            self._lines.append((left, self._y, line, size, colour))
            self._y += LINE * size // TEXT


def wrapped(text: str, width: int, size: int = TEXT) -> list[str]:
    """Lines of at most ``width`` pixels, broken between words; a word that is longer is cut."""
    lines: list[str] = []
    for word in text.split(" "):
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and text_length(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(_cut(word, width, size))
    return lines


def _cut(word: str, width: int, size: int) -> str:
    if text_length(word, size) <= width:
        return word
    fits = [length for length in range(len(word)) if text_length(f"{word[:length]}…", size) <= width]
    return f"{word[: max(fits, default=0)]}…"


def text_length(text: str, size: int = TEXT) -> int:
    """Width of a line in pixels."""
    return int(np.ceil(_font(size).getlength(text)))


@functools.cache
def _font(size: int) -> ImageFont.FreeTypeFont:
    """DejaVu Sans, which matplotlib brings along; Pillow's own font has few letters."""
    import matplotlib

    return ImageFont.truetype(str(Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")), size)
