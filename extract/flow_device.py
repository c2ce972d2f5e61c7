"""Flow computed by the job on the network's device, in batches of pairs of any videos, from what decode workers send.

A pair's flow is the same whatever is beside it: TV-L1 by its nature, a network of flow because its batches are always of one size. What
waits is bounded: one batch of a size of frames, and of all sizes together no more than ``WAITING_PIXELS``. Flow becomes bytes on the
device, with the arithmetic of ``extract.flow_bytes``, and frames from there on are what a worker would have sent.
"""

from pathlib import Path
from typing import Literal, NamedTuple, Protocol, runtime_checkable

import numpy as np
import torch

from extract.decode import ClipPlan
from extract.flow import FLOWS, FlowMethod, flow_method, in_colour, weights_for
from extract.flow_frames import not_finite
from extract.flow_stacks import FlowPlan, Gathering
from extract.network import Network
from extract.spec import FlowSpec, RunOptions
from extract.video_features import VideoFeatures
from extract.worker import StageError
from store.errors import FeatureError, SpecError
from store.features import Features

WAITING_PIXELS = 1 << 24  # of pairs of all sizes of frames: two bytes each, or six in colour


@runtime_checkable
class DeviceMethod(Protocol):
    """A flow method that can compute on any device of torch."""

    def pairs_at_once(self, height: int, width: int, device: torch.device) -> int:
        """Pairs of a batch that the device's memory holds easily."""
        ...

    def batch(self, first: torch.Tensor, second: torch.Tensor) -> torch.Tensor:
        """Flow of pairs of images on one device, uint8 [B, 1 or 3, H, W], as float32 [B, 2, H, W] there, (x, y) in pixels."""
        ...


def device_flow(network: Network, options: RunOptions) -> "FlowQueue | None":
    """What computes the flow that ``network`` takes on its device; None where decode workers do, or there is none to compute.

    By ``options.flow_on``; ``auto`` is the device where it is CUDA and the method can, see ``check_flow_on``.
    """
    flow, device = network.spec.flow, network.device
    if options.flow_on == "workers" or flow.method not in FLOWS.names():
        return None
    if options.flow_on == "auto" and device.device.type != "cuda":
        return None
    method = flow_method(flow, weights_for(flow, options.flow_weights))
    return FlowQueue(method, flow, network) if isinstance(method, DeviceMethod) else None


def check_flow_on(flow: FlowSpec, options: RunOptions) -> None:
    """Raise ``SpecError`` where flow must be computed on the device but the method cannot."""
    if options.flow_on != "device" or not flow.method:
        return
    if flow.method not in FLOWS.names() or not isinstance(flow_method(flow, weights_for(flow, options.flow_weights)), DeviceMethod):
        raise SpecError(f"flow method {flow.method} cannot be computed on a device; leave --flow-on out, or set another --flow.method")


class Waiting(NamedTuple):
    """A pair of images, uint8 [h, w, 1 or 3], and whose it is."""

    video: "FlowVideo"
    pair: int
    first: torch.Tensor
    second: torch.Tensor


class FlowQueue:
    """Gathers pairs of one size until they fill a batch."""

    def __init__(self, method: DeviceMethod, spec: FlowSpec, network: Network) -> None:
        self.spec, self.device = spec, network.device
        self._method, self._network = method, network
        self._waiting: dict[tuple[int, ...], list[Waiting]] = {}  # by size, the longest untouched first
        self._pixels = 0

    @property
    def inputs(self) -> Literal["grey", "colour"]:
        """What decode workers must send."""
        method: FlowMethod = self._method  # type: ignore[assignment]
        return "colour" if in_colour(method) else "grey"

    def add(self, item: Waiting) -> None:
        """Take a pair; runs every batch that is full."""
        size = tuple(item.first.shape)
        queue = self._waiting[size] = self._waiting.pop(size, [])
        queue.append(item)
        self._pixels += size[0] * size[1]
        if len(queue) >= self._method.pairs_at_once(size[0], size[1], self.device.device):
            self._run(size)
        while self._pixels > WAITING_PIXELS:
            self._run(next(iter(self._waiting)))

    def finish(self) -> None:
        """Run what waits."""
        while self._waiting:
            self._run(next(iter(self._waiting)))

    @torch.inference_mode()
    def _run(self, size: tuple[int, ...]) -> None:
        items = self._waiting.pop(size)
        self._pixels -= len(items) * size[0] * size[1]
        with self._network.watch.stage("flow"), self.device.working():
            first, second = ([item.first for item in items], [item.second for item in items])
            flow = self._method.batch(*(torch.stack(side).permute(0, 3, 1, 2).contiguous() for side in (first, second)))
            finite = torch.isfinite(flow).flatten(1).all(1).tolist()
            images = device_bytes(flow, self.spec)
        for item, good, image in zip(items, finite, images, strict=True):
            item.video.receive(item.pair, image if good else None)
        for video in dict.fromkeys(item.video for item in items):
            video.hand_on()


