"""Crops and forward passes on the device.

A pass is made of units: what the network takes at once, a frame or a clip of frames, in all its crops. Passes are either cut by one video's
units alone, or mixed: always of one size, filled with units of any video, the last one with zeros. Mixed passes keep an accelerator busy
when videos are short; they are only used where a unit's features do not depend on its place in the pass (``rows_agree``), so that a video's
features are the same to the last bit whatever runs beside it. docs/decisions.md has the measurements.
"""

from collections import deque
from typing import NamedTuple, Protocol

import numpy as np
import torch

from extract.backbones import Backbone, BackboneInfo
from extract.crops import crop_boxes, cut, normalise, resize_frames
from extract.device import Device, Download
from extract.fit import as_trained
from extract.precision import DTYPES, MEMORY_FORMATS
from extract.spec import MOST_IMAGES, FeatureSpec
from extract.stopwatch import Stopwatch
from store.errors import PipelineError

IMAGE_PIXELS = 224 * 224
IMAGES_OF_A_PASS = {"cpu": 8}  # more gains nothing on processors, and costs MobileNet their caches; see benchmarks/extract_batches.py
IMAGES_ELSEWHERE = 256
PASSES_UNDER_WAY = 2  # on a device that works while this process goes on: one running, one waiting


class Receiver(Protocol):
    """Whose units a pass computes."""

    def receive(self, unit: int, levels: dict[str, np.ndarray]) -> None:
        """Take one unit's features: float32 [D] a level, [n, D] where n crops are kept; maps have [D, (t), h, w] for [D]."""
        ...


class Unit(NamedTuple):
    """What the network takes at once: ``frames`` uint8 [T, n, C, S, S] on the device, n crops."""

    receiver: Receiver
    number: int
    frames: torch.Tensor


