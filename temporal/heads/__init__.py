"""Heads: modules from a padded batch of sequences to class scores, one file a family; ``temporal/params.py`` says what a file declares."""

from collections.abc import Callable
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from store.errors import TrainingError
from store.registry import Registry
from temporal.spec import HeadSpec

# A builder takes (input_width, num_classes, spec). Its module's forward(x [B, T, D] float, lengths [B] int64) gives raw class scores
# [B, C]; steps at and after a sequence's length are padding and never change its scores. Heads of maps get x [B, T, C, H, W].
HEADS: Registry[Callable[[int, int, HeadSpec], nn.Module]] = Registry("head", "temporal.heads")


@runtime_checkable
class Pretrained(Protocol):
    """A head that declares ``WEIGHTS``."""

    def load_pretrained(self, file: Path) -> None:
        """Start from the weights in a file; ``TrainingError`` tells what does not fit."""


@runtime_checkable
class Limited(Protocol):
    """A head that cannot read sequences of any length."""

    def check_steps(self, steps: int) -> None:
        """``SpecError`` where a sequence of so many steps is too long."""


@runtime_checkable
class Pooling(Protocol):
    """A head that begins with something no weight changes; its forward takes the result x [B, D'] in the place of x [B, T, D]."""

    def pooled(self, x: Tensor, lengths: Tensor) -> Tensor:
        """[B, D'] of x [B, T, D]; a sample's row depends on its own steps alone."""


def build_head(spec: HeadSpec, input_width: int, num_classes: int, weights: Path | None = None) -> nn.Module:
    """The head of ``spec``, its weights drawn from the global generator (call inside ``seeded``), then ``weights`` where given."""
    head = HEADS.get(spec.name)(input_width, num_classes, spec)
    if bool(spec.weights) != (weights is not None):
        raise TrainingError(f"head.weights is {spec.weights!r} and the file of pretrained weights {weights}; resolve one by the other")
    if weights is not None and isinstance(head, Pretrained):
        head.load_pretrained(weights)
    return head
