"""A plan: the outstanding videos of a list in parts of about equal work, as one JSON file that every task of an array reads."""

import heapq
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.digest import digest
from store.errors import SpecError
from store.files import write_text
from store.videos import VideoList

FORMAT = 2  # 1 knew one store, and no arguments that a retry does not repeat
MOST_PARTS = 10_000  # of one array; Slurm's own MaxArraySize is 1001 unless the site raised it
SUFFIX = ".plan.json"


def cut(costs: Mapping[str, float], parts: int) -> list[list[str]]:
    """Ids in ``parts`` lists of about equal cost: longest first, each to the part that has the least so far (LPT).

    The largest part costs at most 4/3 of the best possible cut's (Graham 1969). Within a part the order is that of ``costs``, so
    that neighbours on the disk stay together. There are fewer parts where there are fewer videos.
    """
    if not 1 <= parts <= MOST_PARTS:
        raise SpecError(f"parts is {parts}; it must be from 1 to {MOST_PARTS}")
    order = {key: place for place, key in enumerate(costs)}
    heap = [(0.0, number) for number in range(min(parts, len(costs)))]
    found: list[list[str]] = [[] for _ in heap]
    for key in sorted(costs, key=lambda key: (-costs[key], order[key])):
        total, number = heapq.heappop(heap)
        found[number].append(key)
        heapq.heappush(heap, (total + costs[key], number))
    return [sorted(part, key=order.__getitem__) for part in found]


@dataclass(frozen=True)
class Plan:
    """What one submission is to do.

    ``command`` are the arguments of ``actioncache`` that make a task, without its part; ``once`` more of them, which a retry does not
    repeat. ``parts`` are the ids of each part (part I of N is ``parts[I - 1]``); ``seconds`` what each is expected to take, None where the
    rate is not known; ``costs`` the same in work units.
    """

    stores: tuple[str, ...]  # folders: one, or two that are filled in one pass; the first holds the plan's logs
    videos: str  # digest of the list's ids
    command: tuple[str, ...]
    parts: tuple[tuple[str, ...], ...]
    costs: tuple[float, ...]
    seconds: tuple[float, ...] | None = None
    folder: str = ""  # that the command's relative paths are relative to
    slurm: Mapping[str, Any] | None = None  # how it was submitted
    once: tuple[str, ...] = ()
    format: int = FORMAT

    @property
    def store(self) -> str:
        """The store by whose folder and name the submission goes."""
        return self.stores[0]

    def ids(self, index: int) -> tuple[str, ...]:
        """The videos of part ``index``, counted from 1."""
        if not 1 <= index <= len(self.parts):
            raise SpecError(f"part {index} of a plan of {len(self.parts)}: parts are counted from 1 to {len(self.parts)}")
        return self.parts[index - 1]

    def save(self, path: Path) -> None:
        """Write it as JSON, whole or not at all."""
        path.parent.mkdir(parents=True, exist_ok=True)
        write_text(path, json.dumps(vars(self), ensure_ascii=False) + "\n")


def load(path: Path) -> Plan:
    """The plan that ``save`` wrote; ``SpecError`` for anything else."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))
        if data["format"] not in (1, FORMAT):
            raise SpecError(f"{path} has format {data['format']}; this version reads formats 1 and {FORMAT}; make it anew with `jobs plan`")
        if data["format"] == 1 and "stores" not in data:
            data = {**data, "stores": [data["store"]], "once": []}
        seconds = data["seconds"]
        return Plan(
            _texts(data["stores"]),
            str(data["videos"]),
            _texts(data["command"]),
            tuple(_texts(part) for part in data["parts"]),
            tuple(map(float, data["costs"])),
            None if seconds is None else tuple(map(float, seconds)),
            str(data["folder"]),
            data["slurm"],
            _texts(data["once"]),
        )
    except OSError as error:
        raise SpecError(f"plan {path} cannot be read: {error.strerror or error}") from None
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise SpecError(f"{path} is no plan of `actioncache jobs plan` ({type(error).__name__}: {error})") from None


def _texts(items: Any) -> tuple[str, ...]:
    if not isinstance(items, list):
        raise TypeError(f"a list was expected, not {items!r:.60}")
    return tuple(map(str, items))


def list_digest(videos: VideoList) -> str:
    """What a plan remembers of the list it was made from: the ids, in order."""
    return digest(videos.ids)


def chosen(plan: Plan, videos: VideoList, index: int) -> VideoList:
    """The videos of one part; ``ListError`` names ids that the list has no more. Other changes of the list do no harm."""
    return videos.subset(plan.ids(index))


def imbalance(costs: Sequence[float]) -> float:
    """Largest cost of a part as a multiple of the mean."""
    total = sum(costs)
    return max(costs) * len(costs) / total if total else 1.0
