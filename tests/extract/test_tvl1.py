"""TV-L1 as a whole: all its forms give the same bits, which are the equations', OpenCV's to a tenth of a pixel, and the known motion."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch

from extract.flow import FLOWS
from extract.flow.tvl1 import DEFAULTS, Tvl1Params, native, solve, tvl1
from extract.flow_frames import resolve_flow
from extract.spec import DecodeSpec, FlowSpec
from extract.video import open_source
from store.errors import FeatureError, SpecError

Flow = Callable[[torch.Tensor, torch.Tensor, Tvl1Params], torch.Tensor]
QUICK = Tvl1Params(scales=2, warps=2, inner_iterations=6, outer_iterations=2)  # pairs still end at different iterations


def compiled(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params = DEFAULTS) -> torch.Tensor:
    if not native.available():
        pytest.skip("no C compiler here")
    return torch.from_numpy(native.solve(first.numpy(), second.numpy(), params, 2))


def batched(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params = DEFAULTS) -> torch.Tensor:
    """All pairs at once, in a batch with room for two more, as on a GPU."""
    return solve.solve_batch(first, second, params, len(first) + 2)


FORMS: dict[str, Flow] = {"compiled": compiled, "torch": solve.solve, "batched": batched}


@pytest.fixture(params=list(FORMS))
def flow_of(request: pytest.FixtureRequest) -> Flow:
    return FORMS[request.param]


def waves(y: np.ndarray, x: np.ndarray, seed: int = 7) -> torch.Tensor:
    """A smooth random texture at any places, a sum of waves: uint8."""
    random = np.random.default_rng(seed)
    image = np.zeros_like(x)
    for _ in range(60):
        across, down = random.normal(0, 0.25, 2)
        image += np.cos(across * x + down * y + random.uniform(0, 2 * np.pi))
    return torch.from_numpy(np.clip(128 + 9 * image, 0, 255).round().astype(np.uint8))


def moved(shift: tuple[float, float], turn: float = 0.0, zoom: float = 1.0, size: tuple[int, int] = (64, 80)) -> tuple[torch.Tensor, ...]:
    """A texture, the same with each point x moved to c + zoom R (x - c) + shift, and that motion [2, H, W]; R turns by radians about c."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    across, down = x - (size[1] - 1) / 2, y - (size[0] - 1) / 2
    c, s = zoom * np.cos(turn), zoom * np.sin(turn)
    motion = np.stack([c * across - s * down + shift[0] - across, s * across + c * down + shift[1] - down])
    back_x, back_y = across - shift[0], down - shift[1]
    before = ((c * back_x + s * back_y) / zoom**2 - across + x, (c * back_y - s * back_x) / zoom**2 - down + y)
    return waves(y, x), waves(before[1], before[0]), torch.from_numpy(motion)


