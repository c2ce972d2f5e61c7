"""Settings of one head only: declared in the head's own file, read from there without importing it, since its network needs torch.

A file of ``temporal/heads`` registers its heads with ``@HEADS.register("name")`` above functions whose docstrings describe them: the
first line in words, a line ``Paper: ...`` where there is one. What it may declare besides, for all its heads, as literals:

    PARAMS = (Param("kernel", 3, "steps that a convolution sees", low=1, high=63),)   what --head.params takes
    READS = "maps"                       features [clips, C, H, W] instead of vectors [clips, width]
    KIND = "decision_values"             the kind of its scores; "scores" where it says nothing
    FITTED = "solver"                    its module's ``solve`` fits it; "gradient" where it says nothing
    WEIGHTS = True                       takes pretrained weights (--head-weights)
    LAYERS = {"name": 2}                 least number of layers, also the default, of those heads for which that is not 1
"""

import ast
import difflib
import functools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from store.errors import SpecError, UnknownNameError

Value = bool | int | float | str
FOLDER = Path(__file__).parent / "heads"
WORDS = {"true": True, "yes": True, "false": False, "no": False}


@dataclass(frozen=True)
class Param:
    """One setting; its type is that of its default. ``low`` and ``high`` are the smallest and largest number, ``choices`` all texts."""

    name: str
    default: Value
    help: str
    low: float = -math.inf
    high: float = math.inf
    choices: tuple[str, ...] = ()

    def parse(self, given: Value, head: str) -> Value:
        """Bring a value, or the text of one, to the default's type and check it; ``SpecError`` names the setting and what it may be."""
        value = self._typed(given)
        if value is None or not self._allowed(value):
            raise SpecError(f"head.params {self.name} of head {head} is {given!r}; it must be {self.range()}")
        return value

    def range(self) -> str:
        """What it may be, in words."""
        if self.choices:
            return " or ".join(self.choices)
        if isinstance(self.default, bool | str):
            return "text" if isinstance(self.default, str) else "true or false"
        bounds = [f"{word} {bound:g}" for word, bound in (("at least", self.low), ("at most", self.high)) if math.isfinite(bound)]
        return " ".join(["a whole number" if isinstance(self.default, int) else "a number", " and ".join(bounds)]).strip()

    def _typed(self, given: Value) -> Value | None:
        if isinstance(self.default, bool):
            return WORDS.get(str(given).lower())
        if isinstance(self.default, str):
            return given if isinstance(given, str) else None
        try:
            number = float(given) if not isinstance(given, bool) else math.nan
        except ValueError:
            return None
        if isinstance(self.default, float):
            return number if math.isfinite(number) else None
        return int(number) if number.is_integer() else None

    def _allowed(self, value: Value) -> bool:
        if isinstance(value, str):
            return not self.choices or value in self.choices
        return self.low <= value <= self.high


@dataclass(frozen=True)
class HeadInfo:
    """What a head's file declares of it. ``file`` is the module's name."""

    name: str
    file: str
    text: str
    paper: str
    params: tuple[Param, ...]
    reads: str
    kind: str
    fitted: str
    weights: bool
    layers: int

    def resolve(self, given: Mapping[str, Value]) -> dict[str, Value]:
        """Every setting of this head with the value given or its default; one ``SpecError`` names each that it does not have."""
        known = {param.name: param for param in self.params}
        if unknown := [self._unknown(name, known) for name in given if name not in known]:
            raise SpecError("\n".join(unknown))
        return {name: param.parse(given.get(name, param.default), self.name) for name, param in known.items()}

    def _unknown(self, name: str, known: Mapping[str, Param]) -> str:
        near = difflib.get_close_matches(name, known, n=1)
        has = f"its params are {', '.join(known)}" if known else "it has none"
        return f"head {self.name} has no head.params {name!r}; " + (f"did you mean {near[0]!r}?" if near else has)


def head_info(name: str) -> HeadInfo:
    """What is declared of head ``name``; ``UnknownNameError`` suggests the nearest names."""
    heads = declared_heads()
    if name not in heads:
        near = difflib.get_close_matches(name, heads, n=3)
        raise UnknownNameError(
            f"no head is called {name!r}; " + (f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(heads)}")
        )
    return heads[name]


@functools.cache
def declared_heads() -> dict[str, HeadInfo]:
    """All heads by name, sorted."""
    found = [info for path in sorted(FOLDER.glob("*.py")) for info in scan(path)]
    return {info.name: info for info in sorted(found, key=lambda info: info.name)}


def scan(path: Path) -> Iterator[HeadInfo]:
    """The heads that one file registers, from its text alone."""
    tree = ast.parse(path.read_text(encoding="utf-8"), str(path))
    declared: dict[str, Any] = {"PARAMS": (), "READS": "vectors", "KIND": "scores", "FITTED": "gradient", "WEIGHTS": False, "LAYERS": {}}
    declared |= {name: _literal(value) for name, value in _assignments(tree) if name in declared}
    for node in tree.body:
        for name in _registered(node):
            facts = [declared[each] for each in ("PARAMS", "READS", "KIND", "FITTED", "WEIGHTS")] + [declared["LAYERS"].get(name, 1)]
            text, paper = _described(ast.get_docstring(node) or "")  # type: ignore[arg-type]
            yield HeadInfo(name, path.stem, text, paper, *facts)


def _assignments(tree: ast.Module) -> Iterator[tuple[str, ast.expr]]:
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            yield node.targets[0].id, node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value is not None:
            yield node.target.id, node.value


def _registered(node: ast.stmt) -> Iterator[str]:
    """Names of ``@HEADS.register("name")`` above a function or class."""
    for call in getattr(node, "decorator_list", ()):
        if isinstance(call, ast.Call) and ast.unparse(call.func) == "HEADS.register":
            yield ast.literal_eval(call.args[0])


def _literal(node: ast.expr) -> Any:
    """A literal in which ``Param(...)`` may stand."""
    if isinstance(node, ast.Tuple):
        return tuple(_literal(item) for item in node.elts)
    if isinstance(node, ast.Call) and ast.unparse(node.func) == "Param":
        named = {word.arg: ast.literal_eval(word.value) for word in node.keywords if word.arg}
        return Param(*(ast.literal_eval(item) for item in node.args), **named)
    return ast.literal_eval(node)


def _described(docstring: str) -> tuple[str, str]:
    """First line, and what follows ``Paper:``."""
    lines = docstring.splitlines()
    paper = next((line.removeprefix("Paper:").strip() for line in lines if line.startswith("Paper:")), "")
    return (lines[0] if lines else ""), paper


def head_help() -> str:
    """Help of ``--head.name``."""
    return f"head, see `actioncache heads`: {', '.join(declared_heads())}"


def params_help() -> str:
    """Help of ``--head.params``."""
    each = [f"{info.name}: {', '.join(param.name for param in info.params)}" for info in declared_heads().values() if info.params]
    return f"settings of one head, see `actioncache heads` ({'; '.join(each)}); unset ones take its defaults" if each else "of one head"
