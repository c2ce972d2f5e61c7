"""Heads too large for any machine are refused in words, without being allocated."""

import pytest

from store.errors import TrainingError
from temporal.size import check_size
from temporal.spec import HeadSpec


def test_what_fits_is_let_through():
    check_size(HeadSpec(name="gru", hidden=128), 1024, 101)


@pytest.mark.parametrize("head", ["gru", "res_lstm", "sru"])
def test_absurd_sizes_are_refused_with_the_numbers(head):
    with pytest.raises(TrainingError, match=rf"head {head} with hidden 100000000 and layers 1, .*; choose a smaller --head.hidden"):
        check_size(HeadSpec(name=head, hidden=100_000_000), 1024, 101)
    with pytest.raises(TrainingError, match=r"has \d.*e\+\d+ weights; training them takes [\d,]+ GB, and this machine has [\d,]+"):
        check_size(HeadSpec(name=head, hidden=1_000_000), 1024, 101)
