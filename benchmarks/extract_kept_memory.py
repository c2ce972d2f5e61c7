"""What keeping the memory of one pass for the next one gains on processors: a network's passes with it against without.

The setting holds for a whole process, so each side runs in processes of its own, in turns. A pass is ten images or one clip.
"""

import subprocess
import sys
import time
from statistics import median

import torch
from figures import report

from extract.prepare import prepare_spec
from store.memory import keep_memory

ROUNDS, PASSES = 3, 12
PRESETS = ("mobilenet-rgb-tencrop", "resnet34-tencrop", "c3d")


def main() -> None:
    """Print a ratio a preset."""
    for preset in PRESETS:
        seconds = [[_elsewhere(preset, kept) for kept in (False, True)] for _ in range(ROUNDS)]
        freed, kept = (median(side) for side in zip(*seconds, strict=True))
        report(f"passes of {preset} that keep their memory", freed / kept, "times as fast", "memory given back after each pass", None)


def _elsewhere(preset: str, kept: bool) -> float:
    command = [sys.executable, __file__, preset, *(["kept"] if kept else [])]
    return float(subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True).stdout)


@torch.inference_mode()
def passes(preset: str, kept: bool) -> float:
    """Median seconds of a pass, the first two left out."""
    if kept:
        keep_memory()
    spec, backbone = prepare_spec(preset, {}, "random:0", torch.device("cpu"))
    info = backbone.info
    one = (info.channels, info.size, info.size)
    shape = (1, one[0], info.clip_length, *one[1:]) if info.clip_length > 1 else (10, *one)
    frames, seconds = torch.rand(shape), []
    for _ in range(PASSES):
        started = time.perf_counter()
        backbone(frames, spec.levels)
        seconds.append(time.perf_counter() - started)
    return median(seconds[2:])


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(passes(sys.argv[1], "kept" in sys.argv[2:]))
    else:
        main()
