"""Two processes on two cores, a part each, against one process: throughput, and what bounds it.

Each process is bound to its cores, with a thread for each, as a Slurm task is: one on one core does half of a list; two do a half each; one
on both cores does the whole. Throughput is clips over the time that ``extract --json`` tells, so that the start of Python is left out.

What bounds it: the same comparison of one process with two, for forward passes alone (no videos, no store), and for plain copies of memory;
and how unequal the two parts are, since the longer one decides. Needs Linux and two cores.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from figures import RUNS, report
from material import MOBILENET_WEIGHTS, REPOSITORY, video_list

from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from store.videos import write_csv

VIDEOS, PRESET = 48, "mobilenet-rgb"
UT_INTERACTION = ("videos/ut_interaction/set1/*.avi",)
WEIGHTS = str(MOBILENET_WEIGHTS) if MOBILENET_WEIGHTS.is_file() else "random:0"
LOOP_SECONDS, READY_SECONDS = 3.0, 7.0


def main() -> None:
    """Print the ratios."""
    cores = sorted(os.sched_getaffinity(0))[:2]
    if len(cores) < 2:
        raise SystemExit("this needs two cores")
    with tempfile.TemporaryDirectory() as folder:
        write_csv(video_list(VIDEOS, Path(folder), UT_INTERACTION), Path(folder) / "list.csv")
        rates: dict[str, list[float]] = {"one, one core": [], "two, a core each": [], "one, both cores": []}
        unequal = []
        for run in range(RUNS):
            out = Path(folder) / str(run)
            alone = extractions(Path(folder) / "list.csv", out / "alone", [("1/2", cores[:1])])
            both = extractions(Path(folder) / "list.csv", out / "both", [("1/2", cores[:1]), ("2/2", cores[1:])])
            whole = extractions(Path(folder) / "list.csv", out / "whole", [("1/1", cores)])
            for values, summaries in zip(rates.values(), (alone, both, whole), strict=True):
                values.append(sum(each["clips"] for each in summaries) / max(each["seconds"]["total"] for each in summaries))
            times = [each["seconds"]["total"] for each in both]
            unequal.append(max(times) / statistics.mean(times))
    one, two, wide = (statistics.median(values) for values in rates.values())
    title = f"extract, {PRESET}, {VIDEOS} videos"
    report(f"{title}: one process on one core", one, "clips/s", "")
    report(f"{title}: two processes, a core each", two / one, "times", "one process on one core")
    report(f"{title}: two processes, a core each", two / wide, "times", "one process on both cores")
    report(f"{title}: the longer part", statistics.median(unequal), "times", "the mean of both")
    for what in ("passes", "copies"):
        alone, both = (
            statistics.median(sum(result["rate"] for result in loops(what, used)) for _ in range(3)) for used in (cores[:1], cores)
        )
        report(f"{what} alone: two processes, a core each", both / alone, "times", "one process on one core")


def extractions(listed: Path, out: Path, parts: Sequence[tuple[str, Sequence[int]]]) -> list[dict[str, Any]]:
    """Extract parts of a list at once, each bound to its cores; their summaries."""
    words = ["extract", str(listed), "--preset", PRESET, "--weights", WEIGHTS, "--device", "cpu", "--out", str(out), "--json"]
    return results([bound([str(REPOSITORY / "cli.py"), *words, "--part", part, "--workers", "1"], cores) for part, cores in parts])


def loops(what: str, cores: Sequence[int]) -> list[dict[str, Any]]:
    """Run a loop on each of the cores, all at the same time; what they tell."""
    begin = time.time() + READY_SECONDS
    return results([bound([__file__, what, str(begin)], [core]) for core in cores])


def bound(command: Sequence[str], cores: Sequence[int]) -> "subprocess.Popen[str]":
    """A Python process that runs on these cores only."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(len(cores)), "PYTHONPATH": str(REPOSITORY)}
    words = ["taskset", "--cpu-list", ",".join(map(str, cores)), sys.executable, *command]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def results(processes: Sequence["subprocess.Popen[str]"]) -> list[dict[str, Any]]:
    """What they print, as JSON, once all have ended."""
    found = []
    for process in processes:
        out, err = process.communicate()
        if process.returncode:
            raise SystemExit(f"{process.args} ended with {process.returncode}\n{err}")
        found.append(json.loads(out.strip().splitlines()[-1]))
    return found


def loop(what: str, begin: float) -> float:
    """Passes, or copies of 64 MB, a second, from the time ``begin`` on."""
    if what == "passes":
        spec, backbone = prepare_spec(PRESET, {}, WEIGHTS, torch.device("cpu"))
        network = Network(backbone, spec, torch.device("cpu"))
        units = network.noise().expand(network.units_per_pass, *[-1] * 5)
        step = lambda: network.features(units)  # noqa: E731
    else:
        source, target = np.ones(1 << 24, np.float32), np.empty(1 << 24, np.float32)
        step = lambda: np.copyto(target, source)  # noqa: E731
    with exact_arithmetic():
        step()
        if time.time() > begin:
            raise SystemExit(f"not ready {READY_SECONDS} s after the start; raise READY_SECONDS")
        while time.time() < begin:
            step()
        started, count = time.perf_counter(), 0
        while time.perf_counter() - started < LOOP_SECONDS:
            step()
            count += 1
    return count / (time.perf_counter() - started)


if __name__ == "__main__":
    if sys.argv[1:]:
        print(json.dumps({"rate": loop(sys.argv[1], float(sys.argv[2]))}))
    else:
        main()
