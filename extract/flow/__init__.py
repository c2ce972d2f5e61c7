"""Dense optical flow, one file a method."""

from collections.abc import Mapping
from typing import Protocol

import numpy as np

from store.registry import Registry


class FlowMethod(Protocol):
    """A dense optical flow method."""

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second`` (uint8 [H, W] grey) as float32 [H, W, 2], (x, y) displacement in pixels."""
        ...


class FlowFamily(Protocol):
    """How a method is made: its implementation's version, its parameters' defaults, and a builder."""

    version: str
    defaults: Mapping[str, float]

    def __call__(self, params: Mapping[str, float]) -> FlowMethod:
        """Build the method; ``params`` holds a value for every name in ``defaults`` and no others."""
        ...


FLOWS: Registry[FlowFamily] = Registry("flow method", "extract.flow")
