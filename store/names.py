"""Spellings of ids and class names that may differ between tools, and the rules by which two of them may count as one.

No rule applies unless it is asked for, and what it changed is recorded. Two names of one table that a rule makes equal are an error.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath

from store.digest import Checked, setting
from store.errors import AlignmentError, SpecError
from store.list_folders import VIDEO_SUFFIXES

_SHOWN = 5


def _suffix(name: str) -> str:
    stem, dot, suffix = name.rpartition(".")
    return stem if dot and stem and f".{suffix.lower()}" in VIDEO_SUFFIXES else name


RULES = {
    "case": lambda name: name.casefold(),
    "suffix": _suffix,
    "folder": lambda name: PurePosixPath(name).name,
    "prefix": lambda name: name.removeprefix("v_"),
    "spaces": lambda name: "".join(letter for letter in name if letter not in " _-"),
}
WHAT = {
    "case": "upper and lower case",
    "suffix": "suffixes of video files",
    "folder": "folders before the name",
    "prefix": "a leading v_",
    "spaces": "spaces, underscores and hyphens",
}
# folders and suffixes go first, however the rules are listed: what is left of a name does not depend on their order
_ORDER = ("folder", "suffix", "prefix", "spaces", "case")


@dataclass(frozen=True)
class NameRules(Checked):
    """What counts for nothing when the ids, or the class names, of two tables are compared."""

    ids: tuple[str, ...] = setting((), "what may differ in ids: case, suffix, folder, prefix (a leading v_), spaces")
    classes: tuple[str, ...] = setting((), "what may differ in class names: case, spaces")

    def check(self) -> None:
        for field, rules in (("ids", self.ids), ("classes", self.classes)):
            if unknown := [rule for rule in rules if rule not in RULES]:
                raise SpecError(f"{field} may not differ in {', '.join(unknown)}; rules: {', '.join(RULES)}")

    def of(self, field: str) -> tuple[str, ...]:
        """The rules for "ids" or "classes"."""
        return self.ids if field == "ids" else self.classes


def key(name: str, rules: Sequence[str]) -> str:
    """What is left of a name under rules; two names with one key are one."""
    for rule in _ORDER:
        if rule in rules:
            name = RULES[rule](name)
    return name


def keys(names: Iterable[str], rules: Sequence[str], what: str) -> dict[str, str]:
    """{key: name}; two names with one key raise ``AlignmentError`` naming both."""
    found: dict[str, str] = {}
    clashes = []
    for name in names:
        if (other := found.setdefault(key(name, rules), name)) != name:
            clashes.append(f"{other!r} and {name!r}")
    if clashes:
        more = f", and {len(clashes) - _SHOWN} more" if len(clashes) > _SHOWN else ""
        raise AlignmentError(
            f"{what}: ignoring {words(rules)}, {'; '.join(clashes[:_SHOWN])}{more} would be one; use fewer rules, or rename one of them"
        )
    return found


def translate(names: Sequence[str], reference: Iterable[str], rules: Sequence[str], what: str) -> dict[str, str]:
    """{name: the reference's spelling} for the names that only ``rules`` make equal to one of the reference; equal names are left out."""
    if not rules:
        return {}
    known = keys(reference, rules, f"{what} to compare with")
    own = keys(names, rules, what)
    return {name: known[text] for text, name in own.items() if text in known and known[text] != name}


def renamed(names: Sequence[str], translation: Mapping[str, str]) -> tuple[str, ...]:
    """The names in their new spelling."""
    return tuple(translation.get(name, name) for name in names)


def words(rules: Sequence[str]) -> str:
    """The rules in words: "upper and lower case, suffixes of video files"."""
    return ", ".join(WHAT[rule] for rule in _ORDER if rule in rules)


def helpful(left: Iterable[str], right: Iterable[str]) -> str:
    """The shortest rules that would make two sets of names equal, e.g. "folder,suffix"; "" if none does."""
    left, right = set(left), set(right)
    choices = [("case",), ("suffix",), ("folder",), ("spaces",), ("case", "spaces"), ("folder", "suffix"), ("folder", "suffix", "prefix")]
    for rules in [*choices, ("folder", "suffix", "prefix", "case")]:
        if {key(name, rules) for name in left} == {key(name, rules) for name in right}:
            return ",".join(rules)
    return ""
