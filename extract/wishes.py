"""What ``extract``'s flags ask of one store, or of two that are filled in one pass over the videos. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from extract.presets import preset
from extract.spec import FeatureSpec
from store.errors import SpecError
from store.options import merge, read_settings


@dataclass(frozen=True)
class Wish:
    """What is asked of one store: a preset, what overrides it, a weights file (or ``published``, ``random:SEED``), and a name."""

    preset: str | None
    overrides: Mapping[str, Any]
    weights: str | None
    name: str | None = None


@dataclass(frozen=True)
class Asked:
    """The flags that belong to one stream."""

    preset: str | None = None
    config: Path | None = None
    weights: str | None = None
    name: str | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Those of the file, if there is one."""
        return read_settings(self.config, FeatureSpec) if self.config else {}

    def has_flow(self) -> bool:
        """Whether preset and file make a stream of flow."""
        settings = merge(preset(self.preset) if self.preset else {}, self.settings)
        return bool(settings.get("flow", {}).get("method"))


def wishes(first: Asked, second: Asked, flags: Mapping[str, Any]) -> list[Wish]:
    """One wish, or two where anything says what the second stream is; flags of settings go for both, those of flow where there is flow.

    Raises ``SpecError`` for a second stream that nothing describes, and for flow flags that would belong to neither.
    """
    if not second.preset and not second.config:
        if second.weights or second.name:
            flag = "--and-weights" if second.weights else "--and-name"
            raise SpecError(f"{flag} is given but no second stream; say what it is with --and-preset or --and-config")
        return [Wish(first.preset, merge(first.settings, flags), first.weights, first.name)]
    rest = {name: value for name, value in flags.items() if name != "flow"}
    asked = [first, second]
    if "flow" in flags and not any(each.has_flow() for each in asked):
        raise SpecError("--flow.* flags are given but neither stream has flow; give a preset that has, or flow.method in --and-config")
    return [
        Wish(each.preset, merge(each.settings, flags if each.has_flow() else rest), each.weights or first.weights, each.name)
        for each in asked
    ]
