"""A device as the extraction sees it: frames up, features down, and how long it worked. CUDA works while this process goes on."""

import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
import torch

from store.errors import PipelineError


def resolve_device(name: str) -> torch.device:
    """``auto`` is CUDA where there is one; a device that is not there is a ``PipelineError``."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device).cpu()  # "meta" makes tensors without values
    except (RuntimeError, AssertionError) as error:
        raise PipelineError(f"device {name!r} cannot be used here: {str(error).splitlines()[0]}") from None
    return device


class Download(NamedTuple):
    """Features on their way to this process's memory."""

    levels: dict[str, torch.Tensor]
    arrived: torch.cuda.Event | None

    @property
    def there(self) -> bool:
        """Whether ``wait`` would not have to."""
        return self.arrived is None or self.arrived.query()

    def wait(self) -> dict[str, torch.Tensor]:
        """The features, float32 on the CPU, once they are there."""
        if self.arrived is not None:
            self.arrived.synchronize()
        return self.levels


class Device:
    """A torch device. On CUDA everything but ``Download.wait`` returns at once, in the order of the calls."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._is_cuda = device.type == "cuda"
        self._busy = 0.0
        self._sections: deque[tuple[torch.cuda.Event, torch.cuda.Event]] = deque()

    def upload(self, frames: np.ndarray) -> torch.Tensor:
        """Frames, uint8, on the device; the array may be overwritten afterwards unless it is used where it is (CPU)."""
        host = torch.from_numpy(frames)
        return host.pin_memory().to(self.device, non_blocking=True) if self._is_cuda else host.to(self.device)

    def download(self, levels: Mapping[str, torch.Tensor]) -> Download:
        """Begin to bring tensors to this process's memory as float32."""
        floats = {name: level.float().to("cpu", non_blocking=self._is_cuda) for name, level in levels.items()}
        arrived = torch.cuda.Event() if self._is_cuda else None
        if arrived is not None:
            arrived.record(torch.cuda.current_stream(self.device))
        return Download(floats, arrived)

    @contextmanager
    def working(self) -> Iterator[None]:
        """Count the device's time for what is asked of it in the block as busy. Running out of its memory is a ``PipelineError``."""
        started = time.perf_counter()
        events = (torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)) if self._is_cuda else None
        if events:
            events[0].record(torch.cuda.current_stream(self.device))
        try:
            yield
        except torch.OutOfMemoryError as error:
            reason = str(error).splitlines()[0]
            raise PipelineError(f"{self.device} has too little memory: {reason}; set a smaller --batch-size") from None
        if events:
            events[1].record(torch.cuda.current_stream(self.device))
            self._sections.append(events)
            self.busy_seconds()  # of what is done, so that events do not pile up in a long job
        else:
            self._busy += time.perf_counter() - started

    def busy_seconds(self) -> float:
        """Seconds that the device has worked, as far as it is done."""
        while self._sections and self._sections[0][1].query():
            begin, end = self._sections.popleft()
            self._busy += begin.elapsed_time(end) / 1000
        return self._busy
