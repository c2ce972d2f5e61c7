"""The steps of TV-L1 as torch operations on batches, on any device; ``native.c`` computes the same operations in the same order.

Images are [B, H, W], flows u [B, 2, H, W] (x, y), dual variables p [B, 2, 2, H, W] (component of u, direction), all float32. Every sum and
product is rounded by itself, in the order written here: nothing is fused, so that a processor, a GPU and C give the same bits.
"""

import torch

EPSILON = torch.finfo(torch.float32).eps  # the smallest |∇I1|² to divide by
CUBIC = -0.75  # a in cubic convolution, as in OpenCV
RING = 4  # zeros around what is warped: a place beyond all four taps of the border sees only them
Network = list[tuple[int, int]]
SORT_3: Network = [(0, 1), (1, 2), (0, 1)]
SORT_5: Network = [(0, 1), (3, 4), (2, 4), (2, 3), (1, 4), (0, 3), (0, 2), (1, 3), (1, 2)]
SORT_7: Network = [(0, 6), (2, 3), (4, 5), (0, 2), (1, 4), (3, 6), (0, 1), (2, 5), (3, 4), (1, 2), (4, 6), (2, 3), (4, 5), (1, 2), (3, 4)]
# SORT_7 leaves out what comes after its fourth number is in place


def resize(planes: torch.Tensor, height: int, width: int, scale_y: float, scale_x: float, factor: float = 1.0) -> torch.Tensor:
    """Bilinear [..., h, w] -> [..., height, width], times ``factor``; the scales are source pixels a pixel.

    Pixel x is at (x + 1/2) scale - 1/2 of the source, whose border is repeated; nothing is averaged, as in OpenCV.
    """
    left, right, weight = _coordinates(planes, width, scale_x, planes.shape[-1])
    across = planes[..., left] * (1 - weight) + planes[..., right] * weight
    top, bottom, weight = _coordinates(planes, height, scale_y, planes.shape[-2])
    weight = weight[:, None]
    return (across[..., top, :] * (1 - weight) + across[..., bottom, :] * weight) * factor


