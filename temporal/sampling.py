"""Which rows of features make a sample, and which of a sample's rows its steps take. Pure index arithmetic."""

import numpy as np

from store.errors import SpecError
from temporal.spec import SequenceSpec


def sigma(num_clips: int | np.ndarray, steps: int) -> np.ndarray:
    """Which of K clips the T steps take, int64 [T] ([S, T] for K [S, 1]), counted from 0 (PAPERS A, with t counted from 1 there).

    sigma(t) = 1 + floor((t - 1)(K - 1) / (T - 1)); K < T repeats, K = T is the identity, T = 1 takes the first.
    """
    if np.min(num_clips) < 1 or steps < 1:
        raise SpecError(f"a sequence needs at least one clip and one step, not {np.min(num_clips)} and {steps}")
    return np.arange(steps, dtype=np.int64) * (num_clips - 1) // max(steps - 1, 1)


def step_rows(starts: np.ndarray, counts: np.ndarray, spec: SequenceSpec) -> tuple[np.ndarray, np.ndarray]:
    """The row of every step of samples that own ``counts[s]`` rows from ``starts[s]`` on: int64 [S, longest], and lengths int64 [S].

    Places at and after a sample's length are padding and hold its first row.
    """
    lengths = sample_lengths(counts, spec)
    steps = np.arange(int(lengths.max()), dtype=np.int64)
    taken = np.where(steps < counts[:, None], steps, 0) if spec.sampling == "all" else sigma(counts[:, None], spec.steps)
    return starts[:, None] + taken, lengths


def sample_lengths(counts: np.ndarray, spec: SequenceSpec) -> np.ndarray:
    """Steps of samples that own ``counts`` rows each, int64 [S]."""
    return np.array(counts) if spec.sampling == "all" else np.full(len(counts), spec.steps, dtype=np.int64)


def spread(firsts: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """``firsts[i], ..., firsts[i] + counts[i] - 1`` for every i, one after the other; int64 [sum of counts]."""
    ends = np.cumsum(counts)
    return np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(firsts - ends + counts, counts)


def windows(starts: np.ndarray, counts: np.ndarray, window: int, stride: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Cut each video's rows into pieces of ``window``, every ``stride`` rows, as far as they fit; a shorter video is one piece.

    Returns first row and number of rows of each piece, and the position of its video; int64 [S] each.
    """
    pieces = np.maximum((counts - window) // stride, 0) + 1
    owner = np.repeat(np.arange(len(counts)), pieces)
    number = spread(np.zeros(len(counts), dtype=np.int64), pieces)
    return starts[owner] + number * stride, np.minimum(counts, window)[owner], owner
