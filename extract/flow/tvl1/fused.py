"""The steps of TV-L1 as Triton kernels for CUDA: each reads its planes once and skips the pairs that have ended.

The arithmetic is that of ``steps.py``, operation for operation: divisions and roots are rounded correctly, and nothing is contracted to
fused multiply-adds (``enable_fp_fusion``), so the bits are the same. A program computes ``PIXELS`` pixels of one pair, of planes [H, W]
that lie one after another. torch's wheels with CUDA bring Triton; where it is missing, ``solve.py`` uses the torch operations.
"""

import torch
import triton
import triton.language as tl

from extract.flow.tvl1 import Tvl1Params
from extract.flow.tvl1.solve import Level
from extract.flow.tvl1.steps import CUBIC, EPSILON, RING

PIXELS = 512
_EPSILON, _CUBIC, _RING = tl.constexpr(EPSILON), tl.constexpr(CUBIC), tl.constexpr(RING)


@triton.jit
def linearise_kernel(source, u, reference, gradient, rho, present, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """``steps.warp`` and ``steps.residual``: sets ∇I1 [2, H, W] and ρ(0) of each pair that is there."""
    pair = tl.program_id(1).to(tl.int64)
    if tl.load(present + pair) != 0:
        area = height * width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < area
        u1 = tl.load(u + pair * 2 * area + pixel, inside, 0.0)
        u2 = tl.load(u + (pair * 2 + 1) * area + pixel, inside, 0.0)
        x = tl.minimum(tl.maximum((pixel % width).to(tl.float32) + u1, 1.0 - _RING), (width + 1).to(tl.float32))
        y = tl.minimum(tl.maximum((pixel // width).to(tl.float32) + u2, 1.0 - _RING), (height + 1).to(tl.float32))
        ax, bx, cx, dx = cubic(x - tl.floor(x))
        ay, by, cy, dy = cubic(y - tl.floor(y))
        stride = width + 2 * _RING
        plane = stride * (height + 2 * _RING)
        corner = source + pair * 3 * plane + (tl.floor(y).to(tl.int32) + (_RING - 1)) * stride + (tl.floor(x).to(tl.int32) + (_RING - 1))
        image = sample(corner, stride, inside, ax, bx, cx, dx, ay, by, cy, dy)
        wx = sample(corner + plane, stride, inside, ax, bx, cx, dx, ay, by, cy, dy)
        wy = sample(corner + 2 * plane, stride, inside, ax, bx, cx, dx, ay, by, cy, dy)
        rest = ((image - wx * u1) - wy * u2) - tl.load(reference + pair * area + pixel, inside, 0.0)
        tl.store(gradient + pair * 2 * area + pixel, wx, inside)
        tl.store(gradient + (pair * 2 + 1) * area + pixel, wy, inside)
        tl.store(rho + pair * area + pixel, rest, inside)


@triton.jit
def cubic(t):  # type: ignore[no-untyped-def]
    """``steps.cubic``."""
    s = 1.0 - t
    first = _CUBIC * t * s * s
    second = ((_CUBIC + 2.0) * t - (_CUBIC + 3.0)) * t * t + 1.0
    fourth = _CUBIC * s * t * t
    return first, second, ((1.0 - first) - second) - fourth, fourth


@triton.jit
def sample(corner, stride, inside, ax, bx, cx, dx, ay, by, cy, dy):  # type: ignore[no-untyped-def]
    """The sixteen pixels from ``corner`` on, weighted."""
    first = sample_row(corner, inside, ax, bx, cx, dx)
    second = sample_row(corner + stride, inside, ax, bx, cx, dx)
    third = sample_row(corner + 2 * stride, inside, ax, bx, cx, dx)
    fourth = sample_row(corner + 3 * stride, inside, ax, bx, cx, dx)
    return ((first * ay + second * by) + third * cy) + fourth * dy


@triton.jit
def sample_row(corner, inside, ax, bx, cx, dx):  # type: ignore[no-untyped-def]
    """Four pixels of a row, weighted."""
    a, b = tl.load(corner, inside, 0.0), tl.load(corner + 1, inside, 0.0)
    c, d = tl.load(corner + 2, inside, 0.0), tl.load(corner + 3, inside, 0.0)
    return ((a * ax + b * bx) + c * cx) + d * dx


@triton.jit
def primal_kernel(u, p, gradient, rho, active, change, height, width, l_t, theta, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """``steps.threshold``, and u = v + θ div p in place; each program's sum of squared changes goes to ``change`` [B, programs]."""
    pair = tl.program_id(1).to(tl.int64)
    if tl.load(active + pair) != 0:
        area = height * width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < area
        u1_at, u2_at = u + pair * 2 * area + pixel, u + (pair * 2 + 1) * area + pixel
        u1, u2 = tl.load(u1_at, inside, 0.0), tl.load(u2_at, inside, 0.0)
        wx = tl.load(gradient + pair * 2 * area + pixel, inside, 0.0)
        wy = tl.load(gradient + (pair * 2 + 1) * area + pixel, inside, 0.0)
        square = tl.maximum(wx * wx + wy * wy, _EPSILON)
        residual = (tl.load(rho + pair * area + pixel, inside, 0.0) + wx * u1) + wy * u2
        step = tl.minimum(tl.maximum(tl.math.div_rn(residual, square), -l_t), l_t)
        new1 = (u1 - step * wx) + theta * divergence(p + pair * 4 * area, pixel, inside, area, width)
        new2 = (u2 - step * wy) + theta * divergence(p + (pair * 4 + 2) * area, pixel, inside, area, width)
        change1, change2 = new1 - u1, new2 - u2
        squares = tl.where(inside, change1 * change1 + change2 * change2, 0.0)
        tl.store(change + pair * tl.num_programs(0) + tl.program_id(0), tl.sum(squares.to(tl.float64), 0))
        tl.store(u1_at, new1, inside)
        tl.store(u2_at, new2, inside)


@triton.jit
def divergence(p, pixel, inside, area, width):  # type: ignore[no-untyped-def]
    """``steps.divergence`` of one component."""
    left = tl.load(p + pixel - 1, inside & (pixel % width != 0), 0.0)
    above = tl.load(p + area + pixel - width, inside & (pixel >= width), 0.0)
    return (tl.load(p + pixel, inside, 0.0) - left) + (tl.load(p + area + pixel, inside, 0.0) - above)


@triton.jit
def dual_kernel(u, p, active, height, width, taut, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """``steps.dual`` in place."""
    pair = tl.program_id(1).to(tl.int64)
    if tl.load(active + pair) != 0:
        area = height * width
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < area
        for component in tl.static_range(2):
            at = u + (pair * 2 + component) * area + pixel
            here = tl.load(at, inside, 0.0)
            qx = taut * tl.where(pixel % width != width - 1, tl.load(at + 1, inside & (pixel % width != width - 1), 0.0) - here, 0.0)
            qy = taut * tl.where(pixel < area - width, tl.load(at + width, inside & (pixel < area - width), 0.0) - here, 0.0)
            scale = tl.math.div_rn(1.0, 1.0 + tl.math.sqrt_rn(qx * qx + qy * qy))
            px_at, py_at = p + (pair * 4 + 2 * component) * area + pixel, p + (pair * 4 + 2 * component + 1) * area + pixel
            tl.store(px_at, (tl.load(px_at, inside, 0.0) + qx) * scale, inside)
            tl.store(py_at, (tl.load(py_at, inside, 0.0) + qy) * scale, inside)


@triton.jit
def median_kernel(u, out, active, height, width, PIXELS: tl.constexpr):  # type: ignore[no-untyped-def]
    """``steps.median`` of 5 x 5 pixels from ``u`` to ``out``; program (i, pair, component)."""
    pair, component = tl.program_id(1).to(tl.int64), tl.program_id(2)
    if tl.load(active + pair) != 0:
        area = height * width
        plane = (pair * 2 + component) * area
        pixel = tl.program_id(0) * PIXELS + tl.arange(0, PIXELS)
        inside = pixel < area
        x, y = pixel % width, pixel // width
        a0, a1, a2, a3, a4 = column(u + plane, x - 2, y, inside, height, width)
        b0, b1, b2, b3, b4 = column(u + plane, x - 1, y, inside, height, width)
        c0, c1, c2, c3, c4 = column(u + plane, x, y, inside, height, width)
        d0, d1, d2, d3, d4 = column(u + plane, x + 1, y, inside, height, width)
        e0, e1, e2, e3, e4 = column(u + plane, x + 2, y, inside, height, width)
        a0, b0, c0, d0, e0 = sort_5(a0, b0, c0, d0, e0)
        a1, b1, c1, d1, e1 = sort_5(a1, b1, c1, d1, e1)
        a2, b2, c2, d2, e2 = sort_5(a2, b2, c2, d2, e2)
        a3, b3, c3, d3, e3 = sort_5(a3, b3, c3, d3, e3)
        a4, b4, c4, d4, e4 = sort_5(a4, b4, c4, d4, e4)
        low = tl.maximum(tl.maximum(d0, c1), tl.maximum(b2, a3))
        high = tl.minimum(tl.minimum(e1, d2), tl.minimum(c3, b4))
        tl.store(out + plane + pixel, median_7(low, e0, d1, c2, b3, a4, high), inside)


@triton.jit
def column(plane, x, y, inside, height, width):  # type: ignore[no-untyped-def]
    """Five pixels of column x around row y, sorted; the border is repeated."""
    at = plane + tl.minimum(tl.maximum(x, 0), width - 1)
    a = tl.load(at + tl.maximum(y - 2, 0) * width, inside, 0.0)
    b = tl.load(at + tl.maximum(y - 1, 0) * width, inside, 0.0)
    c = tl.load(at + y * width, inside, 0.0)
    d = tl.load(at + tl.minimum(y + 1, height - 1) * width, inside, 0.0)
    e = tl.load(at + tl.minimum(y + 2, height - 1) * width, inside, 0.0)
    return sort_5(a, b, c, d, e)


@triton.jit
def sort_2(a, b):  # type: ignore[no-untyped-def]
    """(smaller, larger)."""
    return tl.minimum(a, b), tl.maximum(a, b)


@triton.jit
def sort_5(a, b, c, d, e):  # type: ignore[no-untyped-def]
    """``steps.SORT_5``; what is not used of it is not computed."""
    a, b = sort_2(a, b)
    d, e = sort_2(d, e)
    c, e = sort_2(c, e)
    c, d = sort_2(c, d)
    b, e = sort_2(b, e)
    a, d = sort_2(a, d)
    a, c = sort_2(a, c)
    b, d = sort_2(b, d)
    b, c = sort_2(b, c)
    return a, b, c, d, e


@triton.jit
def median_7(a, b, c, d, e, f, g):  # type: ignore[no-untyped-def]
    """``steps.SORT_7``."""
    a, g = sort_2(a, g)
    c, d = sort_2(c, d)
    e, f = sort_2(e, f)
    a, c = sort_2(a, c)
    b, e = sort_2(b, e)
    d, g = sort_2(d, g)
    a, b = sort_2(a, b)
    c, f = sort_2(c, f)
    d, e = sort_2(d, e)
    b, c = sort_2(b, c)
    e, g = sort_2(e, g)
    c, d = sort_2(c, d)
    e, f = sort_2(e, f)
    d, e = sort_2(d, e)
    return d


class FusedLevel(Level):
    """``Level`` by these kernels."""

    def __init__(self, batch: int, height: int, width: int, params: Tvl1Params, device: torch.device) -> None:
        super().__init__(batch, height, width, params, device)
        self.programs = triton.cdiv(height * width, PIXELS)
        self.change = torch.zeros(batch, self.programs, dtype=torch.float64, device=device)
        self.smoothed = torch.zeros_like(self.u)

    def linearise(self) -> None:
        buffers = (self.source, self.u, self.reference, self.gradient, self.rho, self.present)
        linearise_kernel[self._grid()](*buffers, *self.u.shape[2:], PIXELS=PIXELS, enable_fp_fusion=False)
        self.active.copy_(self.present)

    def smooth(self) -> None:
        if self.params.median_filtering != 5:
            super().smooth()
            return
        buffers = (self.u, self.smoothed, self.active)
        median_kernel[(*self._grid(), 2)](*buffers, *self.u.shape[2:], PIXELS=PIXELS, enable_fp_fusion=False)
        self._keep(self.u, self.smoothed)

    def iterate(self, count: int) -> None:
        params, size = self.params, self.u.shape[2:]
        primal = (self.u, self.p, self.gradient, self.rho, self.active, self.change, *size, params.lambda_ * params.theta, params.theta)
        for _ in range(count):
            primal_kernel[self._grid()](*primal, PIXELS=PIXELS, enable_fp_fusion=False)
            dual_kernel[self._grid()](self.u, self.p, self.active, *size, params.tau / params.theta, PIXELS=PIXELS, enable_fp_fusion=False)
            self.active &= self.change.sum(1) > self.enough
        torch.any(self.active, 0, keepdim=True, out=self.going)

    def _grid(self) -> tuple[int, int]:
        return self.programs, len(self.present)
