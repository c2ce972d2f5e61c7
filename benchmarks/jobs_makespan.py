"""How long does a cluster take? 64 nodes, 650,000 videos, nodes that fail: the planner's cut and a plain stride against the ideal.

A simulation, in which nothing runs: a task whose node fails is started again at once (the node is back, or another one is), goes on
after what it had published (30 s of work are lost), and needs START seconds to begin. Videos are of Kinetics' kind: most last 10 s,
some are shorter, and a list that is sorted by class holds classes of longer and shorter ones; and, as a hard case, of films' kind:
log-normal with a heavy tail. The ideal is the sum of all work over 64 nodes that never fail and start in no time.
"""

import heapq
import math

import numpy as np
from figures import report

from extract.jobs.plan import cut

NODES, VIDEOS = 64, 650_000
FAILURES_A_NODE_DAY = 0.5  # of a busy node: a reboot, a preemption, a broken disk
LOST_SECONDS, START_SECONDS = 30.0, 60.0
SECONDS_A_CLIP_SECOND = 0.02  # work a second of video takes: a network at 50 times real time


def kinetics(generator: np.random.Generator) -> np.ndarray:
    """Seconds of work of each video, in the order of a list sorted by class: clips of up to 10 s, shorter ones by class."""
    of_class = generator.beta(8, 1.2, 600)  # mean share of full clips
    classes = np.sort(generator.integers(0, 600, VIDEOS))
    full = generator.random(VIDEOS) < of_class[classes]
    seconds = np.where(full, 10.0, generator.uniform(1, 10, VIDEOS))
    return seconds * SECONDS_A_CLIP_SECOND


def films(generator: np.random.Generator) -> np.ndarray:
    """Log-normal durations with a heavy tail, sorted by folder, whose medians differ."""
    median = np.repeat(generator.lognormal(math.log(40), 0.8, 650), VIDEOS // 650)
    return np.minimum(generator.lognormal(0, 1.4, VIDEOS) * median, 3 * 3600) * SECONDS_A_CLIP_SECOND


def makespan(parts: list[float], rate_a_second: float, generator: np.random.Generator) -> float:
    """Seconds until the last part is done; a free node takes the next part, and keeps it however often it fails."""
    nodes = [0.0] * NODES
    for work in parts:
        heapq.heappush(nodes, heapq.heappop(nodes) + with_failures(work, rate_a_second, generator))
    return max(nodes)


def with_failures(work: float, rate_a_second: float, generator: np.random.Generator) -> float:
    """Seconds that a part of ``work`` seconds takes: each failure costs a start and what was not published."""
    passed = 0.0
    while (fails := generator.exponential(1 / rate_a_second)) < START_SECONDS + work:
        passed += fails
        work -= max(0.0, fails - START_SECONDS - LOST_SECONDS)
    return passed + START_SECONDS + work


def main() -> None:
    """Print makespan over the ideal for each way to cut, and what the planning itself takes."""
    for name, make in (("Kinetics-like", kinetics), ("films, heavy tail", films)):
        work = make(np.random.default_rng(0))
        ideal = float(work.sum()) / NODES
        print(f"# {name}: {work.sum() / 3600:.0f} node hours, ideal {ideal / 3600:.2f} h on {NODES} nodes", flush=True)
        costs = {str(number): float(cost) for number, cost in enumerate(work)}
        for parts in (NODES, 8 * NODES):
            ways = {
                "planned parts": [float(sum(costs[key] for key in part)) for part in cut(costs, parts)],
                "plain stride (--part I/N)": [float(work[place::parts].sum()) for place in range(parts)],
                "runs of neighbours": [float(part.sum()) for part in np.array_split(work, parts)],
            }
            for way, sums in ways.items():
                for rate in (0.0, FAILURES_A_NODE_DAY):
                    generator = np.random.default_rng(1)
                    seconds = [makespan(sums, max(rate, 1e-12) / 86400, generator) for _ in range(5 if rate else 1)]
                    figure = f"{name}, {parts} {way}, {rate:g} failures a node and day: makespan"
                    report(figure, float(np.median(seconds)) / ideal, "times", "the ideal", None)


if __name__ == "__main__":
    main()
