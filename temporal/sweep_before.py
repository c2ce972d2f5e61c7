"""What an earlier sweep left under the same name: whether it is this one's, and whether this one may take its table's place."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.digest import digest
from store.errors import SpecMismatchError

if TYPE_CHECKING:
    from store.videos import VideoList
    from temporal.sweep import Row

JSON = "sweep.json"


def list_facts(videos: "VideoList") -> dict[str, Any]:
    """What a sweep's file says of its list: numbers for people, and the digest of ids, labels, splits and groups."""
    listed = [[video.id, video.label, video.split, video.group] for video in videos]
    return {"videos": len(videos), "classes": len(videos.classes), "digest": digest([listed, list(videos.classes)])}


def read_before(path: Path, name: str = JSON) -> dict[str, Any]:
    """What the file ``name`` of an earlier sweep or reproduction says; empty where there is none that can be read."""
    try:
        data = json.loads((path / name).read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return data if isinstance(data, dict) else {}


def check_same(path: Path, videos: dict[str, Any], stores: Sequence[str]) -> None:
    """SpecMismatchError where the sweep in ``path`` is of another list or of other features; its table and runs stay.

    More features than before, or fewer, are a larger or smaller grid. A sweep of versions that did not record these is taken for the same.
    One whose settings all failed has nothing to protect. ``stores``: of those that can be opened, see ``store_name``.
    """
    before = read_before(path)
    settings = before.get("settings")
    if isinstance(settings, list) and all(isinstance(row, dict) and row.get("failure") for row in settings):
        return
    problems = []
    listed = before.get("list")
    if isinstance(listed, dict) and listed.get("digest") != videos["digest"]:
        was, now = (f"{each.get('videos')} videos of {each.get('classes')} classes" for each in (listed, videos))
        problems.append(f"another list ({was}, now {now}{'' if was != now else ', but other ids, labels, splits or groups'})")
    held = before.get("stores")
    if isinstance(held, list) and held and not (set(held) <= set(stores) or set(stores) <= set(held)):
        was, now = (", ".join(str(each).partition(" ")[0] for each in names) for names in (held, stores))  # without the digests
        problems.append(f"other features ({was}, now {now})")
    if problems:
        raise SpecMismatchError(
            f"{path} holds a sweep of {' and '.join(problems)}; choose another --name, or remove that folder. Nothing was trained, and "
            "nothing there was changed"
        )


def lost_figures(path: Path, rows: "Sequence[Row]") -> str:
    """Why the table in ``path`` is to be kept, in words; empty where it may be replaced.

    It is kept where a setting fails now that it has figures of, or where it has figures and now there are none at all.
    """
    settings = read_before(path).get("settings")
    rows_before = [row for row in settings if isinstance(row, dict)] if isinstance(settings, list) else []
    good = {Path(str(row.get("run"))).name for row in rows_before if not row.get("failure")}
    failed = [row for row in rows if row.trained.failure]
    lost = [row for row in failed if row.path.name in good]
    if lost:
        return f"it has figures of {len(lost)} settings that fail now"
    return f"it has figures, and now all {len(rows)} settings fail" if good and len(failed) == len(rows) else ""
