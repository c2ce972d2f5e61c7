"""TV-L1 optical flow (Zach, Pock and Bischof 2007), solved as Sánchez Pérez, Meinhardt-Llopis and Facciolo 2013 (IPOL) and OpenCV do.

The flow u = (u1, u2) from image I0 to image I1 minimises, over all pixels, ``|∇u1| + |∇u2| + λ |I1(x + u) - I0(x)|``. From coarse to fine,
over ``scales`` images of which each is ``scale_step`` times as large as the one before; at each, ``warps`` times:

1. Sample I1 and its central differences at x + u (cubic convolution, zero outside), and linearise there, at that u = u⁰:
   ρ(u) = I1(x + u⁰) + <∇I1(x + u⁰), u - u⁰> - I0.
2. At most ``outer_iterations`` times: replace u by its median in squares of ``median_filtering`` pixels, then, at most ``inner_iterations``
   times, with p = 0 at the beginning of a scale and forward differences ∇ whose negative adjoint is div:

   =========  ==========================================================================
   threshold  v = u - clamp(ρ(u) / |∇I1|², -λθ, λθ) ∇I1
   primal     u = v + θ div p
   dual       q = (τ/θ) ∇u, then p = (p + q) / (1 + |q|); each component of u has its own
   =========  ==========================================================================

   until an iteration changes u by no more than ``epsilon`` pixels, as a root mean square over the image.

``native.c`` is this for a processor, one pair a thread, compiled at first use where there is a C compiler; ``steps.py`` as torch operations
for everything else. Both compute the same operations in the same order, so their flows are the same, bit for bit, and a pair's flow is the
same whatever is in its batch. OpenCV's illumination term (``gamma``, none there by default) is left out. This module imports no torch.
"""

import multiprocessing
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

import cv2
import numpy as np

from extract.flow import FLOWS
from extract.flow.tvl1 import native
from store.digest import Checked, demand, from_dict, setting
from store.errors import FeatureError

if TYPE_CHECKING:
    import torch

VERSION = "1"  # to be raised when a flow changes in any bit
SMALLEST_LEVEL = 16  # pixels; no level below the full size has a shorter side, as in OpenCV
SMALLEST_SIDE = 2  # pixels; across a line of pixels there is no gradient
MOST_SCALES = 64


@dataclass(frozen=True)
class Tvl1Params(Checked):
    """The parameters of the equations, with OpenCV's defaults; grey values are from 0 to 255. Wrong ones raise ``SpecError``."""

    tau: float = setting(0.25, "time step of the dual problem; it converges up to 0.25")
    lambda_: float = setting(0.15, "weight of the difference of grey values against the flow's variation; smaller is smoother")
    theta: float = setting(0.3, "how far the smooth u and the matching v may be apart")
    scales: int = setting(5, "images from coarse to fine; fewer where their short side would be below 16 pixels")
    warps: int = setting(5, "linearisations at each scale")
    epsilon: float = setting(0.01, "root mean square change of the flow, in pixels of the scale, that ends a warp; 0 runs every iteration")
    inner_iterations: int = setting(30, "iterations between two medians")
    outer_iterations: int = setting(10, "medians in a warp")
    scale_step: float = setting(0.8, "size of a scale over the size of the next finer one")
    median_filtering: int = setting(5, "side of the median's square in pixels: 5, 3, or 1 for no median")

    def check(self) -> None:
        for name in ("tau", "lambda_", "theta"):
            value = getattr(self, name)
            demand(1e-6 <= value <= 1e6, f"TV-L1: {name.rstrip('_')} is {value}; it must be from 1e-6 to 1e6")
        for name in ("warps", "inner_iterations", "outer_iterations"):
            demand(getattr(self, name) >= 1, f"TV-L1: {name} is {getattr(self, name)}; it must be at least 1")
        demand(1 <= self.scales <= MOST_SCALES, f"TV-L1: scales is {self.scales}; it must be from 1 to {MOST_SCALES}")
        demand(self.epsilon >= 0, f"TV-L1: epsilon is {self.epsilon}; it must be 0 (run every iteration) or positive")
        demand(0 < self.scale_step < 1, f"TV-L1: scale_step is {self.scale_step}; it must be between 0 and 1")
        demand(self.median_filtering in (1, 3, 5), f"TV-L1: median_filtering is {self.median_filtering}; it must be 1 (none), 3 or 5")

    def sizes(self, height: int, width: int) -> list[tuple[int, int]]:
        """(height, width) of each scale's images, finest first; halves are rounded to even, as in OpenCV."""
        sizes = [(height, width)]
        while len(sizes) < self.scales:
            smaller = (round(sizes[-1][0] * self.scale_step), round(sizes[-1][1] * self.scale_step))
            if min(smaller) < SMALLEST_LEVEL:
                break
            sizes.append(smaller)
        return sizes


DEFAULTS = Tvl1Params()


