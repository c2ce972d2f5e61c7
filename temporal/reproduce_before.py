"""What an earlier reproduction left under the same name; see ``sweep_before`` for the same of sweeps."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.errors import SpecMismatchError
from temporal.sweep_before import list_facts, read_before

if TYPE_CHECKING:
    from store.videos import VideoList
    from temporal.reproduce import Reproduction

JSON = "results.json"


def check_same_lists(path: Path, lists: "Mapping[str, VideoList]") -> None:
    """SpecMismatchError where the results in ``path`` are of other lists; further splits, or fewer, are the same work.

    Results without any figure have nothing to protect.
    """
    data = read_before(path, JSON)
    lines, before = _lines(data), data.get("lists")
    if lines and not any(line.get("top1") for _, _, line in lines):
        return
    for name, videos in lists.items():
        held, now = before.get(name) if isinstance(before, dict) else None, list_facts(videos)
        if isinstance(held, dict) and held.get("digest") != now["digest"]:
            raise SpecMismatchError(
                f"{path} holds results of another list ({name}: {held.get('videos')} videos of {held.get('classes')} classes, now "
                f"{now['videos']} of {now['classes']}); choose another --name, or remove that folder. Nothing was trained, and nothing "
                "there was changed"
            )


def lost_lines(path: Path, done: "Reproduction") -> int:
    """How many lines fail now that the results in ``path`` have figures of: these results are then to be kept."""
    measured = {(where, names) for where, names, line in _lines(read_before(path, JSON)) if line.get("top1")}
    failed = {(table.where, tuple(each.line.names)) for table, lines in done.tables for each in lines if each.failed}
    return len(measured & failed)


def _lines(data: Mapping[str, Any]) -> list[tuple[str, tuple[str, ...], Mapping[str, Any]]]:
    """Where each line stands, its names, and what is told of it; nothing of a file that is not as it was written."""
    try:
        return [
            (str(table["where"]), tuple(list(map(str, line.values()))[: list(line).index("published")]), line)
            for table in data["tables"]
            for line in table["lines"]
        ]
    except (KeyError, TypeError, ValueError, AttributeError):
        return []