class Network:
    """A prepared backbone together with how frames reach it."""

    def __init__(self, backbone: Backbone, spec: FeatureSpec, device: torch.device, batch_size: int = 0, mixed: bool = False) -> None:
        """``batch_size`` is in images or clips, crops counted; 0 takes what suits the device."""
        self.backbone, self.mixed = backbone, mixed
        self.spec = spec = as_trained(spec, backbone.info)
        self.device = Device(device)
        self.watch = Stopwatch()
        self.units_per_pass = max(1, (batch_size or usual_batch(spec, backbone.info, device)) // spec.crops.count)
        self.queue: list[Unit] = []  # of mixed passes
        self._one_size = mixed or spec.compile
        self._under_way: deque[tuple[Download, list[Unit]]] = deque()

    @torch.inference_mode()
    def resize(self, frames: np.ndarray | torch.Tensor) -> torch.Tensor:
        """Frames uint8 [k, H, W, C] -> resized, uint8 [k, C, h, w] on the device. Whole frames travel: ten crops would be more bytes."""
        with self.watch.stage("crops"), self.device.working():
            there = frames if isinstance(frames, torch.Tensor) else self.device.upload(frames)
            return resize_frames(there, self.spec.crops, self.backbone.info)

    @torch.inference_mode()
    def cut(self, resized: torch.Tensor) -> torch.Tensor:
        """Resized frames uint8 [k, C, h, w] -> their crops uint8 [k, n, C, S, S]."""
        with self.watch.stage("crops"), self.device.working():
            boxes = crop_boxes(resized.shape[-2], resized.shape[-1], self.spec.crops.size, self.spec.crops.count, self.backbone.info.centre)
            return cut(resized, boxes, self.spec.flow)

    @torch.inference_mode()
    def images(self, units: torch.Tensor) -> torch.Tensor:
        """Crops uint8 [B, T, n, C, S, S] of B units of T frames -> what the network takes, [B * n, C, (T), S, S], normalised."""
        info, dtype = self.backbone.info, DTYPES[self.spec.precision]
        clips = units.transpose(1, 2).flatten(0, 1)  # [B*n, T, C, S, S]
        if self.spec.channels_last:  # while it is bytes
            images = normalise(clips.permute(0, 1, 3, 4, 2).contiguous(), info, dtype, channels_last=True).permute(0, 4, 1, 2, 3)
        else:
            images = normalise(clips.transpose(1, 2).contiguous().transpose(1, 2), info, dtype).transpose(1, 2)
        images = images.squeeze(2) if info.clip_length == 1 else images
        return images.contiguous(memory_format=MEMORY_FORMATS[images.dim()] if self.spec.channels_last else torch.contiguous_format)

    @torch.inference_mode()
    def forward(self, units: torch.Tensor) -> dict[str, torch.Tensor]:
        """Crops uint8 [B, T, n, C, S, S] of B units of T frames -> ``{level: float32 [B, n, D]}`` on the device."""
        levels = self.backbone(self.images(units), self.spec.levels)
        return {name: level.unflatten(0, (len(units), units.shape[2])) for name, level in levels.items()}

    @torch.inference_mode()
    def features(self, units: torch.Tensor) -> dict[str, torch.Tensor]:
        """As ``forward``, the mean over crops taken unless they are kept: ``{level: float32 [B, D] or [B, n, D]}``."""
        crops = self.spec.crops
        levels = self.forward(units)
        if crops.keep:
            return levels if crops.count > 1 else {name: level.squeeze(1) for name, level in levels.items()}
        return {name: level.mean(1) for name, level in levels.items()}

    def run_full(self, queue: list[Unit]) -> None:
        """Run every full pass of a queue."""
        while len(queue) >= self.units_per_pass:
            self._run(queue[: self.units_per_pass])
            del queue[: self.units_per_pass]

    def run_rest(self, queue: list[Unit]) -> None:
        """Run what is left of a queue as one pass."""
        self.run_full(queue)
        if queue:
            self._run(queue[:])
            queue.clear()

    def collect(self) -> None:
        """Hand out what the device has done meanwhile, so that no video waits for the next pass."""
        while self._under_way and self._under_way[0][0].there:
            self._hand_out(len(self._under_way) - 1)

    def finish(self) -> None:
        """Run what mixed passes still wait for, and hand out everything."""
        self.run_rest(self.queue)
        self._hand_out(0)

    def _run(self, units: list[Unit]) -> None:
        with self.watch.stage("network"):
            with self.device.working(), torch.inference_mode():
                batch = torch.stack([unit.frames for unit in units])
                if self._one_size and len(units) < self.units_per_pass:
                    batch = torch.cat([batch, batch.new_zeros(self.units_per_pass - len(units), *batch.shape[1:])])
                download = self.device.download(self.features(batch))
            self._under_way.append((download, units))
            self._hand_out(PASSES_UNDER_WAY if download.arrived else 0)

    def _hand_out(self, leave: int) -> None:
        while len(self._under_way) > leave:
            download, units = self._under_way.popleft()
            levels = {name: level.numpy() for name, level in download.wait().items()}
            for row, unit in enumerate(units):
                unit.receiver.receive(unit.number, {name: level[row] for name, level in levels.items()})

    def warm_up(self) -> None:
        """Run a pass of noise, so that a network that does not compile says so before any video; ``PipelineError`` with the reason."""
        from torch._dynamo.exc import TorchDynamoException

        try:
            self.features(self.noise().expand(self.units_per_pass, *[-1] * 5))
        except TorchDynamoException as error:
            reason = str(error).strip().splitlines()[0]
            raise PipelineError(f"torch.compile fails: {reason}; install a C++ compiler (g++), or leave --compile out") from None

    def rows_agree(self) -> bool:
        """Whether a unit's features are the same to the last bit wherever in a pass it stands, here, with this network.

        Kernels compute a row from its values, its place and the size of the pass; the values of other rows have no part in it.
        """
        rows = self.noise().expand(self.units_per_pass, *[-1] * 5)
        with self.watch.stage("network"), self.device.working():
            return all(bool((level == level[:1]).all()) for level in self.features(rows).values())

    def noise(self) -> torch.Tensor:
        """One unit of noise, with its axis: uint8 [1, T, n, C, S, S] on the device."""
        spec, info = self.spec, self.backbone.info
        length = spec.clips.length if info.clip_length > 1 else 1
        shape = (1, length, spec.crops.count, info.channels, spec.crops.size, spec.crops.size)
        noise = torch.randint(0, 256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        return noise.to(self.device.device)


def usual_batch(spec: FeatureSpec, info: BackboneInfo, device: torch.device) -> int:
    """Images or clips of a pass by default: as many pixels as some images of 224 x 224."""
    length = spec.clips.length if info.clip_length > 1 else 1
    images = IMAGES_OF_A_PASS.get(device.type, IMAGES_ELSEWHERE)
    return min(max(1, round(images * IMAGE_PIXELS / (length * spec.crops.size**2))), MOST_IMAGES)
