"""What so many videos cost, from what some of them were seen to be: arithmetic on a rate, nothing more."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass

from store.progress import duration


@dataclass(frozen=True)
class Cost:
    """Of ``videos`` videos. ``hours`` are those of one task (GPU hours where a task has a GPU), its start not counted.

    ``hours`` is None where no rate is known, ``bytes`` of features where no video was timed.
    """

    videos: int
    clips: float
    hours: float | None
    bytes: float | None

    def of(self, videos: int) -> "Cost":
        """The same for another number of videos like these."""
        factor = videos / self.videos
        hours, size = (None if each is None else each * factor for each in (self.hours, self.bytes))
        return Cost(videos, self.clips * factor, hours, size)

    def line(self, at_once: int = 0) -> str:
        """In words; with ``at_once`` tasks of equal work, their time too."""
        words = f"{self.videos:,} such videos: {self.clips:,.0f} clips"
        words += "" if self.hours is None else f", {self.hours:.3g} hours of one task"
        words += "" if self.bytes is None else f", {self.bytes / 1e9:.3g} GB of features"
        return words + (f"; {duration(3600 * self.hours / at_once)} with {at_once} at once" if at_once and self.hours is not None else "")


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """Seconds until the last part is done, where ``at_once`` tasks take the parts in their order."""
    free = [0.0] * max(1, min(at_once, len(seconds)))
    for each in seconds:
        heapq.heapreplace(free, free[0] + each)
    return max(free)
