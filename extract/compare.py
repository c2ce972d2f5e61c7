"""How far our numbers are from published ones, and whether that is near enough."""

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Tolerance:
    """What is near enough: the least cosine of a row, the greatest |ours - theirs| / |theirs| over all rows, and why so much."""

    cosine: float
    relative: float
    reason: str


@dataclass(frozen=True)
class Comparison:
    """One array of ours against a published one."""

    what: str
    made_with: str  # the weights of the published one, in words
    holds: bool
    difference: str  # in words, with the values
    allowed: str
    largest: float | None = None  # greatest absolute difference
    relative: float | None = None
    cosine: float | None = None  # the least of any row

    def text(self) -> str:
        """As printed."""
        made = f", made with {self.made_with}" if self.made_with else ""
        return f"{'agrees' if self.holds else 'DIFFERS'}: {self.what}{made}\n    {self.difference}\n    allowed: {self.allowed}"


def compare(what: str, made_with: str, theirs: np.ndarray, ours: np.ndarray, tolerance: Tolerance) -> Comparison:
    """Compare rows [N, D]; another shape, or NaN, never agrees."""
    allowed = f"cosine of every row at least {tolerance.cosine}, relative at most {tolerance.relative} ({tolerance.reason})"
    if ours.shape != theirs.shape:
        return Comparison(what, made_with, False, f"ours is {list(ours.shape)}, theirs {list(theirs.shape)}", allowed)
    ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
    largest = float(np.abs(ours - theirs).max(initial=0.0))
    relative = float(np.linalg.norm(ours - theirs) / max(float(np.linalg.norm(theirs)), 1e-30))
    lengths = np.linalg.norm(ours, axis=1) * np.linalg.norm(theirs, axis=1)
    cosines = (ours * theirs).sum(1) / np.maximum(lengths, 1e-30)
    cosine = float(cosines.min(initial=1.0))
    words = (
        f"{len(ours)} rows of {ours.shape[1]}: largest difference {largest:.3g}, relative {relative:.3g}, "
        f"cosine {cosine:.5f} at least, {float(np.median(cosines)):.5f} in the median"
    )
    holds = cosine >= tolerance.cosine and relative <= tolerance.relative  # false for NaN
    return Comparison(what, made_with, holds, words, allowed, largest, relative, cosine)


def differ(what: str, theirs: np.ndarray, ours: np.ndarray, allowed: float, made_with: str = "") -> Comparison:
    """Compare numbers one by one; another shape, or NaN, never agrees."""
    limit = f"a difference of {allowed:g}"
    if ours.shape != theirs.shape:
        return Comparison(what, made_with, False, f"ours is {list(ours.shape)}, theirs {list(theirs.shape)}", limit)
    largest = float(np.abs(ours.astype(np.float64) - theirs).max(initial=0.0))
    return Comparison(what, made_with, largest <= allowed, f"{theirs.size} numbers: largest difference {largest:.3g}", limit, largest)
