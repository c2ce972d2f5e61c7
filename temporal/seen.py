"""Which videos a run has seen: learned from, chosen its epoch by, or neither. Accuracies of these are told apart."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from store.errors import StoreError
from store.run_files import train_again
from temporal.run_dir import SCORES, VALIDATION, VIDEOS, Run

if TYPE_CHECKING:
    from store.scores import ScoreTable

Seen = Literal["unseen", "validation", "trained on", "unknown"]
IN_WORDS: dict[Seen, str] = {
    "unseen": "videos whose ids are not among those that the run was trained on",
    "validation": "videos of its validation part, which chose its epoch",
    "trained on": "videos that the run was trained on: no measure of how it does on new ones",
    "unknown": "videos of which the run does not tell whether it was trained on them",
}


def seen(run: Run, ids: Sequence[str]) -> dict[str, Seen]:
    """What each video was to the run; a run of a version that did not record it knows its validation and test videos by their scores."""
    known: Mapping[str, Seen]
    if run.has(VIDEOS):
        trained, chosen = _recorded(run)
        known = {**dict.fromkeys(chosen, "validation"), **dict.fromkeys(trained, "trained on")}
        return {id_: known.get(id_, "unseen") for id_ in ids}
    scored: dict[str, Seen] = {}
    if run.has(VALIDATION):
        scored |= dict.fromkeys(run.validation_scores().ids, "trained on" if run.spec.train.refit else "validation")
    if run.has(SCORES):
        scored |= dict.fromkeys(run.scores().ids, "unseen")
    return {id_: scored.get(id_, "unknown") for id_ in ids}


def accuracies(table: "ScoreTable", of: Mapping[str, Seen]) -> dict[Seen, tuple[float | None, int]]:
    """Top-1 as a share (None without labels) and the number of videos, of each kind that occurs."""
    from temporal.task import top1

    found: dict[Seen, tuple[float | None, int]] = {}
    for kind in IN_WORDS:
        if ids := [id_ for id_ in table.ids if of[id_] == kind]:
            found[kind] = top1(table.rows(ids)), len(ids)
    return found


def _recorded(run: Run) -> tuple[list[str], list[str]]:
    file = run.path / VIDEOS
    try:
        data = json.loads(run.read(VIDEOS))
        return list(map(str, data["trained_on"])), list(map(str, data["validation"]))
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} is damaged ({error!r}); {train_again(run.path)}") from None
