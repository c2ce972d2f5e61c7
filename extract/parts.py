"""Which videos of a list are one job's: a part named by the user, by a batch system's environment, or by a plan. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from extract.jobs.plan import Plan, chosen, load
from store.errors import SpecError
from store.videos import VideoList

WHOLE = "all"


@dataclass(frozen=True)
class Part:
    """One job's videos, the ``name`` of its shards, and, for the user, where it came ``origin`` from ("" where the user said it)."""

    name: str
    videos: VideoList
    origin: str = ""


def choose_part(
    videos: VideoList,
    part: str | None = None,
    plan: Path | None = None,
    share: str | None = None,
    environment: Mapping[str, str] | None = None,
) -> Part:
    """Cut one part from a list.

    ``part``: ``I/N``, every N-th video from the I-th on (counted from 1), or with ``plan`` the I-th part of that plan of N; ``all``
    is the whole list. Without it, a task of a Slurm job array takes the part that its place in the array says (``environment``:
    SLURM_ARRAY_TASK_ID and its like). ``share`` K/D is every D-th video of the part: one of D processes that share it.
    """
    cut = load(plan) if plan is not None else None
    said, origin = (part, "") if part else slurm_part(environment or {})
    whole = said is None or said == WHOLE
    index, count = (1, 1) if whole else parse_part(str(said))
    name = "main" if whole else f"{index}of{count}"
    if cut is None:
        mine = videos if whole else videos.part(index, count)
    else:
        mine = _planned(videos, cut, plan, None if whole else (index, count))
    if share is not None:
        k, of = parse_part(share, "share")
        name, mine = f"{name}-{k}of{of}", mine.part(k, of)
    return Part(name, mine, origin)


def parse_part(text: str, what: str = "part") -> tuple[int, int]:
    """``I/N`` as two numbers with 1 <= I <= N; ``SpecError`` for anything else."""
    index, slash, count = text.partition("/")
    if not (slash and index.isdecimal() and count.isdecimal() and 1 <= int(index) <= int(count)):
        raise SpecError(f"{what} is {text!r}; write I/N with 1 <= I <= N, for example 1/4")
    return int(index), int(count)


def slurm_part(environment: Mapping[str, str]) -> tuple[str | None, str]:
    """The part that a task's place in its Slurm job array says, and what to tell the user; (None, "") outside of an array.

    The place is counted within the array's own numbers, so ``--array 0-7``, ``1-8`` and ``10-80:10`` are all parts 1/8 to 8/8.
    """
    names = ("SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_STEP", "SLURM_ARRAY_TASK_COUNT")
    texts = [environment.get(name, "") for name in names]
    if not texts[0]:
        return None, ""
    texts[3] = texts[3] or "1"
    if not all(text.isdecimal() for text in texts[:4]):
        raise SpecError(f"SLURM_ARRAY_TASK_ID is {texts[0]!r}, with MIN, MAX, STEP {texts[1:4]}; give --part I/N, or --part all")
    task, first, last, step = (int(text) for text in texts[:4])
    count = (last - first) // max(step, 1) + 1
    if texts[4] and texts[4] != str(count):  # --array 1,5,7 of an array that was submitted again in part
        raise SpecError(
            f"this job array has {texts[4]} tasks numbered from {first} to {last}, so the place of task {task} is not known; "
            "give --part I/N (or --part all)"
        )
    part = f"{(task - first) // max(step, 1) + 1}/{count}"
    return part, f"part {part}, as task {task} of a Slurm job array ({first} to {last}); --part all would take the whole list"


def _planned(videos: VideoList, plan: Plan, path: Path | None, place: tuple[int, int] | None) -> VideoList:
    if place is None:
        return videos.subset([video_id for part in plan.parts for video_id in part])
    if place[1] != len(plan.parts):
        raise SpecError(f"part {place[0]}/{place[1]} was asked for, but {path} has {len(plan.parts)} parts")
    return chosen(plan, videos, place[0])
