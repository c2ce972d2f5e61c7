"""TV-L1's Triton kernels: interpreted, they give the bits of the torch operations; compiled, nothing in them is fused or approximate."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from extract.flow.tvl1 import DEFAULTS, solve, tvl1

pytest.importorskip("triton", reason="Triton comes with torch for CUDA")
REPOSITORY = Path(__file__).resolve().parents[2]
EXACT = {f"{operation}.rn.f32" for operation in ("add", "sub", "mul", "div", "sqrt")} | {"add.f64", "add.rn.f64"}

# In a process of its own: kernels are made for the interpreter, or not, when their module is imported.
INTERPRETED = """
import torch
from extract.flow.tvl1 import Tvl1Params, solve
from extract.flow.tvl1.fused import FusedLevel
params = Tvl1Params(scales=SCALES, warps=2, inner_iterations=3, outer_iterations=2, median_filtering=MEDIAN, epsilon=0.05)
first = torch.randint(0, 256, (3, 21, 22), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
second = torch.stack([first[0].roll(1, 1), first[1], first[1]])
expected = solve.solve(first, second, params)
solve._level = FusedLevel
ours = solve.solve_batch(first, second, params, 4)
assert float(expected[0].abs().max()) > 0.3 and not expected[1].any()
assert torch.equal(ours, expected), (ours - expected).abs().max()
"""


@pytest.mark.parametrize(("median", "scales"), [(3, 2), (5, 1)])
def test_the_kernels_give_the_bits_of_the_torch_operations(median: int, scales: int) -> None:
    program = INTERPRETED.replace("MEDIAN", str(median)).replace("SCALES", str(scales))
    environment = {**os.environ, "TRITON_INTERPRET": "1", "PYTHONPATH": str(REPOSITORY)}
    run = subprocess.run([sys.executable, "-c", program], env=environment, capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr


@pytest.mark.slow
@pytest.mark.parametrize("capability", [75, 80, 90])
def test_the_kernels_compile_and_nothing_is_fused_or_approximate(capability: int) -> None:
    """To PTX, which needs no GPU: every product and sum rounded by itself, divisions and roots correctly."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from extract.flow.tvl1 import fused

    kinds = {"present": "*i1", "active": "*i1", "change": "*fp64", "height": "i32", "width": "i32", "PIXELS": "constexpr"}
    kinds |= dict.fromkeys(("l_t", "theta", "taut"), "fp32")
    for kernel in (fused.linearise_kernel, fused.primal_kernel, fused.dual_kernel, fused.median_kernel):
        source = ASTSource(
            fn=kernel, signature={name: kinds.get(name, "*fp32") for name in kernel.arg_names}, constexprs={"PIXELS": fused.PIXELS}
        )
        compiled = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"enable_fp_fusion": False})
        arithmetic = set(re.findall(r"\b(?:add|sub|mul|mad|fma|div|rcp|sqrt|rsqrt|ex2|lg2)\.\S*f(?:32|64)\b", compiled.asm["ptx"]))
        assert arithmetic <= EXACT


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_on_cuda_the_bits_are_the_processors() -> None:
    first = torch.randint(0, 256, (5, 60, 83), generator=torch.Generator().manual_seed(0), dtype=torch.uint8)
    second = torch.stack([first[0].roll(1, 1), first[1], first[3], first[4], first[4].roll(2, 0)])
    for _ in range(2):  # the second time the graphs are there already
        assert torch.equal(tvl1(first.cuda(), second.cuda()).cpu(), tvl1(first, second))
    level = solve._level(5, 60, 83, DEFAULTS, torch.device("cuda", torch.cuda.current_device()))
    assert type(level).__name__ == "FusedLevel"


def test_without_graphs_and_kernels_the_torch_operations_remain() -> None:
    """Here for want of a CUDA device to capture graphs on."""
    if torch.cuda.is_available():
        pytest.skip("graphs can be captured here")
    with pytest.warns(UserWarning, match="slower") as said:
        level = solve._graphs(1, 20, 30, DEFAULTS, torch.device("cpu"))
    assert [str(warning.message).split(",")[0] for warning in said] == [
        "TV-L1 flow does without Triton kernels",
        "TV-L1 flow does without CUDA graphs",
    ]
    assert type(level) is solve.Level


def test_levels_of_many_sizes_are_kept_while_there_is_memory() -> None:
    made: list[int] = []

    def make(batch: int, height: int, width: int, params: object, device: object) -> object:
        made.append(height)
        return object()

    kept = solve.Kept(make)  # type: ignore[arg-type]
    sizes = range(2 * solve.FEWEST)
    for _ in range(3):
        for height in sizes:
            kept.get((1, height, 8, DEFAULTS, torch.device("cpu")), lambda: False)
    assert made == list(sizes)
    for height in range(100, 103):
        kept.get((1, height, 8, DEFAULTS, torch.device("cpu")), lambda: True)
    assert len(kept._levels) == solve.FEWEST
    assert [key[1] for key in kept._levels][-3:] == [100, 101, 102]
