"""Whose turn is it? What one job does about the videos that other jobs are at, have done, or have died at. Imports no torch."""

import sys
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from extract.pool import Failed, Turn
from store.claims import Claim, Claims

if TYPE_CHECKING:
    from extract.engine import Extraction

STAGE = "job"  # of the failure of a video that killed whole jobs


class Turns:
    """Asked by the pool when a video's turn comes: ``now``, ``later`` (others are at it), or ``never`` (it has been seen to).

    A video that a job was killed at is a suspect: its neighbours, which may be without blame, were in work with it. So ``suspects`` are
    done at the end, one by one with nothing else in work. Who has been at the end of ``tries`` jobs is a failure.
    """

    def __init__(
        self, extractions: Sequence["Extraction"], claims: Sequence[Claims], tries: int, changed: Callable[[], None] = lambda: None
    ) -> None:
        """``claims``: one an extraction, or none at all. ``changed`` is called when a video has been seen to."""
        self._extractions, self._claims, self._tries, self._changed = extractions, claims, tries, changed
        self.suspects: list[str] = []
        self._alone = False
        self._told: set[str] = set()

    def next_suspects(self) -> list[str]:
        """Those to do now, each alone."""
        self._alone = True
        suspects, self.suspects = self.suspects, []
        return suspects

    def __call__(self, key: str) -> Turn:
        if not self._claims:
            return "now"
        mine: dict[int, Claim] = {}
        for place, extraction in enumerate(self._extractions):
            if key in extraction.left:
                claim = self._claims[place].take(key)
                self._tell(place, claim)
                if claim.state == "mine":
                    mine[place] = claim
                elif claim.state == "others":
                    self._give_back(key, mine)
                    return "later"
                else:
                    extraction.leave(key, (claim.failure.stage, claim.failure.reason) if claim.failure else None)
                    self._changed()
        return self._judge(key, mine) if mine else "never"

    def _judge(self, key: str, mine: dict[int, Claim]) -> Turn:
        deaths = max((claim.deaths for claim in mine.values()), key=len)
        if len(deaths) >= self._tries:
            reason = f"{len(deaths)} jobs were killed while at it, the last ({deaths[-1]}) with nothing else in work; out of memory?"
            for place in mine:
                self._extractions[place].handle(Failed(key, STAGE, reason))
            self._changed()
            return "never"
        if deaths and not self._alone:
            self._give_back(key, mine)
            self.suspects.append(key)
            return "never"
        return "now"

    def _give_back(self, key: str, mine: dict[int, Claim]) -> None:
        for place in mine:
            self._claims[place].give_back(key)

    def _tell(self, place: int, claim: Claim) -> None:
        """What a user wonders about when a job waits, or works beside another; once each."""
        note = ""
        if claim.holder:
            note = f"{claim.holder} has some of these videos; they are left to it, and waited for"
        elif trouble := self._claims[place].trouble:
            note = f"jobs cannot see one another here ({trouble}), so those that share a list may do a video twice; give each its --part"
        if note and note not in self._told:
            self._told.add(note)
            print(f"note: {note}", file=sys.stderr, flush=True)
