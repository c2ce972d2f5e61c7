"""Progress of long work on stderr: a live bar on a terminal, a line now and then in a job's log."""

import sys
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as RichProgress

LOG_EVERY_SECONDS = 15.0


class Progress:
    """Counts ``total`` things called ``unit``; shows the rate, the time left, and a short note."""

    def __init__(self, title: str, total: int, unit: str = "videos", live: bool | None = None) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._skipped = 0
        self._started = self._logged = time.monotonic()
        self._note = ""
        self._bar: RichProgress | None = None
        if sys.stderr.isatty() if live is None else live:
            self._bar = RichProgress(BarColumn(24), TextColumn("{task.description}"), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task(self.line(), total=total)

    def __enter__(self) -> "Progress":
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()
        if self.total:
            print(self.line(), file=sys.stderr, flush=True)

    def advance(self, count: int = 1, note: str | None = None) -> None:
        """Count ``count`` more things done."""
        self.done += count
        self.note(note)

    def skip(self, count: int) -> None:
        """Count ``count`` more things that were done before, and took no time of this process."""
        self.done += count
        self._skipped += count

    def note(self, note: str | None = None) -> None:
        """Refresh the display, with another note."""
        self._note = self._note if note is None else note
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self.done, description=self.line())
        elif now - self._logged >= LOG_EVERY_SECONDS and self.done < self.total:  # the last line comes at the end
            self._logged = now
            print(self.line(), file=sys.stderr, flush=True)

    def line(self) -> str:
        """The current state in words, e.g. ``extract 12/60 videos  3.10 videos/s  15 s left  waits for: network``."""
        seconds = max(time.monotonic() - self._started, 1e-9)
        rate = (self.done - self._skipped) / seconds
        parts = [f"{self.title} {self.done}/{self.total} {self.unit}"]
        if self.done > self._skipped:
            parts.append(f"{rate:.2f} {self.unit}/s" if rate >= 0.1 else f"{rate * 60:.2f} {self.unit}/min")
            parts.append(f"{duration((self.total - self.done) / rate)} left" if self.done < self.total else f"in {duration(seconds)}")
        return "  ".join([*parts, self._note] if self._note else parts)


def duration(seconds: float) -> str:
    """Seconds as a person says them: ``42 s``, ``3 min 05 s``, ``2 h 10 min``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"
