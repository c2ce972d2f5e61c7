"""The steps of TV-L1 against the equations in numpy, against OpenCV's functions, and against what they are meant to minimise."""

import itertools

import cv2
import numpy as np
import pytest
import torch

from extract.flow.tvl1 import steps

RANDOM = np.random.default_rng(3)
SIZES = [(2, 2), (3, 5), (9, 4), (17, 23)]


def noise(*shape: int, scale: float = 1.0) -> torch.Tensor:
    return torch.from_numpy(RANDOM.normal(0, scale, shape).astype(np.float32))


def smooth(height: int, width: int) -> np.ndarray:
    """A picture without sharp edges, about 0 to 255: float32."""
    return cv2.GaussianBlur(RANDOM.uniform(-1500, 1765, (height, width)).astype(np.float32), (0, 0), 3)


def keys(distance: np.ndarray) -> np.ndarray:
    """Cubic convolution's kernel, Keys 1981, equation 4 with a = -3/4."""
    s, a = np.abs(distance), -0.75
    near, far = (a + 2) * s**3 - (a + 3) * s**2 + 1, a * s**3 - 5 * a * s**2 + 8 * a * s - 4 * a
    return np.where(s <= 1, near, np.where(s < 2, far, 0))


def cubic_at(image: np.ndarray, y: float, x: float) -> float:
    """The image at a place, zero outside it: the kernel over every pixel there is."""
    rows, columns = keys(np.arange(image.shape[0]) - y), keys(np.arange(image.shape[1]) - x)
    return float(rows @ image.astype(np.float64) @ columns)


# Medians


@pytest.mark.parametrize("size", [3, 5])
@pytest.mark.parametrize("shape", SIZES)
def test_medians_are_opencvs_and_numpys(size: int, shape: tuple[int, int]) -> None:
    planes = noise(2, 3, *shape)
    ours = steps.median(planes, size).numpy()
    reach = size // 2
    windows = np.lib.stride_tricks.sliding_window_view(
        np.pad(planes.numpy(), [(0, 0)] * 2 + [(reach, reach)] * 2, "edge"), (size, size), (2, 3)
    )
    assert np.array_equal(ours, np.median(windows, (-2, -1)))
    for plane, filtered in zip(planes.flatten(0, 1).numpy(), ours.reshape(-1, *shape), strict=True):
        assert np.array_equal(filtered, cv2.medianBlur(plane, size))


def test_networks_sort_every_order_of_zeros_and_ones() -> None:
    """A network that sorts all zeros and ones sorts everything (Knuth's 0-1 principle)."""
    for network, count, ranks in ((steps.SORT_3, 3, range(3)), (steps.SORT_5, 5, range(5)), (steps.SORT_7, 7, [3])):
        values = torch.tensor(list(itertools.product((0.0, 1.0), repeat=count)))
        for rank in ranks:  # alone, since what a rank does not need is left out
            (chosen,) = steps.select(list(values.unbind(1)), network, [rank])
            assert torch.equal(chosen, values.sort(1).values[:, rank])


def test_the_median_of_25_is_right_for_every_number_of_ones_in_each_column() -> None:
    ones = torch.tensor(list(itertools.product(range(6), repeat=5)))
    windows = (torch.arange(5)[:, None] < ones[:, None, :]).float()
    assert torch.equal(steps.median(windows, 5)[:, 2, 2], (ones.sum(1) >= 13).float())


# Sampling


def test_differences_are_central_with_the_border_repeated() -> None:
    image = noise(2, 6, 7)
    planes = steps.with_differences(image).numpy()
    padded = np.pad(image.numpy(), [(0, 0), (1, 1), (1, 1)], "edge")
    ring = steps.RING
    inside = planes[..., ring:-ring, ring:-ring]
    assert np.array_equal(inside[:, 0], image.numpy())
    assert np.array_equal(inside[:, 1], (padded[:, 1:-1, 2:] - padded[:, 1:-1, :-2]) / 2)
    assert np.array_equal(inside[:, 2], (padded[:, 2:, 1:-1] - padded[:, :-2, 1:-1]) / 2)
    assert np.count_nonzero(planes) == np.count_nonzero(inside)


def test_no_motion_samples_the_pixels_themselves() -> None:
    source = steps.with_differences(noise(2, 5, 8, scale=100))
    assert torch.equal(steps.warp(source, torch.zeros(2, 2, 5, 8)), source[..., steps.RING : -steps.RING, steps.RING : -steps.RING])


def test_warping_is_cubic_convolution_with_zeros_outside() -> None:
    image, u = noise(1, 7, 9, scale=100), noise(1, 2, 7, 9, scale=4)
    planes = steps.with_differences(image)
    warped, originals = steps.warp(planes, u)[0].numpy(), planes[0, :, steps.RING : -steps.RING, steps.RING : -steps.RING].numpy()
    for y, x in itertools.product(range(7), range(9)):
        expected = [cubic_at(plane, y + float(u[0, 1, y, x]), x + float(u[0, 0, y, x])) for plane in originals]
        assert warped[:, y, x] == pytest.approx(expected, abs=2e-4)


