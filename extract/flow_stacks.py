"""Which flows the frames of a video need, and stacks put together as flows come. It knows no pixels, and imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np

from extract.spec import FlowSpec

Image = TypeVar("Image")  # an array of numpy in decode workers, a tensor on a device


@dataclass(frozen=True)
class FlowPlan:
    """What the flow of some frames takes; every array is int64, sorted, each index once.

    ``indices`` [U] are the frames, ``stacks`` [U, N] the flows of each frame's stack, ``pairs`` all of these, ``coloured`` the frames whose
    RGB is wanted, too; ``single`` says that the video has one frame, whose flow is zero.
    """

    indices: np.ndarray
    stacks: np.ndarray
    pairs: np.ndarray
    coloured: np.ndarray
    single: bool

    @classmethod
    def of(cls, indices: np.ndarray, num_frames: int, spec: FlowSpec) -> "FlowPlan":
        """The plan of the frames ``indices`` (sorted, each once) of a video of ``num_frames``."""
        stacks = stack_indices(indices, num_frames, spec)
        return cls(indices, stacks, np.unique(stacks), indices if spec.with_rgb else indices[:0], num_frames == 1)

    @property
    def needed(self) -> np.ndarray:
        """Frames that computing it takes: both of each pair, and the coloured ones."""
        return np.unique(np.concatenate([self.pairs, self.coloured] if self.single else [self.pairs, self.pairs + 1, self.coloured]))


def stack_indices(indices: np.ndarray, num_frames: int, spec: FlowSpec) -> np.ndarray:
    """Which flows each frame's stack holds: int64 [U, N], ascending in each row, from 0 to the last flow, ``num_frames`` - 2."""
    flows = indices[:, None] + spec.offset + np.arange(spec.pairs)
    return np.clip(flows, 0, max(0, num_frames - 2))


class Gathering(Generic[Image]):
    """Keeps flows (as bytes) and RGB frames until the stacks that hold them are complete; both come in ascending order."""

    def __init__(self, plan: FlowPlan) -> None:
        self._indices, self._stacks, self._coloured = plan.indices.tolist(), plan.stacks, len(plan.coloured) > 0
        self._flows: dict[int, Image] = {}  # those that a stack to come needs
        self._colours: dict[int, Image] = {}
        self._done = 0

    def flow(self, pair: int, image: Image) -> None:
        """Take flow ``pair``."""
        self._flows[pair] = image

    def colour(self, index: int, image: Image) -> None:
        """Take the RGB of frame ``index``."""
        self._colours[index] = image

    def ready(self) -> Iterator[list[Image]]:
        """The parts of each stack that is complete now: RGB first where it is wanted, then the flows."""
        while self._done < len(self._indices):
            index, stack = self._indices[self._done], self._stacks[self._done].tolist()
            if stack[-1] not in self._flows or (self._coloured and index not in self._colours):
                return
            yield ([self._colours.pop(index)] if self._coloured else []) + [self._flows[pair] for pair in stack]
            self._done += 1
            oldest = self._stacks[self._done, 0] if self._done < len(self._indices) else np.inf
            self._flows = {pair: image for pair, image in self._flows.items() if pair >= oldest}
