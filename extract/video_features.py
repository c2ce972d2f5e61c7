"""From one video's frames to its features: units in, float32 means out."""

import numpy as np
import torch

from extract.decode import ClipPlan
from extract.network import Network, Unit
from store.errors import FeatureError
from store.features import Features


class VideoFeatures:
    """Gathers one video's features while its frames arrive in order.

    A frame that several clips share is a single unit of a frame-wise network, so it is computed once.
    """

    def __init__(self, network: Network, plan: ClipPlan) -> None:
        self.network, self.plan = network, plan
        self.framewise = network.backbone.info.clip_length == 1
        self.wanted = plan.wanted
        self._units = self.wanted[:, None] if self.framewise else plan.indices
        self._newest_needed = np.maximum.accumulate(self._units.max(1))  # of units 0..i
        self._oldest_needed = np.minimum.accumulate(self._units.min(1)[::-1])[::-1]  # of units i..end
        self._queue = network.queue if network.mixed else []
        self._next = self._arrived = self._received = 0
        self._frames: dict[int, torch.Tensor] = {}  # resized, of clips that are not complete
        self._results: list[dict[str, np.ndarray]] = [{}] * len(self._units)

    def add(self, frames: np.ndarray | torch.Tensor) -> None:
        """Take the next wanted frames, uint8 [k, H, W, C] (a tensor is on the device), and run every full pass they complete."""
        arriving = self.wanted[self._arrived : self._arrived + len(frames)]
        self._arrived += len(frames)
        resized = self.network.resize(frames)
        if self.framewise:
            self._enqueue(self.network.cut(resized)[:, None])
            return
        self._frames.update(zip(arriving.tolist(), resized, strict=True))
        ready = int(np.searchsorted(self._newest_needed, arriving[-1], side="right"))
        for clip in self._units[self._next : ready].tolist():
            with torch.inference_mode():
                resized_clip = torch.stack([self._frames[index] for index in clip])
            self._enqueue(self.network.cut(resized_clip)[None])
            oldest = self._oldest_needed[self._next] if self._next < len(self._units) else np.inf
            for index in [index for index in self._frames if index < oldest]:
                del self._frames[index]

    def close(self, plan: ClipPlan) -> None:
        """All frames are here; ``plan`` has the true times. Raises ``FeatureError`` when some are missing."""
        if self._arrived != len(self.wanted):
            raise FeatureError(f"the decoder sent {self._arrived} frames of the {len(self.wanted)} that the clips need")
        self.plan = plan
        if not self.network.mixed:
            self.network.run_rest(self._queue)

    def receive(self, unit: int, levels: dict[str, np.ndarray]) -> None:
        """Take the features of one unit, see ``Receiver``."""
        self._results[unit] = levels
        self._received += 1

    @property
    def complete(self) -> bool:
        """Whether all units are computed."""
        return self._received == len(self._units)

    @property
    def clips_here(self) -> float:
        """Clips that the frames here make up, as a share of all."""
        return len(self.plan.indices) * self._arrived / len(self.wanted)

    def finish(self) -> Features:
        """The features of all clips; raises ``FeatureError`` for missing frames, NaN, Inf and what the stored type cannot hold."""
        if not self.complete:
            self.close(self.plan)
            self.network.finish()
        dtype = self.network.spec.dtype
        values = {}
        for name in list(self._results[0]):
            units = np.stack([result.pop(name) for result in self._results])  # one level at a time: maps are large
            values[name] = stored_array(self._clips(units), dtype, name)
        return Features(values, self.plan.frames, self.plan.times)

    def _enqueue(self, units: torch.Tensor) -> None:
        self._queue += [Unit(self, self._next + place, unit) for place, unit in enumerate(units)]
        self._next += len(units)
        self.network.run_full(self._queue)

    def _clips(self, units: np.ndarray) -> np.ndarray:
        """Units [M, ...] -> clips [N, (T), ...]: gather shared frames, mean over a clip's frames in float32."""
        if not self.framewise or len(units) == 1 == self.plan.indices.size:
            return units
        places = np.searchsorted(self.wanted, self.plan.indices)
        if places.shape[1] == 1:
            return units[places[:, 0]]
        if self.network.spec.clips.pool == "none":
            return units[places]
        return np.stack([torch.from_numpy(units[clip]).mean(0).numpy() for clip in places])


def stored_array(values: np.ndarray, dtype: str, level: str) -> np.ndarray:
    """Cast float32 features to the stored type; NaN, Inf or an overflow is a ``FeatureError``, never a stored value."""
    finite = np.isfinite(values)
    if not finite.all():
        row = int(np.argwhere(~finite)[0][0])
        raise FeatureError(
            f"level {level} has {int((~finite).sum())} values that are NaN or Inf, the first in clip {row}; nothing was stored"
        )
    largest = float(np.abs(values).max(initial=0.0))
    if dtype == "float16" and largest > float(np.finfo(np.float16).max):
        raise FeatureError(f"level {level} reaches {largest:.4g}, beyond float16's 65504; store it with --dtype float32")
    return values.astype(dtype)
