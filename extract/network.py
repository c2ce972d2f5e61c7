"""From a video's frames to its features: crops, forward passes and float32 means, one video at a time.

A forward pass never mixes videos, and a video's passes are cut by its own clips alone, so its features are the same to the last bit
whatever its neighbours, the number of workers, the part of the list or an interruption.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

from extract.backbones import Backbone
from extract.crops import crop_boxes, cut, normalise, resize_frames
from extract.decode import ClipPlan
from extract.precision import DTYPES, MEMORY_FORMATS
from extract.spec import FeatureSpec
from store.errors import FeatureError
from store.features import Features


class Stopwatch:
    """Seconds spent in each stage."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time of the block to stage ``name``."""
        started = time.perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + time.perf_counter() - started


class Network:
    """A prepared backbone together with how frames reach it."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec, device: torch.device, batch_size: int) -> None:
        self.backbone, self.spec, self.device = backbone, spec, device
        self.watch = Stopwatch()
        self.units_per_pass = max(1, batch_size // spec.crops.count)

    @torch.inference_mode()
    def crops(self, frames: np.ndarray) -> torch.Tensor:
        """Frames uint8 [k, H, W, 3] -> crops uint8 [k, n, 3, S, S] on the device. Whole frames travel: ten crops would be more bytes."""
        spec = self.spec.crops
        with self.watch.stage("crops"):
            resized = resize_frames(torch.from_numpy(frames).to(self.device, non_blocking=True), spec, self.backbone.info)
            boxes = crop_boxes(resized.shape[-2], resized.shape[-1], spec.size, spec.count)
            return cut(resized, boxes, self.spec.flow)

    @torch.inference_mode()
    def forward(self, units: torch.Tensor) -> dict[str, torch.Tensor]:
        """Crops uint8 [B, T, n, 3, S, S] of B units of T frames -> ``{level: float32 [B, n, D]}`` on the CPU."""
        with self.watch.stage("network"):
            batch, length, crops = units.shape[:3]
            images = normalise(units.flatten(0, 2), self.backbone.info, DTYPES[self.spec.precision])
            images = images.unflatten(0, (batch, length, crops)).permute(0, 2, 3, 1, 4, 5).flatten(0, 1)  # [B*n, 3, T, S, S]
            if self.backbone.info.clip_length == 1:
                images = images.squeeze(2)
            layout = MEMORY_FORMATS[images.dim()] if self.spec.channels_last else torch.contiguous_format
            levels = self.backbone(images.contiguous(memory_format=layout), self.spec.levels)
            return {name: level.float().unflatten(0, (batch, crops)).cpu() for name, level in levels.items()}


class VideoFeatures:
    """Gathers one video's features while its frames arrive in order.

    A unit is what the network takes at once: a frame, or a clip of frames. A frame that several clips share is a single unit of a
    frame-wise network, so it is computed once.
    """

    def __init__(self, network: Network, plan: ClipPlan) -> None:
        self.network, self.plan = network, plan
        self.framewise = network.backbone.info.clip_length == 1
        self.wanted = plan.wanted
        self._units = self.wanted[:, None] if self.framewise else plan.indices
        self._newest_needed = np.maximum.accumulate(self._units.max(1))  # of units 0..i
        self._oldest_needed = np.minimum.accumulate(self._units.min(1)[::-1])[::-1]  # of units i..end
        self._next = self._arrived = 0
        self._crops: dict[int, torch.Tensor] = {}
        self._results: list[dict[str, torch.Tensor]] = []

    def add(self, frames: np.ndarray) -> None:
        """Take the next wanted frames, uint8 [k, H, W, 3], and run every full pass they complete."""
        arriving = self.wanted[self._arrived : self._arrived + len(frames)]
        self._crops.update(zip(arriving.tolist(), self.network.crops(frames), strict=True))
        self._arrived += len(frames)
        ready = int(np.searchsorted(self._newest_needed, arriving[-1], side="right"))
        while ready - self._next >= self.network.units_per_pass:
            self._run(self.network.units_per_pass)

    def finish(self) -> Features:
        """The features of all clips; raises ``FeatureError`` for NaN, Inf and what the stored type cannot hold."""
        if self._arrived != len(self.wanted):
            raise FeatureError(f"the decoder sent {self._arrived} frames of the {len(self.wanted)} that the clips need")
        while self._next < len(self._units):
            self._run(min(self.network.units_per_pass, len(self._units) - self._next))
        levels = {name: torch.cat([result[name] for result in self._results]) for name in self._results[0]}
        values = {name: stored_array(self._reduce(level).numpy(), self.network.spec.dtype, name) for name, level in levels.items()}
        return Features(values, self.plan.frames, self.plan.times)

    def _run(self, count: int) -> None:
        units = self._units[self._next : self._next + count]
        with torch.inference_mode():
            batch = torch.stack([torch.stack([self._crops[index] for index in unit]) for unit in units.tolist()])
        self._results.append(self.network.forward(batch))
        self._next += count
        oldest = self._oldest_needed[self._next] if self._next < len(self._units) else np.inf
        for index in [index for index in self._crops if index < oldest]:
            del self._crops[index]

    def _reduce(self, units: torch.Tensor) -> torch.Tensor:
        """Units [M, n, D] -> clips [N, (T), (n), D]: gather shared frames, mean over crops, then over frames, all in float32."""
        if not self.network.spec.crops.keep:
            units = units.mean(1)
        elif self.network.spec.crops.count == 1:
            units = units.squeeze(1)
        if not self.framewise:
            return units
        clips = units[torch.from_numpy(np.searchsorted(self.wanted, self.plan.indices))]
        if self.plan.indices.shape[1] == 1:
            return clips.squeeze(1)
        return clips.mean(1) if self.network.spec.clips.pool == "mean" else clips


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
