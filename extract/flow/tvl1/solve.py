"""TV-L1 by torch operations, from coarse to fine: pair after pair on a processor, in batches elsewhere.

In a batch every pair runs until the last has ended; one that has ended keeps its u and p meanwhile, so its flow is what it is alone. On
CUDA the steps are Triton kernels (``fused.py``) captured in graphs, ``BLOCK`` iterations to a graph, and the host looks whether all pairs
have ended one graph late, while the next one runs: neither waits for the other.
"""

import contextlib
import functools
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Protocol

import torch

from extract.flow.tvl1 import Tvl1Params, steps
from extract.flow.tvl1.threads import share

BLOCK = 10  # iterations between two looks at whether all pairs have ended
BLOCKS = {"cpu": 1}  # where a look costs nothing
BATCH_PIXELS = 1 << 22  # of the full size; about 0.3 kB of device memory each
_LOCK = threading.Lock()  # a plan's buffers hold one batch


def solve(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params) -> torch.Tensor:
    """Flow of checked images [B, H, W], uint8 or float32 from 0 to 255: float32 [B, 2, H, W] on their device."""
    flow = torch.empty(len(first), 2, *first.shape[1:], device=first.device)
    (_one_by_one if first.device.type == "cpu" else _in_batches)(first, second, params, flow)
    return flow


def _one_by_one(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params, flow: torch.Tensor) -> None:
    """Fill ``flow`` pair by pair, whose planes stay in the cache; every operation is too small to share, so the threads share the pairs."""

    def work(pairs: Iterator[int]) -> None:
        with torch.no_grad():
            for pair in pairs:
                part = slice(pair, pair + 1)
                flow[part] = solve_batch(first[part], second[part], params, 1)

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        share(len(first), threads, work)
    finally:
        torch.set_num_threads(threads)


def _in_batches(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params, flow: torch.Tensor) -> None:
    """Fill ``flow`` in batches of bounded memory. They have one size, so that one set of graphs serves: what is not there ends at once."""
    count, height, width = first.shape
    batch = pairs_of_a_batch(height, width)
    on_device = torch.cuda.device(first.device) if first.is_cuda else contextlib.nullcontext()
    with torch.no_grad(), _LOCK, on_device:
        for begin in range(0, count, batch):
            part = slice(begin, begin + batch)
            flow[part] = solve_batch(first[part], second[part], params, batch)


Key = tuple[int, int, int, Tvl1Params, torch.device]
FEWEST = 10  # levels: two sizes of five scales


