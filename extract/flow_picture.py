"""A strip of frames, their flow in colours and the bytes that a network gets, drawn for people."""

import io
from collections.abc import Iterable, Sequence
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

from extract.flow_show import Moment, Strip, colour_scale, method_words
from extract.page import GAP, MARGIN, Cell, Page, Row, text_length
from extract.spec import FLOW_FILES, FlowSpec
from store.errors import SpecError
from store.files import write_bytes

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}
WHEEL = 104  # side of the colour wheel in pixels
NARROWEST = 620  # of the words below the pictures, in pixels
WIDEST = 3  # a frame's width over its height, at most; flatter ones are drawn lower
FORMULAS = {
    "symmetric": "round(128 + 127 v / {b})",
    "dense_flow": "round(255 (v + {b}) / {b2})",
    "i3d": "round(128 + 255 v / {b2})",
}


def write_picture(strips: list[Strip], path: Path, height: int) -> None:
    """Draw strips of the same frames, one a method, below one another; frames are ``height`` pixels high. The suffix says the format."""
    check_suffix(path)
    data = io.BytesIO()
    Image.fromarray(draw_picture(strips, height)).save(data, FORMATS[path.suffix.lower()], quality=92, optimize=True)
    write_bytes(path, data.getvalue())


def check_suffix(path: Path) -> None:
    """Raise ``SpecError`` for a file that no picture can be written to, by its suffix."""
    if path.suffix.lower() not in FORMATS:
        raise SpecError(f"{path}: pictures are written as {', '.join(FORMATS)}; give the file one of these suffixes")


def draw_picture(strips: list[Strip], height: int) -> np.ndarray:
    """RGB uint8 [H, W, 3], light: frames from left to right; below them, for each strip, its flow and its bytes; then the legend."""
    scale = colour_scale(strips)
    rows = [_frame_row(strips[0], height)]
    for strip in strips:
        rows += _flow_rows(strip, scale, height)
    widths = [max(cell.width for cell in column) for column in zip(*(row.cells for row in rows), strict=True)]
    label = max(text_length(line) for row in rows for line in row.label)
    left = MARGIN + label + GAP
    page = Page(max(left + sum(widths) + GAP * (len(widths) - 1), MARGIN + NARROWEST) + MARGIN)
    page.title(*_title(strips[0]))
    for row in rows:
        page.row(row, left, widths)
    page.legend(_legend(strips, scale), colour_coded(_wheel(WHEEL) * scale, scale))
    return page.image()


def colour_coded(flow: np.ndarray, scale: float) -> np.ndarray:
    """Flow float32 [H, W, 2] in Middlebury's colours (Baker et al. 2011), uint8 [H, W, 3]; ``scale`` pixels and more get the full colour.

    White is no motion; NaN, too.
    """
    import torch
    from torchvision.utils import flow_to_image

    flow = np.nan_to_num(flow)
    length = np.hypot(flow[..., :1], flow[..., 1:])
    shown = flow * np.minimum(1, scale / np.maximum(length, scale))
    fastest = np.full((1, *flow.shape[1:]), 0, np.float32)
    fastest[..., 0] = scale  # torchvision gives the longest vector of an image the full colour
    coded = flow_to_image(torch.from_numpy(np.concatenate([shown, fastest]).astype(np.float32)).permute(2, 0, 1))
    return np.asarray(coded[:, :-1].permute(1, 2, 0).numpy())


def _wheel(side: int) -> np.ndarray:
    """Displacements from the centre to each pixel, float32 [side, side, 2], 1 at the rim and NaN outside."""
    axis = np.linspace(-1.02, 1.02, side, dtype=np.float32)
    wheel = np.stack(np.meshgrid(axis, axis), 2)
    wheel[np.hypot(wheel[..., 0], wheel[..., 1]) > 1] = np.nan
    return wheel


# Words


