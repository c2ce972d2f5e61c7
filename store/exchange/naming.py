"""Names: which arrays belong to one video, which video of a list a file is, and which file a video may become. Pure text, no disk."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath

from store.errors import ListError, SpecError, StoreError
from store.exchange.layout import Item
from store.exchange.spec import COMPANIONS
from store.list_folders import VIDEO_SUFFIXES
from store.video_list import VideoList

MATCHES = ("path", "stem")
_MAX_BYTES = 200  # of one component of an exported name: suffixes and the name of a file being written must fit into 255
_SHOWN = 5

Grouped = dict[str, dict[str, str]]


def group(names: Sequence[str], keys: Sequence[str], place: str, level: str) -> tuple[Grouped, list[str]]:
    """Bring the names of arrays together by video: {id: {level or companion: name}}, and the names that are of no key.

    ``place`` is one of ``ImportSpec.place`` but "auto". A video without any of the keys (only companions) is no video.
    """
    if place == "none":
        return {name: {level: name} for name in names}, []
    known = [*keys, *COMPANIONS]
    if place == "suffix":
        check_distinct(known)
    found: Grouped = {}
    strays = []
    for name in names:
        video, key = _split(name, known, place)
        if video:
            found.setdefault(video, {})[key] = name
        else:
            strays.append(name)
    for video in [video for video, parts in found.items() if not set(parts) & set(keys)]:
        strays += found.pop(video).values()
    return found, strays


def _split(name: str, keys: Sequence[str], place: str) -> tuple[str, str]:
    """(id, key) of one name; the id is empty where no key fits."""
    for key in keys:
        if place == "suffix" and name.endswith(f"_{key}"):
            video = name[: -len(key) - 1]
            return ("", "") if video.endswith("/") else (video, key)
        if place == "folder" and name.startswith(f"{key}/"):
            return name[len(key) + 1 :], key
        if place == "inside" and name.endswith(f"/{key}"):
            return name[: -len(key) - 1], key
    return "", ""


def check_distinct(keys: Sequence[str]) -> None:
    """Raise ``SpecError`` for keys of which one is the end of another, behind an underscore."""
    for one in keys:
        for other in keys:
            if one.endswith(f"_{other}"):
                raise SpecError(f"keys {one!r} and {other!r} cannot be told apart at the end of a name; take them one at a time")


def check_one_each(names: Sequence[str], place: str) -> None:
    """Raise ``SpecError`` where every array is to be one video, but the names say that several belong together."""
    if keys := _suffix_keys(names):
        raise SpecError(
            f"some names end as arrays beside features do (_{', _'.join(COMPANIONS)}), so several arrays belong to one video: name those "
            f"with features, e.g. --keys {','.join(keys)}; if every array is one video, say --place none"
        )
    if place == "inside" and (keys := _inside_keys(names)):
        raise SpecError(
            f"every group holds the same arrays: if a group is one video, name those with features, e.g. --keys {','.join(keys)}; "
            "if every array is one video, say --place none"
        )


def _suffix_keys(names: Sequence[str]) -> list[str]:
    """Ends of names beside which one of ``COMPANIONS`` stands: ["flow", "rgb"] for v_rgb, v_flow, v_fps."""
    ends = tuple(f"_{name}" for name in COMPANIONS)
    videos = {name.removesuffix(end) for name in names for end in ends if name.endswith(end)}
    keys = set()
    for name in names:
        cuts = [at for at, letter in enumerate(name) if letter == "_" and name[:at] in videos]
        keys |= {name[cuts[-1] + 1 :]} if cuts else set()
    return sorted(keys - set(COMPANIONS))[:_SHOWN]


def _inside_keys(names: Sequence[str]) -> list[str]:
    inside: dict[str, set[str]] = {}
    for name in names:
        folder, slash, last = name.rpartition("/")
        inside.setdefault(folder if slash else "", set()).add(last)
    sets = list(inside.values())
    alike = len(sets) > 1 and "" not in inside and all(one == sets[0] for one in sets)
    alike = alike or any(one & {"frames", "times"} for one in sets)
    return sorted(set.union(*sets) - set(COMPANIONS))[:_SHOWN] if alike else []


def match(items: Sequence[Item], videos: VideoList, rule: str) -> tuple[list[Item], list[str], list[str]]:
    """Give items the ids of the list: (items under the list's ids, in its order; ids without an item; ids of items the list has not).

    Rule "path": the item's id is the list's, video suffixes apart. Rule "stem": its last part is the file name of the list's path,
    video suffixes apart. Where two stand for one, ``ListError`` names both; nothing is guessed.
    """
    listed: dict[str, list[str]] = {}
    for video in videos:
        listed.setdefault(without_suffix(video.id if rule == "path" else video.path.name), []).append(video.id)
    found: dict[str, list[Item]] = {}
    for item in items:
        found.setdefault(without_suffix(item.id if rule == "path" else PurePosixPath(item.id).name), []).append(item)
    problems = []
    for key, same in found.items():
        wanted = listed.get(key, [])
        if wanted and len(same) * len(wanted) > 1:
            problems.append(f"{' and '.join(item.id for item in same)} can be {' and '.join(wanted)}")
    if problems:
        raise ListError(
            f"{len(problems)} names fit more than one video by --match {rule}:\n  "
            + "\n  ".join(problems[:_SHOWN])
            + (f"\n  ... and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
            + "\nimport a part of the files, or a part of the list, or match by another rule"
        )
    chosen = {listed[key][0]: replace(same[0], id=listed[key][0]) for key, same in found.items() if key in listed}
    missing = [video_id for video_id in videos.ids if video_id not in chosen]
    extra = [item.id for key, same in found.items() if key not in listed for item in same]
    return [chosen[video_id] for video_id in videos.ids if video_id in chosen], missing, extra


def without_suffix(name: str) -> str:
    """A name without the suffix of a video file, where it has one."""
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and f".{suffix.lower()}" in VIDEO_SUFFIXES and stem and not stem.endswith("/") else name


def exported_names(ids: Sequence[str], strip_suffix: bool) -> tuple[str, ...]:
    """The name below the export's folder of every id; ids that cannot be a safe path, or share one, raise one ``StoreError``."""
    problems = [f"{video_id[:80]!r} {text}" for video_id in ids if (text := path_problem(video_id))]
    if problems:
        raise StoreError(
            f"{len(problems)} of {len(ids)} ids cannot be names of files, so nothing was written: {'; '.join(problems[:_SHOWN])}"
            + (f"; and {len(problems) - _SHOWN} more" if len(problems) > _SHOWN else "")
        )
    names = tuple(without_suffix(video_id) for video_id in ids) if strip_suffix else tuple(ids)
    first: dict[str, str] = {}
    for video_id, name in zip(ids, names, strict=True):
        if (other := first.setdefault(name, video_id)) != video_id:
            raise StoreError(f"{other!r} and {video_id!r} would both be {name!r}, so nothing was written; leave --strip-suffix away")
    return names


def path_problem(video_id: str) -> str:
    """Why an id is no path below a folder ("" if it is one)."""
    for part in video_id.split("/"):
        if part in ("", ".", ".."):
            return "is absolute, or has an empty part, '.' or '..'"
        if part.startswith("."):
            return "has a part that begins with a dot (a hidden file)"
        if "\\" in part or not part.isprintable():
            return "holds a backslash or a character that cannot be printed"
        if len(part.encode()) > _MAX_BYTES:
            return f"has a part of {len(part.encode())} bytes; {_MAX_BYTES} are possible"
    return ""


def check_targets(targets: Iterable[tuple[str, str]]) -> None:
    """Raise ``StoreError`` where two of (video, path) have one path, or one's path is a folder in another's."""
    owner: dict[str, str] = {}
    for video, path in targets:
        if path in owner:
            raise StoreError(f"{owner[path]!r} and {video!r} would both write {path}, so nothing was written; export them apart (--list)")
        owner[path] = video
    folders = {str(parent): path for path in owner for parent in PurePosixPath(path).parents}
    for folder, path in folders.items():
        if folder in owner:
            raise StoreError(
                f"{owner[folder]!r} would be the file {folder}, but {owner[path]!r} needs a folder of that name, so nothing was written; "
                "export them apart (--list)"
            )
