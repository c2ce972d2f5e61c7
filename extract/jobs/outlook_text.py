"""What a submission will take, in words. Imports no torch."""

from typing import TYPE_CHECKING

from extract.commands import megabytes
from store.progress import duration

if TYPE_CHECKING:
    from extract.jobs.planning import Outlook

SHOWN = 20  # unreadable videos
THOUSAND = 1000


def outlook_text(coming: "Outlook", such: int | None = None) -> str:
    """``such``: a number of videos like these, to say their cost, too."""
    queued = f", {coming.queued} in the queue already" if coming.queued else ""
    lines = [
        *coming.stores,
        f"{coming.outstanding} outstanding, {coming.done} done, {coming.failed} failed before{queued}",
        f"{coming.clips} clips from {coming.frames} frames" + ("" if coming.bytes is None else f", {megabytes(coming.bytes)} of features"),
        f"{coming.parts} parts; the largest is {coming.imbalance:.2f} times the mean",
        *_time(coming),
    ]
    if coming.cost is not None:
        lines.append(coming.cost.of(THOUSAND).line())
        lines += [coming.cost.of(number).line(coming.at_once) for number in (such,) if number]
    shown = list(coming.unreadable.items())
    lines += [f"unreadable {video}: {reason}" for video, reason in shown[:SHOWN]]
    lines += [f"... and {len(shown) - SHOWN} more" for _ in shown[SHOWN : SHOWN + 1]]
    return "\n".join(lines)


def _time(coming: "Outlook") -> list[str]:
    if not coming.parts:
        return []
    if coming.hours is None or coming.longest_hours is None or coming.wall_hours is None:
        return ["no hours: give --rate CLIPS_PER_SECOND, as the summary of `extract` on such a machine prints it, or --time-here"]
    how = "timed on this machine" if coming.measured else "as given"
    return [
        f"about {coming.hours:.3g} hours of one task or GPU in all ({coming.rate:.2f} clips/s, {how}; the tasks' starts counted); "
        f"the longest part {duration(3600 * coming.longest_hours)}",
        f"about {duration(3600 * coming.wall_hours)} with {coming.at_once} tasks at once",
    ]