def _coordinates(planes: torch.Tensor, count: int, scale: float, size: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """For each of ``count`` pixels, its two neighbours among ``size`` and the second's weight; computed in double precision on the host."""
    place = (torch.arange(count, dtype=torch.float64) + 0.5) * scale - 0.5
    whole = place.floor()
    weight = torch.where((whole < 0) | (whole >= size - 1), 0.0, place - whole).to(torch.float32)
    first = whole.clamp(0, size - 1).long()
    return first.to(planes.device), (first + 1).clamp(max=size - 1).to(planes.device), weight.to(planes.device)


def with_differences(image: torch.Tensor) -> torch.Tensor:
    """I [B, H, W] -> (I, dI/dx, dI/dy) [B, 3, H + 8, W + 8]: central differences, the border repeated, in a ring of zeros."""
    batch, height, width = image.shape
    out = image.new_zeros(batch, 3, height + 2 * RING, width + 2 * RING)
    inside = out[..., RING:-RING, RING:-RING]
    inside[:, 0] = image
    columns, rows = torch.arange(width, device=image.device), torch.arange(height, device=image.device)
    inside[:, 1] = 0.5 * (image[..., (columns + 1).clamp(max=width - 1)] - image[..., (columns - 1).clamp(min=0)])
    inside[:, 2] = 0.5 * (image[:, (rows + 1).clamp(max=height - 1)] - image[:, (rows - 1).clamp(min=0)])
    return out


def warp(source: torch.Tensor, u: torch.Tensor) -> torch.Tensor:
    """Sample ``with_differences`` at x + u by cubic convolution (Keys 1981), zero outside the image: [B, 3, H, W]."""
    batch, _, height, width = u.shape
    places = []
    for component, size, shape in ((0, width, (1, width)), (1, height, (height, 1))):
        place = torch.arange(size, device=u.device, dtype=torch.float32).view(shape) + u[:, component]
        places.append(place.nan_to_num_(1 - RING).clamp_(1 - RING, size + 1))  # absurd parameters can lead beyond all numbers
    whole = [place.floor() for place in places]
    (ax, bx, cx, dx), (ay, by, cy, dy) = (cubic(place - floor) for place, floor in zip(places, whole, strict=True))
    stride = source.shape[-1]
    corner = (whole[1].long() + (RING - 1)) * stride + (whole[0].long() + (RING - 1))
    planes = source.flatten(2)

    def tap(j: int, i: int) -> torch.Tensor:
        index = (corner + (j * stride + i)).view(batch, 1, -1)
        return planes.gather(2, index.expand(-1, 3, -1)).view(batch, 3, height, width)

    def row(j: int) -> torch.Tensor:
        return ((tap(j, 0) * ax + tap(j, 1) * bx) + tap(j, 2) * cx) + tap(j, 3) * dx

    return ((row(0) * ay + row(1) * by) + row(2) * cy) + row(3) * dy


def cubic(t: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """Weights of the four pixels around the fraction t in [0, 1), each [B, 1, H, W]."""
    t = t[:, None]
    s = 1 - t
    first = CUBIC * t * s * s
    second = ((CUBIC + 2) * t - (CUBIC + 3)) * t * t + 1
    fourth = CUBIC * s * t * t
    return first, second, ((1 - first) - second) - fourth, fourth


def residual(warped: torch.Tensor, u: torch.Tensor, reference: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(ρ(0), |∇I1|² but at least float32's epsilon), both [B, H, W], of I1 and ∇I1 sampled at x + u."""
    image, wx, wy = warped.unbind(1)
    return ((image - wx * u[:, 0]) - wy * u[:, 1]) - reference, (wx * wx + wy * wy).clamp(min=EPSILON)


def threshold(u: torch.Tensor, gradient: torch.Tensor, rho: torch.Tensor, square: torch.Tensor, l_t: float) -> torch.Tensor:
    """v = u - clamp(ρ(u) / |∇I1|², -λθ, λθ) ∇I1, with the gradient [B, 2, H, W]."""
    products = gradient * u
    step = (((rho + products[:, 0]) + products[:, 1]) / square).clamp(-l_t, l_t)
    return u - step[:, None] * gradient


def divergence(p: torch.Tensor) -> torch.Tensor:
    """div p [B, 2, H, W] by backward differences, p being zero before the first pixel."""
    across, down = p[:, :, 0].clone(), p[:, :, 1].clone()
    across[..., 1:] -= p[:, :, 0, :, :-1]
    down[..., 1:, :] -= p[:, :, 1, :-1]
    return across.add_(down)


def dual(p: torch.Tensor, u: torch.Tensor, taut: float) -> torch.Tensor:
    """q = (τ/θ) ∇u by forward differences, zero across the last pixel; (p + q) / (1 + |q|)."""
    q = torch.zeros_like(p)
    torch.sub(u[..., 1:], u[..., :-1], out=q[:, :, 0, :, :-1])
    torch.sub(u[..., 1:, :], u[..., :-1, :], out=q[:, :, 1, :-1])
    q *= taut
    squares = q * q
    scale = square_root(squares[:, :, 0].add_(squares[:, :, 1])).add_(1).reciprocal_()
    return q.add_(p).mul_(scale[:, :, None])


def square_root(x: torch.Tensor) -> torch.Tensor:
    """The correctly rounded root of float32. On processors torch takes MKL's, which is not; the rounded root in double precision is it."""
    return x.double().sqrt_().float() if x.device.type == "cpu" else x.sqrt()


def median(planes: torch.Tensor, size: int) -> torch.Tensor:
    """Median of size x size pixels (3 or 5) of planes [..., H, W], the border repeated.

    Columns are sorted once for all windows that share them. With the rows of a window sorted too, element (i, j) of 5 x 5 has
    (i + 1)(j + 1) - 1 numbers below it in order and (5 - i)(5 - j) - 1 above, so only the thirteen on the three middle antidiagonals can be
    the median. Of the four on the first, at least seven of the thirteen are no less than any but the largest; of the third likewise.
    """
    *_, height, width = planes.shape
    reach, network = size // 2, SORT_3 if size == 3 else SORT_5
    steps = range(-reach, reach + 1)
    rows, columns = (torch.arange(count, device=planes.device) for count in (height, width + 2 * reach))
    stretched = planes[..., (columns - reach).clamp(0, width - 1)]
    sorted_columns = select([stretched[..., (rows + step).clamp(0, height - 1), :] for step in steps], network, range(size))

    def row(rank: int, *wanted: int) -> list[torch.Tensor]:
        return select([sorted_columns[rank][..., reach + step : reach + step + width] for step in steps], network, wanted)

    if size == 3:
        (low,), (middle,), (high,) = row(0, 2), row(1, 1), row(2, 0)
        return select([low, middle, high], SORT_3, [1])[0]
    (a3, a4), (b2, b3, b4), (c1, c2, c3) = row(0, 3, 4), row(1, 2, 3, 4), row(2, 1, 2, 3)
    (d0, d1, d2), (e0, e1) = row(3, 0, 1, 2), row(4, 0, 1)
    low, high = a3.maximum(b2).maximum(c1.maximum(d0)), b4.minimum(c3).minimum(d2.minimum(e1))
    return select([low, a4, b3, c2, d1, e0, high], SORT_7, [3])[0]


def select(values: list[torch.Tensor], network: Network, wanted: range | list[int] | tuple[int, ...]) -> list[torch.Tensor]:
    """The numbers of the ranks ``wanted`` by a sorting network, element by element; computes no minimum or maximum that none needs."""
    values, needed = list(values), set(wanted)
    plan = []
    for low, high in reversed(network):
        plan.append((low, high, low in needed, high in needed))
        if low in needed or high in needed:
            needed |= {low, high}
    for low, high, keep_low, keep_high in reversed(plan):
        a, b = values[low], values[high]
        values[low], values[high] = torch.minimum(a, b) if keep_low else a, torch.maximum(a, b) if keep_high else b
    return [values[rank] for rank in wanted]
