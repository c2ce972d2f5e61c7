"""Is TV-L1 here what OpenCV computes, as close to known motion, and how much faster? OpenCV's DualTVL1OpticalFlow is the baseline.

Real clips are read from ``$ACTIONCACHE_TEST_DATA`` (or ../shared/data), where there are any; every tenth pair of frames is compared.
"""

import os
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import torch
from figures import alternate, report

from extract.flow.tvl1 import DEFAULTS, native, tvl1
from extract.flow.tvl1.solve import solve
from extract.spec import DecodeSpec
from extract.video import open_source

REPOSITORY = Path(__file__).resolve().parent.parent
VIDEOS = Path(os.environ.get("ACTIONCACHE_TEST_DATA", REPOSITORY.parent / "shared" / "data")) / "videos"
CLIPS = {
    "KTH": ["kth/*.avi"],
    "UCF-101": ["c3d_examples/v_*.avi", "torchvision_assets/v_*.avi"],
    "HMDB-51": ["torchvision_assets/*_wave_*.avi", "torchvision_assets/hmdb51_*.avi"],
}
EVERY = 10
MARGIN = 16  # pixels at the border of a moving texture that have no counterpart, or a coarse one
OPENCV = "OpenCV's TV-L1"
Pairs = tuple[np.ndarray, np.ndarray]


