"""What benchmarks work on: real videos where they are at hand (docs/testing.md), else those of the demonstration; and counted memory."""

import os
import runpy
import sys
import threading
from collections.abc import Sequence
from pathlib import Path

from store.videos import Video, VideoList, read_list

REPOSITORY = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("ACTIONCACHE_TEST_DATA", REPOSITORY.parent / "shared" / "data"))
PATTERNS = ("videos/ut_interaction/set1/*.avi", "videos/c3d_examples/*.avi", "videos/torchvision_assets/*.[am][vp][i4]")
MOBILENET_WEIGHTS = DATA / "weights" / "mobilenet_v2-imagenet-from-tflite.safetensors"


def video_list(count: int, folder: Path, patterns: Sequence[str] = PATTERNS) -> VideoList:
    """``count`` videos, from all data sets in turn, each file as often as it takes; made below ``folder`` where there are no real ones."""
    found = [sorted(DATA.glob(pattern)) for pattern in patterns]
    paths = [path for each in zip_all(found) for path in each]
    if not paths:
        print("no real videos at hand: those of the demonstration are taken", file=sys.stderr)
        make = runpy.run_path(str(REPOSITORY / "examples" / "make_demo_videos.py"))["make_videos"]
        paths = [video.path for video in read_list(make(folder / "demo", train_groups=2, test_groups=1))]
    chosen = [paths[number % len(paths)] for number in range(count)]
    return VideoList(tuple(Video(f"{number:04d}/{path.name}", path) for number, path in enumerate(chosen)), ())


def zip_all(lists: Sequence[Sequence[Path]]) -> list[list[Path]]:
    """The first of each, then the second of each, as long as there are any."""
    longest = max((len(each) for each in lists), default=0)
    return [[each[place] for each in lists if place < len(each)] for place in range(longest)]


class PeakMemory:
    """Greatest memory of this process and its children, shared pages counted once, in bytes, while the ``with`` statement runs."""

    def __enter__(self) -> "PeakMemory":
        self.peak = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.05):
            self.peak = max(self.peak, memory())


def memory() -> int:
    """Proportional set size of this process and its children, bytes."""
    family = [os.getpid(), *children(os.getpid())]
    return sum(_pss(process) for process in family)


def children(process: int) -> list[int]:
    """Processes that ``process`` has started, and theirs."""
    found: list[int] = []
    for task in Path(f"/proc/{process}/task").glob("*/children"):
        try:
            direct = [int(word) for word in task.read_text().split()]
        except OSError:  # the thread has ended
            continue
        found += direct + [grandchild for child in direct for grandchild in children(child)]
    return found


def _pss(process: int) -> int:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:  # it has ended
        return 0
    return sum(int(line.split()[1]) << 10 for line in text.splitlines() if line.startswith("Pss:"))
