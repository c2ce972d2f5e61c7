"""Where the time of a job goes."""

import time
from collections.abc import Iterator
from contextlib import contextmanager


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started

    @property
    def total(self) -> float:
        """Seconds since the watch was made."""
        return time.perf_counter() - self._started

    def shares(self) -> str:
        """The stages in words, largest first: ``network 93 %, decode 5 %``."""
        total = max(self.total, 1e-9)
        spent = sorted(self.seconds.items(), key=lambda item: -item[1])
        return ", ".join(f"{name} {100 * seconds / total:.0f} %" for name, seconds in spent if seconds >= 0.01 * total)
