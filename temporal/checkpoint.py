"""The state of a training between two batches, as one safetensors file that exists only when complete; nothing in it is ever run."""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from store.files import write_bytes

if TYPE_CHECKING:
    from torch import Tensor

    from temporal.projection import Projection

FORMAT = "actioncache-checkpoint-1"
FACTS = "facts"  # the key of the JSON text in the file's header


@dataclass(frozen=True)
class Checkpoint:
    """``tensors`` by name, and ``facts`` in JSON's types, from which a training goes on as if it had never stopped."""

    tensors: "dict[str, Tensor]" = field(default_factory=dict)
    facts: dict[str, Any] = field(default_factory=dict)

    def part(self, prefix: str) -> "dict[str, Tensor]":
        """The tensors called ``prefix.<key>``, by key; in memory of their own, laid out as torch lays out new ones."""
        start = f"{prefix}."
        return {name.removeprefix(start): tensor.clone() for name, tensor in self.tensors.items() if name.startswith(start)}


def write_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write it whole or not at all."""
    from safetensors.torch import save

    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in checkpoint.tensors.items()}
    write_bytes(path, save(tensors, {"format": FORMAT, FACTS: json.dumps(checkpoint.facts)}))


def read_checkpoint(path: Path) -> Checkpoint | None:
    """What was written there; none where there is nothing, or nothing that can be read: the training then starts afresh."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(str(path), "pt") as file:
            header = file.metadata() or {}
            if header.get("format") != FORMAT:
                return None
            return Checkpoint({name: file.get_tensor(name) for name in file.keys()}, json.loads(header[FACTS]))  # noqa: SIM118
    except (OSError, SafetensorError, ValueError, KeyError):
        return None


class Keeper:
    """What a training tells of itself while it runs, and asks when it starts. This one keeps nothing; ``workplace.Workplace`` does."""

    def load(self, phase: str) -> Checkpoint | None:
        """Where the training ``phase`` ("fit", "refit") was left."""
        return None

    def due(self) -> bool:
        """Whether it is time to save."""
        return False

    def save(self, phase: str, checkpoint: Checkpoint) -> None:
        """Keep this state; raises ``Interrupted`` afterwards where the user wants the training to stop."""

    def record(self, history: list[dict[str, Any]]) -> None:
        """All epochs of all phases so far, the last of them just done."""

    def projection(self, phase: str) -> "Projection | None":
        """The projection that was fitted for ``phase`` before."""
        return None

    def save_projection(self, phase: str, projection: "Projection") -> None:
        """Keep a projection, whose fitting may have taken long."""
