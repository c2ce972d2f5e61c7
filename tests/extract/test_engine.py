"""The engine's bookkeeping: what was counted as done and is refused afterwards."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from extract.engine import Extraction, make_network, run_together
from extract.prepare import prepare_spec
from extract.spec import RunOptions
from store.features import Features
from store.progress import Progress
from store.videos import Video

Encode = Callable[..., Path]
OPTIONS = RunOptions(device="cpu", workers=1)


class LateRefusal:
    """A sink that finds fault with one video when it is too late to say so at once."""

    def __init__(self, bad: str) -> None:
        self.bad, self.rows = bad, {}
        self.failures: dict[str, tuple[str, str]] = {}

    def add(self, key: str, features: Features) -> None:
        self.rows[key] = len(features.frames)

    def fail(self, key: str, stage: str, reason: str, path: Path) -> None:
        self.failures[key] = (stage, reason)

    def refused(self, wait: bool = False) -> list[tuple[str, str]]:
        return [(self.bad, "too wide")] if wait else []

    def flush(self) -> None:
        pass


def test_a_video_that_is_refused_late_counts_once(tmp_path: Path, encode_video: Encode) -> None:
    names = ("a.mp4", "b.mp4", "c.mp4")
    videos = [Video(name, encode_video(tmp_path / name, np.zeros((12, 64, 80, 3), np.uint8))) for name in names]
    spec, backbone = prepare_spec("tiny", {}, "random:0", torch.device("cpu"))
    sink = LateRefusal("b.mp4")
    with Progress("extract", len(videos), live=False) as progress:
        job = Extraction(make_network(backbone, spec, OPTIONS), sink)
        run_together([(job, videos)], progress, OPTIONS)
        assert progress.done == 3
    assert sorted(job.done) == ["a.mp4", "c.mp4"]
    assert job.failed == sink.failures == {"b.mp4": ("features", "too wide")}
    assert job.clips == sink.rows["a.mp4"] + sink.rows["c.mp4"] == 50