def some_pairs(*size: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Three pairs that take different numbers of iterations: a slow one, a still one, noise."""
    random = torch.Generator().manual_seed(5)
    noise = torch.randint(0, 256, (2, *size), generator=random, dtype=torch.uint8)
    slow = moved((1.5, -0.75), size=size)
    return torch.stack([slow[0], slow[0], noise[0]]), torch.stack([slow[1], slow[0], noise[1]])


def opencv(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params = DEFAULTS) -> np.ndarray:
    """OpenCV's flow of one pair, [2, H, W]."""
    p = params
    method = cv2.optflow.DualTVL1OpticalFlow_create(  # type: ignore[attr-defined]
        p.tau,
        p.lambda_,
        p.theta,
        p.scales,
        p.warps,
        p.epsilon,
        p.inner_iterations,
        p.outer_iterations,
        p.scale_step,
        0.0,
        p.median_filtering,
    )
    return np.asarray(method.calc(first.numpy(), second.numpy(), None)).transpose(2, 0, 1)


def distance(one: object, other: object) -> np.ndarray:
    """Endpoint difference of each pixel of [2, H, W]."""
    return np.hypot(*(np.asarray(one, np.float64) - np.asarray(other, np.float64)))


# The forms


@pytest.mark.parametrize(
    "params",
    [
        Tvl1Params(),
        Tvl1Params(median_filtering=3, inner_iterations=7, warps=2, scale_step=0.5, lambda_=0.05, tau=0.2, theta=0.4),
        Tvl1Params(median_filtering=1, warps=2, outer_iterations=2, inner_iterations=12),
        Tvl1Params(epsilon=0, warps=1, outer_iterations=2, inner_iterations=11, scales=2),
        Tvl1Params(epsilon=100, warps=3),
        Tvl1Params(scale_step=0.97, scales=20, warps=1, inner_iterations=5, outer_iterations=1),
    ],
    ids=["defaults", "all other", "no median", "no early end", "one iteration", "scales of one size"],
)
def test_every_form_gives_the_same_bits(params: Tvl1Params) -> None:
    first, second = some_pairs(29, 21)
    alone = solve.solve(first, second, params)
    assert torch.equal(batched(first, second, params), alone)
    assert torch.equal(compiled(first, second, params), alone)
    assert alone.shape == (3, 2, 29, 21)
    assert alone.dtype == torch.float32


def test_a_pair_is_the_same_whatever_is_beside_it(flow_of: Flow) -> None:
    first, second = some_pairs(30, 37)
    together = flow_of(first, second, QUICK)
    assert torch.equal(flow_of(first.flip(0), second.flip(0), QUICK).flip(0), together)
    for pair in range(3):
        assert torch.equal(flow_of(first[pair : pair + 1], second[pair : pair + 1], QUICK)[0], together[pair])


@pytest.mark.parametrize("form", ["compiled", "torch"])
def test_threads_do_not_matter(form: str) -> None:
    if form == "compiled" and not native.available():
        pytest.skip("no C compiler here")
    first, second = (images.repeat(3, 1, 1) for images in some_pairs(30, 37))
    before, flows = torch.get_num_threads(), []
    for threads in (1, 2, 5):
        torch.set_num_threads(threads)
        flows.append(
            native.solve(first.numpy(), second.numpy(), QUICK, threads) if form == "compiled" else solve.solve(first, second, QUICK)
        )
        assert torch.get_num_threads() == threads
    torch.set_num_threads(before)
    assert all(np.array_equal(flow, flows[0]) for flow in flows)


def test_batches_are_cut_to_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    real = solve.solve_batch

    def counting(first: torch.Tensor, second: torch.Tensor, params: Tvl1Params, batch: int) -> torch.Tensor:
        sizes.append(len(first))
        return real(first, second, params, batch)

    first, second = some_pairs(20, 24)
    flow, expected = torch.zeros(3, 2, 20, 24), solve.solve(first, second, QUICK)
    monkeypatch.setattr(solve, "solve_batch", counting)
    monkeypatch.setattr(solve, "BATCH_PIXELS", 2 * 20 * 24 + 5)
    solve._in_batches(first, second, QUICK, flow)
    assert sizes == [2, 1]
    assert torch.equal(flow, expected)


def test_looking_one_graph_late_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on CUDA, with events that have always happened already."""

    class Event:
        def record(self) -> None:
            pass

        def synchronize(self) -> None:
            pass

    monkeypatch.setattr(torch.cuda, "Event", Event)
    monkeypatch.setattr(solve, "BLOCKS", {})
    monkeypatch.setattr(solve, "LooksNow", solve.LooksLate)
    first, second = some_pairs(24, 28)
    late = batched(first, second, QUICK)
    monkeypatch.undo()
    assert torch.equal(late, batched(first, second, QUICK))


def test_floats_of_the_same_values_have_the_same_flow() -> None:
    first, second = some_pairs(20, 33)
    assert torch.equal(tvl1(first.float(), second.float()), tvl1(first, second))
    assert torch.equal(tvl1(first.mT.contiguous().mT, second.flip(1).flip(1)), tvl1(first, second))
    assert torch.equal(tvl1(first.float().requires_grad_(), second.float()), tvl1(first, second))


# Against OpenCV and the truth


@pytest.mark.parametrize("median", [1, 3, 5])
def test_a_few_iterations_are_opencvs(median: int) -> None:
    """Without the many iterations in which roundings grow, the flows are the same to them."""
    params = Tvl1Params(scales=3, warps=2, outer_iterations=2, inner_iterations=4, median_filtering=median, epsilon=0)
    first, second, _ = moved((1.0, 0.5))
    ours, theirs = tvl1(first[None], second[None], params)[0], opencv(first, second, params)
    assert distance(ours, 0 * theirs).mean() > 0.3
    assert distance(ours, theirs).mean() < 0.002
    assert distance(ours, theirs).max() < 0.05


@pytest.mark.parametrize(
    ("shift", "turn", "zoom", "most"),
    [
        ((0.3, -0.4), 0.0, 1.0, 0.1),
        ((1.25, 2.5), 0.0, 1.0, 0.1),
        ((-4.0, 3.0), 0.0, 1.0, 0.1),
        ((0.0, 0.0), 0.03, 1.0, 0.1),
        ((0.5, 0.25), -0.02, 1.03, 0.1),
    ],
)
def test_known_motion_is_found_as_well_as_by_opencv(shift: tuple[float, float], turn: float, zoom: float, most: float) -> None:
    first, second, motion = moved(shift, turn, zoom)
    inside = (slice(None), slice(10, -10), slice(10, -10))
    ours = distance(tvl1(first[None], second[None])[0][inside], motion[inside]).mean()
    theirs = distance(opencv(first, second)[inside], motion[inside]).mean()
    assert ours < most
    assert ours < 1.02 * theirs + 0.001


@pytest.mark.parametrize("clip", ["c3d_examples/v_BaseballPitch_g01_c01.avi", "kth/person01_jogging_d3_uncomp.avi"])
def test_on_real_clips_it_is_opencvs(shared_data: Path, clip: str) -> None:
    with open_source(shared_data / "videos" / clip, DecodeSpec(partial=True)) as source:
        frames = [cv2.cvtColor(frame, cv2.COLOR_RGB2GRAY) for frame in source.frames(np.array([20, 21, 40, 41]))]
    grey = torch.from_numpy(np.stack(frames))[:, :120, :160].contiguous()
    ours = tvl1(grey[::2], grey[1::2]).numpy()
    theirs = np.stack([opencv(grey[0], grey[1]), opencv(grey[2], grey[3])])
    levels = [np.rint(128 + 127 * np.clip(flow, -20, 20) / 20) for flow in (ours, theirs)]
    assert distance(ours.swapaxes(0, 1), theirs.swapaxes(0, 1)).mean() < 0.05
    assert (np.abs(levels[0] - levels[1]) <= 1).mean() > 0.98


# Edges


def test_equal_images_have_no_motion(flow_of: Flow) -> None:
    images = some_pairs(21, 18)[0]
    assert torch.count_nonzero(flow_of(images, images, QUICK)) == 0


@pytest.mark.parametrize("size", [(2, 2), (2, 50), (50, 3), (8, 8), (20, 40)])
def test_the_smallest_images(flow_of: Flow, size: tuple[int, int]) -> None:
    first, second = some_pairs(*size)
    flow = flow_of(first, second, QUICK)
    assert flow.shape == (3, 2, *size)
    assert torch.isfinite(flow).all()
    assert torch.equal(flow, solve.solve(first, second, QUICK))


def test_what_moves_farther_than_the_image_is_finite(flow_of: Flow) -> None:
    first, second = waves(*np.mgrid[:40, :48].astype(np.float64))[None], waves(*np.mgrid[500:540, 900:948].astype(np.float64))[None]
    stiff = Tvl1Params(lambda_=50.0, epsilon=0, warps=3, scales=2, inner_iterations=9, outer_iterations=1)
    for params in (QUICK, stiff):
        assert torch.isfinite(flow_of(first, second, params)).all()
    assert torch.isfinite(flow_of(first.float() * 1e6, second.float() * 1e6, QUICK)).all()


def test_images_beyond_all_numbers_crash_nothing(flow_of: Flow) -> None:
    """Whoever stores the flow refuses what is not finite."""
    first, second = some_pairs(20, 24)
    flow = flow_of((first.float() - 100) * 3e36, (second.float() - 100) * 3e36, QUICK)
    assert torch.isnan(flow).any()


def test_no_pairs_have_no_flow() -> None:
    none = torch.zeros(0, 20, 30, dtype=torch.uint8)
    assert tvl1(none, none).shape == solve.solve(none, none, QUICK).shape == (0, 2, 20, 30)


@pytest.mark.parametrize(
    ("first", "second", "words"),
    [
        (torch.zeros(2, 8, 9), torch.zeros(2, 9, 8), r"the first images' shape is \[2, 8, 9\], the second's \[2, 9, 8\]"),
        (torch.zeros(2, 8, 9), torch.zeros(1, 8, 9), r"shape is \[2, 8, 9\], the second's \[1, 8, 9\]; they must be the same"),
        (torch.zeros(2, 8, 9), torch.zeros(2, 8, 9, dtype=torch.uint8), "type is torch.float32, the second's torch.uint8"),
        (torch.zeros(8, 9), torch.zeros(8, 9), r"takes grey images \[B, H, W\].*not torch.float32 \[8, 9\]"),
        (torch.zeros(1, 3, 8, 9), torch.zeros(1, 3, 8, 9), r"not torch.float32 \[1, 3, 8, 9\]"),
        (torch.zeros(1, 8, 9).double(), torch.zeros(1, 8, 9).double(), "uint8 or float32 from 0 to 255, not torch.float64"),
        (torch.zeros(1, 1, 9), torch.zeros(1, 1, 9), "the images are 1 x 9 pixels; each side must be at least 2"),
        (torch.zeros(1, 9, 0), torch.zeros(1, 9, 0), "the images are 9 x 0 pixels"),
        (torch.tensor([[[0.0, 1], [2, 3]], [[0, np.nan], [0, 0]]]), torch.zeros(2, 2, 2), r"NaN or Inf in image 1 of 2 \(1 such\)"),
        (torch.zeros(2, 2, 2), torch.full((2, 2, 2), np.inf), r"NaN or Inf in image 0 of 2 \(2 such\); decode it anew"),
    ],
)
def test_what_cannot_be_used_is_refused(first: torch.Tensor, second: torch.Tensor, words: str) -> None:
    with pytest.raises(FeatureError, match=words):
        tvl1(first, second)


# Parameters


def test_levels_are_rounded_and_end_as_opencvs() -> None:
    assert DEFAULTS.sizes(240, 320) == [(240, 320), (192, 256), (154, 205), (123, 164), (98, 131)]  # 153.6, 204.8; 163.99; 98.4, 131.2
    assert DEFAULTS.sizes(20, 300) == [(20, 300), (16, 240)]  # 12.8 would be below 16
    assert DEFAULTS.sizes(19, 300) == [(19, 300)]
    assert Tvl1Params(scale_step=0.5).sizes(65, 67) == [(65, 67), (32, 34), (16, 17)]  # 32.5 and 33.5: halves to even


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tau": 0}, "TV-L1: tau is 0.0; it must be from 1e-6 to 1e6"),
        ({"lambda_": -1}, "TV-L1: lambda is -1.0; it must be from 1e-6 to 1e6"),
        ({"theta": 1e7}, "TV-L1: theta is 10000000.0; it must be from"),
        ({"epsilon": -0.1}, r"epsilon is -0.1; it must be 0 \(run every iteration\) or positive"),
        ({"scales": 0}, "scales is 0; it must be from 1 to 64"),
        ({"warps": 0}, "warps is 0; it must be at least 1"),
        ({"inner_iterations": 0}, "inner_iterations is 0"),
        ({"outer_iterations": -3}, "outer_iterations is -3"),
        ({"scale_step": 1.0}, "scale_step is 1.0; it must be between 0 and 1"),
        ({"median_filtering": 4}, r"median_filtering is 4; it must be 1 \(none\), 3 or 5"),
        ({"warps": 2.5}, "warps is 2.5; it must be a whole number"),
        ({"tau": float("nan")}, "tau is nan; it must be a finite number"),
    ],
)
def test_parameters_that_make_no_sense_are_refused(values: dict[str, float], words: str) -> None:
    with pytest.raises(SpecError, match=words):
        Tvl1Params(**values)  # type: ignore[arg-type]


# The method of one pair


def test_the_registered_method_is_this_flow() -> None:
    first, second = some_pairs(40, 50)
    spec = resolve_flow(FlowSpec(method="tvl1", params={"lambda": 0.1, "warps": 2}))
    assert spec.params == {**FLOWS.get("tvl1").defaults, "lambda": 0.1, "warps": 2}
    assert spec.version == "1"
    flow = FLOWS.get("tvl1")(spec.params)(first[0].numpy(), second[0].numpy())
    assert np.array_equal(flow.transpose(2, 0, 1), tvl1(first[:1], second[:1], Tvl1Params(lambda_=0.1, warps=2))[0].numpy())


def test_unknown_parameters_are_refused_by_name() -> None:
    with pytest.raises(SpecError, match="flow method tvl1 has no parameter 'lamda'; did you mean 'lambda'"):
        resolve_flow(FlowSpec(method="tvl1", params={"lamda": 0.1}))
    with pytest.raises(SpecError, match=r"flow.params scales is 2.5; it must be a whole number"):
        resolve_flow(FlowSpec(method="tvl1", params={"scales": 2.5}))


def test_decode_workers_need_no_torch() -> None:
    if not native.available():
        pytest.skip("no C compiler here")
    program = (
        "import sys, numpy as np\nfrom extract.flow import FLOWS\nimage = np.zeros((20, 30), np.uint8)\n"
        "print(FLOWS.get('tvl1')(FLOWS.get('tvl1').defaults)(image, image).shape, 'torch' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "(20, 30, 2) False"
