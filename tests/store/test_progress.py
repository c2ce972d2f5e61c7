"""Progress in words."""

import pytest

from store.progress import Progress, duration


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0.4, "0 s"), (59.4, "59 s"), (60, "1 min 00 s"), (185, "3 min 05 s"), (3600, "1 h 00 min"), (7830, "2 h 10 min")],
)
def test_durations_in_words(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_a_log_ends_with_one_line_that_says_how_much_was_done(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("extract", 3, live=False) as progress:
        for _ in range(3):
            progress.advance(note="75 clips")
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("extract 3/3 videos")
    assert lines[0].endswith("75 clips")


def test_the_rate_and_the_time_left_are_told() -> None:
    progress = Progress("extract", 10, live=False)
    progress.advance(5)
    assert " left" in progress.line()
    assert "videos/s" in progress.line()


def test_nothing_to_do_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    with Progress("extract", 0, live=False):
        pass
    assert capsys.readouterr().err == ""
