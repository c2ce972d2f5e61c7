"""The metrics of a training as TensorBoard reads them (extra ``tensorboard``)."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from store.errors import TrainingError

EVENTS = "tensorboard"


class Events:
    """Scalars of every epoch, one tag a quantity, in a folder that ``tensorboard --logdir`` takes."""

    def __init__(self, folder: Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            raise TrainingError(
                "TensorBoard is not installed: `pip install actioncache[tensorboard]`, or leave --tensorboard out"
            ) from None
        self._writer = SummaryWriter(str(folder))

    def add(self, history: Sequence[dict[str, Any]], first: int) -> None:
        """Write the epochs from position ``first`` of the history on; steps count the epochs of all phases."""
        for step, record in enumerate(history[first:], first + 1):
            for name, value in record.items():
                if isinstance(value, float):
                    self._writer.add_scalar(f"{record['phase']}/{name}", value, step)
        self._writer.flush()

    def close(self) -> None:
        """Write what is left."""
        self._writer.close()
