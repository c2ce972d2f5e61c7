"""Which recorded failures still stand. One that came of what is around a video says nothing of the next run."""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from extract.spec import FLOW_FILES
from store.failures import Failure

MEMORY = "memory"  # stage of a worker that ran out of it


def stands(failure: Failure, path: Path, spec: Mapping[str, Any]) -> bool:
    """Whether a recorded failure of the video at ``path`` is not to be tried again; ``spec`` is the store's.

    It is, once the video's file has changed; where memory ran out; and where flow that another tool computed was the trouble, since
    ``--flow-root`` may have been another folder or unfinished, and looking again is quick.
    """
    flow = spec.get("flow")
    from_files = isinstance(flow, Mapping) and flow.get("method") == FLOW_FILES
    return failure.stage != MEMORY and not (from_files and failure.stage == "flow") and failure.is_current(path)


def retried_text(stages: Iterable[str]) -> str:
    """What the next run will do about failures of these stages, in words."""
    lines = ["a recorded failure is tried again once its video's file has changed, or with --retry-failed"]
    if not {"flow", MEMORY}.isdisjoint(stages):
        lines.append("failures of memory, and of flow that is read from files, are tried again by every run")
    return "\n".join(lines)
