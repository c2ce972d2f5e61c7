"""The first signal asks to stop, and says what that brings about."""

import signal

import pytest

from store.signals import stop_signals


def test_the_first_signal_asks_to_stop_in_the_words_given(capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(signal.SIGTERM)
    with stop_signals("stopping; nothing is written") as stopped:
        assert not stopped()
        signal.raise_signal(signal.SIGTERM)
        assert stopped()
    assert capsys.readouterr().err == "SIGTERM: stopping; nothing is written\n"
    assert signal.getsignal(signal.SIGTERM) == before