def opencv(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """OpenCV's flow of pairs [B, H, W]: float32 [B, 2, H, W]."""
    method = cv2.optflow.DualTVL1OpticalFlow_create()  # type: ignore[attr-defined]
    flows = [method.calc(one, other, None) for one, other in zip(first, second, strict=True)]
    return np.stack(flows).transpose(0, 3, 1, 2)


def ours(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Our flow of pairs [B, H, W]: float32 [B, 2, H, W]."""
    return tvl1(torch.from_numpy(first), torch.from_numpy(second)).numpy()


def length(flow: np.ndarray) -> np.ndarray:
    """|u| of each pixel of [B, 2, H, W]."""
    return np.hypot(flow[:, 0], flow[:, 1])


def as_bytes(flow: np.ndarray) -> np.ndarray:
    """Flow as 8-bit images hold it, for a bound of 20 pixels."""
    return np.rint(128 + 127 * np.clip(flow, -20, 20) / 20)


def real_pairs(path: Path, every: int) -> Pairs:
    """Every ``every``-th pair of grey frames: two arrays [B, H, W]."""
    with open_source(path, DecodeSpec(partial=True)) as source:
        begins = np.arange(0, source.num_frames - 1, every)
        wanted = np.unique(np.concatenate([begins, begins + 1]))
        grey = {int(i): cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for i, frame in zip(wanted, source.frames(wanted), strict=True)}
    return np.stack([grey[i] for i in begins.tolist()]), np.stack([grey[i + 1] for i in begins.tolist()])


def on_real_clips() -> None:
    """Difference to OpenCV by data set."""
    for name, patterns in CLIPS.items():
        paths = [path for pattern in patterns for path in sorted(VIDEOS.glob(pattern))]
        if not paths:
            print(f"no clips of {name} in {VIDEOS}", file=sys.stderr)
            continue
        differences, levels = [], []
        for path in paths:
            pairs = real_pairs(path, EVERY)
            flow, theirs = ours(*pairs), opencv(*pairs)
            differences.append(length(flow - theirs).ravel())
            levels.append((np.abs(as_bytes(flow) - as_bytes(theirs)) <= 1).ravel())
        what = f"{name}, {len(paths)} clips, {sum(map(len, differences))} pixels"
        report(f"mean endpoint difference, {what}", float(np.concatenate(differences).mean()), "pixels", OPENCV, 0.1, at_least=False)
        report(f"8-bit values within one level, {what}", 100 * float(np.concatenate(levels).mean()), "%", OPENCV, 95)


def texture(y: np.ndarray, x: np.ndarray) -> np.ndarray:
    """A smooth random texture, a sum of waves, at any places: float64, about 128 +- 50."""
    random = np.random.default_rng(7)
    image = np.zeros_like(x)
    for _ in range(60):
        across, down = random.normal(0, 0.2, 2)
        image += np.cos(across * x + down * y + random.uniform(0, 2 * np.pi))
    return 128 + 9 * image


def moved(matrix: np.ndarray, shift: tuple[float, float], height: int = 240, width: int = 320) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A texture, the same one with each point x moved to c + M (x - c) + shift, and that motion [2, H, W]; c is the centre."""
    y, x = np.mgrid[:height, :width].astype(np.float64)
    centre = np.array([(width - 1) / 2, (height - 1) / 2])[:, None, None]
    place, offset = np.stack([x, y]) - centre, np.array(shift)[:, None, None]
    motion = np.einsum("ij,jhw->ihw", matrix, place) + offset - place
    before = np.einsum("ij,jhw->ihw", np.linalg.inv(matrix), place - offset) + centre
    images = [np.clip(texture(*source), 0, 255).round().astype(np.uint8) for source in ((y, x), (before[1], before[0]))]
    return images[0], images[1], motion


def known_motions() -> Iterator[tuple[str, np.ndarray, tuple[float, float]]]:
    """Name, matrix and shift."""
    still = np.eye(2)
    for shift in ((0.25, -0.4), (1.3, 0.7), (4.0, -3.0), (6.5, 4.25)):
        yield f"translation by {shift}", still, shift
    for degrees in (0.5, 2.0):
        c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
        yield f"rotation by {degrees} degrees", np.array([[c, -s], [s, c]]), (0.0, 0.0)
    for zoom in (1.01, 1.05):
        yield f"zoom by {zoom}", still * zoom, (0.0, 0.0)


def on_known_motion() -> None:
    """Error of both against what really moved; at most OpenCV's and a hundredth of it."""
    for name, matrix, shift in known_motions():
        first, second, motion = moved(matrix, shift)
        inside = (slice(None), slice(None), slice(MARGIN, -MARGIN), slice(MARGIN, -MARGIN))
        flows = [method(first[None], second[None]) for method in (ours, opencv)]
        mine, theirs = (float(length((flow - motion)[inside]).mean()) for flow in flows)
        report(f"endpoint error, {name}", mine, "pixels", f"{OPENCV}: {theirs:.4f}", 1.01 * theirs, at_least=False)


def speed_pairs(count: int, height: int, width: int) -> Pairs:
    """Pairs of one size: of real clips of UCF-101 where there are any, else of moving textures."""
    paths = [path for pattern in CLIPS["UCF-101"] for path in sorted(VIDEOS.glob(pattern))]
    if paths:
        parts = [real_pairs(path, EVERY) for path in paths]
        frames = [np.concatenate([part[side][1 : 1 + -(-count // len(paths))] for part in parts])[:count] for side in (0, 1)]
    else:
        motions = [moved(np.eye(2) * (1 + k / 500), (k / 3, -k / 5))[:2] for k in range(count)]
        frames = [np.stack(side) for side in zip(*motions, strict=True)]
    first, second = (np.stack([cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA) for image in side]) for side in frames)
    return first, second


def speed_on_processor() -> None:
    """Alternating, on the same threads: OpenCV, the compiled form, and the torch operations that take its place without a compiler."""
    threads = torch.get_num_threads()
    cv2.setNumThreads(threads)
    for name, count, flow, bar in (("compiled", 8, tvl1, 2), ("torch operations", 4, solve, None)):
        pairs = speed_pairs(count, 240, 320)
        first, second = (torch.from_numpy(side) for side in pairs)
        theirs, taken = alternate(lambda pairs=pairs: opencv(*pairs), lambda f=flow, a=first, b=second: f(a, b, DEFAULTS))
        against = f"{OPENCV}, {threads} threads, {theirs / count:.3f} s a pair"
        if name != "compiled" or native.available():
            report(f"TV-L1, {name}, 320 x 240, batch of {count}", theirs / taken, "times as fast", against, bar)


def speed_on_gpu() -> None:
    """Pairs a second at 340 x 256 from the processor's memory and back, and whether the bits are the processor's."""
    first, second = (torch.from_numpy(side) for side in speed_pairs(96, 256, 340))
    flow = tvl1(first.cuda(), second.cuda()).cpu()
    report(
        "flows that differ in a bit", float((flow != tvl1(first, second)).flatten(1).any(1).sum()), "of 96", "processor", 0, at_least=False
    )
    (seconds,) = alternate(lambda: tvl1(first.cuda(), second.cuda()).cpu())
    report(f"TV-L1 on {torch.cuda.get_device_name()}, 340 x 256, end to end", len(first) / seconds, "pairs/s", "the bar", 100)


def main() -> None:
    """Print every figure that this machine can give."""
    on_known_motion()
    on_real_clips()
    speed_on_processor()
    if torch.cuda.is_available():
        speed_on_gpu()
    else:
        print("no CUDA device: no figures of one", file=sys.stderr)


if __name__ == "__main__":
    main()
