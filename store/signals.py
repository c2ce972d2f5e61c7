"""Signals that ask long work to stop: what is complete is published first."""

import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click


@contextmanager
def stop_signals(ending: str = "publishing what is complete, then stopping") -> Iterator[Callable[[], bool]]:
    """Turn the first SIGINT, SIGTERM or SIGUSR1 into a request to stop; a second SIGINT (Ctrl-C) ends the program at once.

    Batch systems send their signals to a job's processes more than once, by several ways, so that the others never count twice: who
    cannot wait sends SIGKILL, as they do. ``ending`` tells the user what the first signal brings about.
    """
    received: list[int] = []
    told = sys.stderr  # as it is here: what runs inside may hide its own progress

    def receive(number: int, frame: object) -> None:
        if received and number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)
            signal.raise_signal(number)
        received.append(number)
        if len(received) > 1:
            return
        click.echo(f"{signal.Signals(number).name}: {ending}", file=told)

    numbers = [signal.SIGINT, signal.SIGTERM] + ([signal.SIGUSR1] if hasattr(signal, "SIGUSR1") else [])
    before = {number: signal.signal(number, receive) for number in numbers}
    try:
        yield lambda: bool(received)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
