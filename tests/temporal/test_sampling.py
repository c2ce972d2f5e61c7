"""Which rows make samples and steps, against loops over plain lists."""

from fractions import Fraction
from math import floor

import numpy as np
import pytest

from store.errors import SpecError
from temporal.sampling import sigma, spread, step_rows, windows
from temporal.spec import SequenceSpec


def test_sigma_is_the_papers_formula_for_all_k_and_t_up_to_64():
    for clips in range(1, 65):
        for steps in range(2, 65):
            paper = [1 + floor(Fraction((t - 1) * (clips - 1), steps - 1)) for t in range(1, steps + 1)]
            assert (sigma(clips, steps) + 1).tolist() == paper
        assert sigma(clips, 1).tolist() == [0]
        assert sigma(clips, clips).tolist() == list(range(clips))


def test_sigma_refuses_no_clips():
    with pytest.raises(SpecError, match="not 0 and 25"):
        sigma(0, 25)


def test_spread_counts_on_from_each_first():
    assert spread(np.array([5, 0, 9]), np.array([2, 0, 3])).tolist() == [5, 6, 9, 10, 11]
    assert spread(np.array([], dtype=np.int64), np.array([], dtype=np.int64)).tolist() == []


@pytest.mark.parametrize(("window", "stride"), [(1, 1), (3, 1), (3, 2), (4, 4), (2, 5), (20, 7)])
def test_windows_are_the_pieces_that_fit(window, stride):
    counts = np.array([1, 3, 4, 11, 2])
    starts = np.cumsum(counts) - counts
    expected = []
    for video, count in enumerate(counts.tolist()):
        at = 0
        while at == 0 or at + window <= count:
            expected.append((int(starts[video]) + at, min(window, count), video))
            at += stride
    found = windows(starts, counts, window, stride)
    assert list(zip(*(array.tolist() for array in found), strict=True)) == expected


def test_the_rows_of_every_step():
    starts, counts = np.array([10, 0, 4]), np.array([2, 4, 1])
    rows, lengths = step_rows(starts, counts, SequenceSpec(sampling="all"))
    assert lengths.tolist() == [2, 4, 1]
    assert [row[:length].tolist() for row, length in zip(rows, lengths, strict=True)] == [[10, 11], [0, 1, 2, 3], [4]]
    rows, lengths = step_rows(starts, counts, SequenceSpec(steps=3))
    assert rows.tolist() == [[10, 10, 11], [0, 1, 3], [4, 4, 4]]
    assert lengths.tolist() == [3, 3, 3]