def _title(strip: Strip) -> tuple[str, str]:
    height, width = strip.size
    frames = f"{strip.num_frames} frame{'s' * (strip.num_frames != 1)}"
    flow_height, flow_width = strip.moments[0].flow.shape[:2]
    return strip.name, f"{frames}, {strip.fps:.4g} frames/s, {width} x {height}; flow {flow_width} x {flow_height}"


def _legend(strips: list[Strip], scale: float) -> list[str]:
    lines = [
        "Colour: where a pixel is in the next frame, seen from the centre of the wheel (right is right, down is down). Full colour: "
        f"{scale:.3g} px or more; white: no motion. One scale for all. The last frame of a video repeats the flow before it.",
    ]
    made = dict.fromkeys(_bytes_words(strip.spec) for strip in strips)
    lines += [f"Bytes: {words}" for words in made]
    lines.append("clipped: share of the displacements, x and y each, beyond the bound" + _of_files(strips) + ".")
    return lines


def _of_files(strips: list[Strip]) -> str:
    return "; in image files, at it" if any(strip.spec.method == FLOW_FILES for strip in strips) else ""


def _bytes_words(spec: FlowSpec) -> str:
    formula = FORMULAS[spec.quantise or "symmetric"].format(b=f"{spec.bound:g}", b2=f"{2 * spec.bound:g}")
    words = f"{formula} of v from -{spec.bound:g} to {spec.bound:g} px ({spec.quantise}); 128 is no motion."
    if spec.encoding == "image":
        return f"{words} Red is x, green y, blue the magnitude, 255 at {spec.bound:g} px."
    if spec.pairs == 1:
        return f"{words} Two channels, x and y."
    first, last = (f"i{shift:+d}" if shift else "i" for shift in (spec.offset, spec.offset + spec.pairs - 1))
    return f"{words} The network gets {spec.pairs} flows, those of frames {first} to {last}, as x, y, x, y, ...; here is that of frame i."


# Rows


def _frame_row(strip: Strip, height: int) -> Row:
    words = [(f"frame {moment.index}", f"{moment.seconds:.2f} s") for moment in strip.moments]
    return Row(("RGB frame",), _cells((moment.rgb for moment in strip.moments), height, words))


def _flow_rows(strip: Strip, scale: float, height: int) -> list[Row]:
    moments = strip.moments
    coded = (colour_coded(moment.flow, scale) for moment in moments)
    rows = [Row(("flow",), _cells(coded, height, [_motion(moment) for moment in moments]), method_words(strip.spec))]
    clipped = [(f"clipped {100 * moment.clipped:.1f} %",) for moment in moments]
    if strip.spec.encoding == "image":
        return [*rows, Row(("bytes:", "x, y, magnitude"), _cells((moment.values for moment in moments), height, clipped))]
    none: list[tuple[str, ...]] = [()] * len(moments)
    for channel, name in enumerate("xy"):
        grey = (np.repeat(moment.values[..., channel, None], 3, 2) for moment in moments)
        rows.append(Row((f"bytes: {name}",), _cells(grey, height, clipped if channel else none)))
    return rows


def _motion(moment: Moment) -> tuple[str, ...]:
    lengths = moment.lengths
    return f"largest {lengths.max():.1f} px", f"mean {lengths.mean():.2f} px"


def _cells(pictures: Iterable[np.ndarray], height: int, words: Sequence[tuple[str, ...]]) -> tuple[Cell, ...]:
    return tuple(Cell(_fitted(picture, height), text) for picture, text in zip(pictures, words, strict=True))


def _fitted(picture: np.ndarray, height: int) -> np.ndarray:
    factor = min(height / picture.shape[0], WIDEST * height / picture.shape[1])
    size = max(1, round(picture.shape[1] * factor)), max(1, round(picture.shape[0] * factor))
    return cv2.resize(picture, size, interpolation=cv2.INTER_AREA if factor < 1 else cv2.INTER_NEAREST)
