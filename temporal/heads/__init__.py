"""Heads: modules from a padded batch of sequences to class scores, one file a family."""

from collections.abc import Callable

from torch import nn

from store.registry import Registry
from temporal.spec import HeadSpec

# A builder takes (input_width, num_classes, spec). Its module's forward(x [B, T, D] float, lengths [B] int64) gives raw class scores
# [B, C]; steps at and after a sequence's length are padding and never change its scores.
HEADS: Registry[Callable[[int, int, HeadSpec], nn.Module]] = Registry("head", "temporal.heads")