def pairs_of_a_batch(height: int, width: int) -> int:
    """Pairs of this size that are solved together on a device."""
    return max(1, BATCH_PIXELS // (height * width))


def solve_batch(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params, batch: int) -> torch.Tensor:
    """Flow of at most ``batch`` pairs at once."""
    count, height, width = first.shape
    images = [torch.stack([first, second]).float()]
    sizes, inverse = params.sizes(height, width), 1 / params.scale_step
    for size in sizes[1:]:
        images.append(steps.resize(images[-1], *size, inverse, inverse))
    u = images[-1].new_zeros(count, 2, *sizes[-1])
    for scale in reversed(range(len(sizes))):
        height, width = sizes[scale]
        if scale < len(sizes) - 1:
            u = steps.resize(u, height, width, u.shape[2] / height, u.shape[3] / width, inverse)
        reference, moved = images[scale]
        u = _level(batch, height, width, params, first.device).solve(reference, moved, u)
    return u


class Level:
    """``batch`` pairs at one scale: fixed buffers, and the steps on them in place, so that a graph can hold them."""

    def __init__(self, batch: int, height: int, width: int, params: Tvl1Params, device: torch.device) -> None:
        new = functools.partial(torch.zeros, dtype=torch.float32, device=device)
        self.params = params
        self.reference, self.rho, self.square = (new(batch, height, width) for _ in range(3))
        self.source = new(batch, 3, height + 2 * steps.RING, width + 2 * steps.RING)
        self.u, self.gradient, self.p = new(batch, 2, height, width), new(batch, 2, height, width), new(batch, 2, 2, height, width)
        self.present = torch.zeros(batch, dtype=torch.bool, device=device)  # the last batch of a call may be smaller
        self.active, self.going = torch.zeros_like(self.present), torch.zeros_like(self.present[:1])
        self.enough = params.epsilon * params.epsilon * height * width
        self.sum_type = torch.float32 if device.type == "mps" else torch.float64  # Apple's GPUs have no double precision
        self.looks: Looks = LooksLate() if device.type == "cuda" else LooksNow()
        block = BLOCKS.get(device.type, BLOCK)
        self.blocks = [min(block, params.inner_iterations - done) for done in range(0, params.inner_iterations, block)]
        self.actions: dict[str, Callable[[], None]] = {"linearise": self.linearise}
        self.actions |= {"smooth": self.smooth} if params.median_filtering > 1 else {}
        self.actions |= {str(count): functools.partial(self.iterate, count) for count in self.blocks}

    def solve(self, reference: torch.Tensor, moved: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
        """Flow [B, 2, H, W] at this scale, from the images and the flow of the scale before."""
        count = len(u)
        self.reference[:count], self.source[:count], self.u[:count] = reference, steps.with_differences(moved), u
        self.p.zero_()
        self.present.copy_(torch.arange(len(self.present), device=u.device) < count)
        for _ in range(self.params.warps):
            self.actions["linearise"]()
            self.looks.begin()
            self._until_ended()
        return self.u[:count].clone()

    def _until_ended(self) -> None:
        for _ in range(self.params.outer_iterations):
            if "smooth" in self.actions:
                self.actions["smooth"]()
            for count in self.blocks:
                self.actions[str(count)]()
                if self.looks.ended(self.going):
                    return

    def capture(self) -> None:
        """Make every step a CUDA graph, which costs the host one launch."""
        pool = torch.cuda.graph_pool_handle()  # one for all: they never run at once, and nothing in it outlives a run
        for name, action in self.actions.items():
            stream = torch.cuda.Stream()
            stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(stream):
                action()  # what the first use compiles or allocates cannot be captured
            torch.cuda.current_stream().wait_stream(stream)
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph, pool=pool, capture_error_mode="thread_local"):
                action()
            self.actions[name] = graph.replay

    def linearise(self) -> None:
        """Sample the second images where u points; every pair that is there goes on."""
        warped = steps.warp(self.source, self.u)
        rho, square = steps.residual(warped, self.u, self.reference)
        self.gradient.copy_(warped[:, 1:])
        self.rho.copy_(rho)
        self.square.copy_(square)
        self.active.copy_(self.present)

    def smooth(self) -> None:
        """Medians of u."""
        self._keep(self.u, steps.median(self.u, self.params.median_filtering))

    def iterate(self, count: int) -> None:
        """``count`` inner iterations, and which pairs go on after each."""
        params = self.params
        for _ in range(count):
            v = steps.threshold(self.u, self.gradient, self.rho, self.square, params.lambda_ * params.theta)
            u = v.add_(steps.divergence(self.p).mul_(params.theta))
            squares = (u - self.u).square_()
            change = squares[:, 0].add_(squares[:, 1]).sum((1, 2), dtype=self.sum_type)
            self._keep(self.u, u)
            self._keep(self.p, steps.dual(self.p, self.u, params.tau / params.theta))
            self.active &= change > self.enough
        torch.any(self.active, 0, keepdim=True, out=self.going)

    def _keep(self, old: torch.Tensor, new: torch.Tensor) -> None:
        """Replace ``old`` by ``new`` where the pair has not ended."""
        torch.where(self.active.view(-1, *[1] * (old.ndim - 1)), new, old, out=old)


class Looks(Protocol):
    """When the host learns that every pair of the batch has ended a warp."""

    def begin(self) -> None:
        """A warp begins."""
        ...

    def ended(self, going: torch.Tensor) -> bool:
        """Whether it is known that no pair goes on; ``going`` [1] is what the last iterations said."""
        ...


class LooksNow:
    """At once: waits for the device."""

    def begin(self) -> None:
        """Nothing to do."""

    def ended(self, going: torch.Tensor) -> bool:
        """Read ``going``."""
        return not bool(going)


class LooksLate:
    """One look late: waits for the iterations before the last ones, while the last ones run."""

    def __init__(self) -> None:
        self.flags = torch.ones(2, dtype=torch.bool, pin_memory=torch.cuda.is_available())
        self.events = [torch.cuda.Event(), torch.cuda.Event()]
        self.count = 0

    def begin(self) -> None:
        """Forget the last warp."""
        self.count = 0

    def ended(self, going: torch.Tensor) -> bool:
        """Send for ``going``; read the one sent for before."""
        slot, before = self.count % 2, (self.count + 1) % 2
        self.flags[slot : slot + 1].copy_(going, non_blocking=True)
        self.events[slot].record()
        self.count += 1
        if self.count == 1:
            return False
        self.events[before].synchronize()
        return not bool(self.flags[before])


def _level(batch: int, height: int, width: int, params: Tvl1Params, device: torch.device) -> Level:
    if device.type != "cuda":
        return Level(batch, height, width, params, device)
    return _kept.get((batch, height, width, params, device), lambda: _crowded(device))


def _crowded(device: torch.device) -> bool:
    return torch.cuda.memory_reserved(device) > torch.cuda.get_device_properties(device).total_memory // 2


class Kept:
    """The levels used last: ``FEWEST`` at least, more as long as memory is not crowded, since videos of many sizes come in any order."""

    def __init__(self, make: Callable[..., Level]) -> None:
        self._make = make
        self._levels: dict[Key, Level] = {}  # the longest unused first

    def get(self, key: Key, crowded: Callable[[], bool]) -> Level:
        """The level of ``key``, made if it is not here."""
        level = self._levels.pop(key, None)
        if level is None:
            while len(self._levels) >= FEWEST and crowded():
                self._levels.pop(next(iter(self._levels)))
            level = self._make(*key)
        self._levels[key] = level
        return level


def _graphs(batch: int, height: int, width: int, params: Tvl1Params, device: torch.device) -> Level:
    """Buffers and graphs of a scale, to be kept for the next batch, since making them costs more than a batch."""
    for what, kind in (("Triton kernels", _fused_level), ("CUDA graphs", lambda: Level)):
        try:
            level = kind()(batch, height, width, params, device)
            level.capture()
            return level
        except Exception as error:  # of whatever kind: the torch operations do not need it
            warnings.warn(f"TV-L1 flow does without {what}, slower: {type(error).__name__}: {error}", stacklevel=2)
    return Level(batch, height, width, params, device)


_kept = Kept(_graphs)


def _fused_level() -> type[Level]:
    from extract.flow.tvl1.fused import FusedLevel

    return FusedLevel
