"""How every benchmark here measures and prints: medians of alternating runs in one process, one JSON line a figure."""

import json
import statistics
import time
from collections.abc import Callable

RUNS = 5


def alternate(*actions: Callable[[], object], runs: int = RUNS) -> list[float]:
    """Median seconds of each action; they take turns, so that a machine that slows down slows all of them. One unmeasured turn first."""
    seconds: list[list[float]] = [[] for _ in actions]
    for turn in range(runs + 1):
        for action, measured in zip(actions, seconds, strict=True):
            started = time.perf_counter()
            action()
            if turn:
                measured.append(time.perf_counter() - started)
    return [statistics.median(measured) for measured in seconds]


def report(figure: str, value: float, unit: str, against: str, bar: float | None = None, at_least: bool = True) -> None:
    """Print one figure; ``bar`` is what the project asks for, ``holds`` whether it is met."""
    holds = None if bar is None else (value >= bar if at_least else value <= bar)
    print(
        json.dumps({"figure": figure, "value": round(value, 4), "unit": unit, "against": against, "bar": bar, "holds": holds}), flush=True
    )