def tvl1(first: "torch.Tensor", second: "torch.Tensor", params: Tvl1Params = DEFAULTS) -> "torch.Tensor":
    """Motion from each image of ``first`` to that of ``second``: float32 [B, 2, H, W] on their device, (x, y) displacements in pixels.

    Both are grey, [B, H, W], uint8 or float32, of values from 0 to 255 in either type; pairs may come from any videos. On a processor
    ``torch.get_num_threads()`` threads share the pairs; memory beyond the result is bounded whatever B is. Raises ``FeatureError`` for
    images of different shapes, types or devices, of less than two pixels a side, or with NaN or Inf.
    """
    import torch

    from extract.flow.tvl1.solve import solve

    _check(first, second)
    first, second = first.detach(), second.detach()
    if first.device.type == "cpu" and native.available():
        return torch.from_numpy(native.solve(first.numpy(), second.numpy(), params, torch.get_num_threads()))
    return solve(first, second, params)


def _check(first: "torch.Tensor", second: "torch.Tensor") -> None:
    import torch

    for what, one, other in [
        ("shape", list(first.shape), list(second.shape)),
        ("type", first.dtype, second.dtype),
        ("device", first.device, second.device),
    ]:
        if one != other:
            raise FeatureError(f"TV-L1: the first images' {what} is {one}, the second's {other}; they must be the same")
    if first.ndim != 3 or first.dtype not in (torch.uint8, torch.float32):
        raise FeatureError(f"TV-L1 takes grey images [B, H, W], uint8 or float32 from 0 to 255, not {first.dtype} {list(first.shape)}")
    if min(first.shape[1:]) < SMALLEST_SIDE:
        raise FeatureError(f"TV-L1: the images are {first.shape[1]} x {first.shape[2]} pixels; each side must be at least {SMALLEST_SIDE}")
    if first.is_floating_point():
        for images in (first, second):
            bad = (~torch.isfinite(images)).flatten(1).any(1).nonzero().flatten().tolist()
            if bad:
                raise FeatureError(
                    f"TV-L1: NaN or Inf in image {bad[0]} of {len(images)} ({len(bad)} such); decode it anew or leave it out"
                )


class Tvl1:
    """TV-L1 of one pair at a time, for decode workers: one thread, and no torch where ``native`` is available."""

    def __init__(self, params: Tvl1Params) -> None:
        self._params = params
        native.available()  # compiles at the first use on a machine, before there are workers that would each do so

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second``, see ``FlowMethod``; images of one pixel a side are extended by their border."""
        height, width = first.shape
        bottom, right = max(0, SMALLEST_SIDE - height), max(0, SMALLEST_SIDE - width)
        if bottom or right:
            first, second = (cv2.copyMakeBorder(image, 0, bottom, 0, right, cv2.BORDER_REPLICATE) for image in (first, second))
        return np.ascontiguousarray(self._flow(first, second)[:, :height, :width].transpose(1, 2, 0))

    def pairs_at_once(self, height: int, width: int, device: "torch.device") -> int:
        """See ``extract.flow_device.DeviceMethod``."""
        from extract.flow.tvl1.solve import pairs_of_a_batch

        return pairs_of_a_batch(height, width)

    def batch(self, first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
        """Motion from each image of ``first`` to that of ``second``, grey uint8 [B, 1, H, W]: float32 [B, 2, H, W], the same as of each
        pair alone; images of one pixel a side are extended by their border."""
        height, width = first.shape[2:]
        sides = [image[:, 0] for image in (first, second)]
        for axis in (1, 2):
            short = max(0, SMALLEST_SIDE - first.shape[axis + 1])
            sides = [side.repeat_interleave(1 + short, axis) for side in sides]
        return tvl1(sides[0], sides[1], self._params)[:, :, :height, :width]

    def _flow(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        if native.available():
            return native.solve(first[None], second[None], self._params, 1)[0]
        import torch

        if multiprocessing.parent_process() is not None:
            torch.set_num_threads(1)  # the workers are the parallelism
        pair = [torch.from_numpy(np.ascontiguousarray(image))[None] for image in (first, second)]
        return tvl1(pair[0], pair[1], self._params)[0].numpy()


class Tvl1Family:
    """Builds ``Tvl1``; its parameters are those of ``Tvl1Params``, with ``lambda`` for ``lambda_``."""

    def __init__(self) -> None:
        self.version = VERSION
        self.defaults: Mapping[str, float] = {field.name.rstrip("_"): getattr(DEFAULTS, field.name) for field in fields(DEFAULTS)}

    def __call__(self, params: Mapping[str, float]) -> Tvl1:
        """Build the method; a value that cannot be used is a ``SpecError``."""
        return Tvl1(from_dict(Tvl1Params, {{"lambda": "lambda_"}.get(name, name): value for name, value in params.items()}, "flow.params "))


FLOWS.register("tvl1")(Tvl1Family())