class FlowVideo:
    """Before ``VideoFeatures``: turns the images that a worker sends into the frames whose flow the clips need."""

    def __init__(self, video: VideoFeatures, queue: FlowQueue, path: Path) -> None:
        spec = queue.spec
        self._video, self._queue, self._path = video, queue, path
        self._plan = FlowPlan.of(video.wanted, video.plan.num_frames, spec)
        self._needed, self._pairs, self._coloured = self._plan.needed.tolist(), set(self._plan.pairs.tolist()), len(self._plan.coloured) > 0
        self._gathering = Gathering[torch.Tensor](self._plan)
        self._arrived = self._handed_on = 0
        self._before: torch.Tensor | None = None
        self._final: ClipPlan | None = None
        self._problem = ""

    @torch.inference_mode()
    def add(self, frames: np.ndarray) -> None:
        """Take the next images, uint8 [k, h, w, C], see ``extract.flow_frames.FlowInputs``."""
        indices = self._needed[self._arrived : self._arrived + len(frames)]
        self._arrived += len(frames)
        on_device = self._queue.device.upload(frames)
        if self._queue.device.device.type == "cpu":
            on_device = on_device.clone()  # the worker's memory is overwritten while pairs wait
        shown = set(self._plan.coloured.tolist()) if self._coloured else set()
        for index, image in zip(indices, on_device, strict=True):
            taken = image if self._queue.inputs == "colour" else image[..., -1:]
            before, self._before = self._before, taken
            if index in shown:
                self._gathering.colour(index, image[..., :3])
            if self._plan.single:
                nothing = torch.zeros(1, 2, *image.shape[:2], device=image.device)
                self.receive(0, device_bytes(nothing, self._queue.spec)[0])
            elif index - 1 in self._pairs and before is not None:
                self._queue.add(Waiting(self, index - 1, before, taken))
        self.hand_on()

    def receive(self, pair: int, image: torch.Tensor | None) -> None:
        """Take flow ``pair`` as bytes, uint8 [h, w, 2 or 3]; None where it has NaN or Inf."""
        if image is None:
            self._problem = self._problem or not_finite(self._path, self._queue.spec, pair)
        else:
            self._gathering.flow(pair, image)

    def hand_on(self) -> None:
        """Give on the frames that are complete."""
        if self._problem:
            return
        frames = [torch.cat(parts, 2) for parts in self._gathering.ready()]
        if frames:
            self._handed_on += len(frames)
            self._video.add(torch.stack(frames))
        if self._final is not None and self._handed_on == len(self._video.wanted):
            final, self._final = self._final, None
            self._video.close(final)

    def close(self, plan: ClipPlan) -> None:
        """All images are here; ``plan`` has the true times. Raises ``FeatureError`` when some are missing."""
        if self._arrived != len(self._needed):
            raise FeatureError(f"the decoder sent {self._arrived} frames of the {len(self._needed)} that their flow needs")
        self._final = plan
        self.hand_on()

    @property
    def clips_here(self) -> float:
        """Clips that the images here make up, as a share of all."""
        return len(self._video.plan.indices) * self._arrived / len(self._needed)

    @property
    def complete(self) -> bool:
        """Whether all units are computed, or never will be."""
        return bool(self._problem) or (self._final is None and self._video.complete)

    def finish(self) -> Features:
        """The features of all clips; raises ``StageError`` for flow with NaN or Inf, else as ``VideoFeatures``."""
        if self._problem:
            raise StageError("flow", self._problem)
        return self._video.finish()


def device_bytes(flow: torch.Tensor, spec: FlowSpec) -> torch.Tensor:
    """``extract.flow_bytes.flow_bytes`` of float32 [B, 2, H, W] as torch operations: uint8 [B, H, W, 2 or 3], the same bytes."""
    bound = spec.bound
    if spec.quantise == "dense_flow":
        range_ = torch.tensor(2 * bound, dtype=torch.float64, device=flow.device)  # no number: CUDA would multiply by its inverse
        components = (flow.double().clamp(-bound, bound) + bound).mul_(255).div_(range_).round_()
    else:
        scale = float(np.float32((127.5 if spec.quantise == "i3d" else 127) / bound))
        components = flow.clamp(-bound, bound).mul_(scale).add_(128).round_().clamp_(0, 255)
    channels = [components]
    if spec.encoding == "image":
        x, y = flow.double().unbind(1)
        length = (x * x).add_(y * y).sqrt_().float()
        channels.append(length.clamp_(max=float(np.float32(bound))).mul_(float(np.float32(255 / bound))).round_()[:, None])
    return torch.cat([channel.to(torch.uint8) for channel in channels], 1).permute(0, 2, 3, 1).contiguous()