def test_warping_is_opencvs() -> None:
    image, u = smooth(40, 50), noise(2, 40, 50, scale=5).numpy()
    ours = steps.warp(steps.with_differences(torch.from_numpy(image)[None]), torch.from_numpy(u)[None])[0, 0].numpy()
    y, x = np.mgrid[:40, :50].astype(np.float32)
    theirs = cv2.remap(image, x + u[0], y + u[1], cv2.INTER_CUBIC)
    assert np.abs(ours - theirs).max() < 4  # OpenCV 4 rounds places to 1/32 pixel, OpenCV 5 does not
    assert np.abs(ours - theirs).mean() < 0.2


@pytest.mark.parametrize("far", [30.0, -30.0, 1e30, -1e30])
def test_far_outside_everything_is_zero(far: float) -> None:
    warped = steps.warp(steps.with_differences(noise(1, 6, 6) + 100), torch.full((1, 2, 6, 6), far))
    assert torch.count_nonzero(warped) == 0


@pytest.mark.parametrize("size", [(32, 40), (16, 17), (50, 63), (21, 20)])
def test_resizing_is_opencvs_bilinear(size: tuple[int, int]) -> None:
    image = smooth(40, 50)
    ours = steps.resize(torch.from_numpy(image)[None], *size, 40 / size[0], 50 / size[1], 1.25)[0].numpy()
    theirs = cv2.resize(image, size[::-1], interpolation=cv2.INTER_LINEAR)
    assert np.abs(ours / 1.25 - theirs).max() < 0.01


# Iterations


def test_the_threshold_step_minimises_its_energy() -> None:
    """v minimises λ |ρ(v)| + |u - v|² / (2θ) over all v (Zach et al. 2007, equation 11)."""
    u, gradient, rho = noise(1, 2, 4, 5), noise(1, 2, 4, 5, scale=3), noise(1, 4, 5, scale=5)
    attachment, theta = 0.15, 0.3
    v = steps.threshold(u, gradient, rho, (gradient**2).sum(1).clamp(min=steps.EPSILON), attachment * theta)

    def energy(flow: torch.Tensor) -> torch.Tensor:
        residual = rho + (gradient * flow).sum(1)
        return attachment * residual.abs() + ((u - flow) ** 2).sum(1) / (2 * theta)

    least = energy(v)
    for angle, step in itertools.product(np.linspace(0, 2 * np.pi, 16, endpoint=False), (0.003, 0.03, 0.3)):
        other = v + step * torch.tensor([np.cos(angle), np.sin(angle)], dtype=torch.float32)[:, None, None]
        assert (energy(other) >= least - 1e-5).all()


def test_where_there_is_no_gradient_the_threshold_step_moves_nothing() -> None:
    u = noise(1, 2, 3, 3)
    v = steps.threshold(u, torch.zeros(1, 2, 3, 3), noise(1, 3, 3), torch.full((1, 3, 3), steps.EPSILON), 0.045)
    assert torch.equal(v, u)


@pytest.mark.parametrize("shape", SIZES)
def test_divergence_is_the_negative_adjoint_of_the_gradient(shape: tuple[int, int]) -> None:
    u, p = noise(1, 2, *shape).double(), noise(1, 2, 2, *shape).double()
    p[:, :, 0, :, -1] = 0  # as the dual step leaves them
    p[:, :, 1, -1] = 0
    across, down = np.diff(u.numpy(), axis=3), np.diff(u.numpy(), axis=2)
    inner = (across * p[:, :, 0, :, :-1].numpy()).sum() + (down * p[:, :, 1, :-1].numpy()).sum()
    assert float((u * steps.divergence(p)).sum()) == pytest.approx(-inner)


def test_the_dual_step_is_its_equation() -> None:
    u, p, taut = noise(2, 2, 5, 6), noise(2, 2, 2, 5, 6, scale=0.3), 0.25 / 0.3
    gradient = np.zeros(p.shape)
    gradient[:, :, 0, :, :-1], gradient[:, :, 1, :-1] = np.diff(u.numpy(), axis=3), np.diff(u.numpy(), axis=2)
    expected = (p.numpy() + taut * gradient) / (1 + taut * np.sqrt((gradient**2).sum(2, keepdims=True)))
    assert np.abs(steps.dual(p, u, taut).numpy() - expected).max() < 1e-6


def test_roots_are_rounded_correctly() -> None:
    x = torch.from_numpy(RANDOM.uniform(0, 9, 20_001).astype(np.float32) ** 4)
    assert np.array_equal(steps.square_root(x).numpy(), np.sqrt(x.numpy()))
