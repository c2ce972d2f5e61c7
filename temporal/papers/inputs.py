"""What the user gives to reproduce a paper: stores by role, their levels by the paper's names, score tables, the list's size."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from store.errors import SpecError

if TYPE_CHECKING:
    from store.features import FeatureStore
    from store.layout import Level

QUICK_DIVISOR = 8  # hidden units and PCA in a quick reproduction


@dataclass(frozen=True)
class Facts:
    """``stores``: role -> stores; ``levels``: the paper's name of a level -> the store's; ``scores``: names of the tables given.

    ``clips``: role -> how many clips each training video has.
    """

    stores: Mapping[str, Sequence["FeatureStore"]]
    levels: Mapping[str, str]
    scores: Sequence[str]
    training_videos: int
    training_clips: int
    quick: bool = False
    clips: Mapping[str, Sequence[int]] = field(default_factory=dict)

    def find(self, role: str, level: str) -> "tuple[FeatureStore, Level] | str":
        """The first store of a role that has a level ("" is its only one), or in words what is missing."""
        if role not in self.stores:
            return f"needs features: --features {role}=STORE"
        wanted = self.levels.get(level or role, level)
        for store in self.stores[role]:
            for found in store.layout:
                if found.name == wanted or (not wanted and len(store.layout) == 1):
                    return store, found
        has = "; ".join(f"{store.path.name} has {', '.join(store.levels) or 'no features yet'}" for store in self.stores[role])
        if not wanted:
            return f"needs one level of the {role} features: --level {role}=LEVEL ({has})"
        return f"needs the level {wanted} of the {role} features ({has}); extract it, or say which to take: --level {level or role}=LEVEL"

    def width(self, role: str, level: str = "") -> int | None:
        """Feature width D, or channels of maps; None without such features."""
        found = self.find(role, level)
        return None if isinstance(found, str) else found[1].row_shape[0 if len(found[1].row_shape) == 3 else -1]

    def framed(self, role: str, level: str) -> bool:
        """Whether a clip is a sequence itself: features [clips, frames, D]."""
        found = self.find(role, level)
        return not isinstance(found, str) and len(found[1].row_shape) == 2

    def training_windows(self, role: str, window: int) -> int:
        """How many pieces of ``window`` clips, side by side, the training videos are cut into; a video is one where nothing is known."""
        if not self.clips.get(role):
            return self.training_videos
        return sum(max(clips // window, 1) for clips in self.clips[role] if clips)

    def units(self, published: int) -> int:
        """The paper's number of units, or an eighth of it when quick."""
        return max(8, published // QUICK_DIVISOR) if self.quick else published

    def pca_limit(self, role: str, level: str = "") -> int | None:
        """The largest PCA that these features allow: their width and, roughly (a part is held out), the number of training clips."""
        width = self.width(role, level)
        return None if width is None else min(width, int(0.6 * self.training_clips))


def choose_units(facts: Facts, role: str, published: int, choices: Sequence[int]) -> int:
    """The paper's number of PCA components, or the largest of ``choices`` (else of any) that these features allow."""
    limit, wanted = facts.pca_limit(role), facts.units(published)
    if limit is None or wanted <= limit:
        return wanted
    return max([units for units in map(facts.units, choices) if units <= limit], default=max(1, limit))


def parse_named(texts: Sequence[str], known: Sequence[str], flag: str, first: str = "") -> dict[str, list[str]]:
    """``NAME=VALUE`` texts by name; a text without a known name goes to ``first``. SpecError for a name that the paper has no use for."""
    found: dict[str, list[str]] = {}
    for text in texts:
        name, equals, value = text.partition("=")
        if not equals and first:
            name, value = first, text
        if name not in known or not value:
            raise SpecError(f"{flag} {text!r} is not NAME=VALUE with a name this paper knows: {', '.join(known)}")
        found.setdefault(name, []).append(value)
    return found
