"""How much memory does a two-hour video of 1920 x 1080 take, above the network alone?

The video is made in seconds: ten seconds are encoded and their packets repeated 720 times. All processes count, shared pages once.
"""

import sys
import tempfile
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch
from figures import report
from material import PeakMemory, memory

from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import RunOptions
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import Video, VideoList

HEIGHT, WIDTH, FPS, SECONDS = 1080, 1920, 25, 2 * 3600
PIECE_SECONDS = 10
BAR_GB = 2.0


def main() -> None:
    """Print peak memory above that of the process with its network; an argument shortens the video to so many seconds."""
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else SECONDS
    with tempfile.TemporaryDirectory(dir=".") as name:
        folder = Path(name)
        video = make_video(folder, seconds)
        spec, backbone = prepare_spec("mobilenet-rgb", {}, "random:0", torch.device("cpu"))
        with torch.inference_mode():
            backbone(torch.rand(8, 3, 224, 224))  # what a forward pass takes is the network's
        before = memory()
        store = FeatureStore.create(folder, "bench", to_plain(spec))
        started = time.perf_counter()
        with PeakMemory() as measured:
            summary = extract_features(VideoList((Video("long", video),), ()), spec, store, backbone, RunOptions(device="cpu"))
        assert summary.done == 1, summary.failed
        of = f"a video of {WIDTH} x {HEIGHT}, {seconds / 3600:g} h, {seconds * FPS:,} frames"
        report(f"peak memory, {of}", (measured.peak - before) / 1e9, "GB", "the process with its network", BAR_GB, at_least=False)
        report(f"extraction of 25 segments, {of}", time.perf_counter() - started, "seconds", "nothing")


def make_video(folder: Path, seconds: int) -> Path:
    """An MP4 (H.264 with B-frames) of moving noise; the packets of one piece over and over, with time stamps that go on."""
    piece, path = folder / "piece.mp4", folder / "long.mp4"
    random = np.random.default_rng(0)
    texture = np.kron(random.integers(0, 255, (HEIGHT // 20, WIDTH // 20, 3), np.uint8), np.ones((20, 20, 1), np.uint8))
    with av.open(str(piece), "w") as container:
        stream = container.add_stream("libx264", rate=FPS, options={"preset": "ultrafast", "crf": "35", "bf": "2", "g": "50"})
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for number in range(PIECE_SECONDS * FPS):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(np.roll(texture, 4 * number, 1), format="rgb24")))
        container.mux(stream.encode())
    with av.open(str(piece)) as source, av.open(str(path), "w") as target:
        template = source.streams.video[0]
        stream = target.add_stream_from_template(template)
        ticks = int(Fraction(PIECE_SECONDS) / template.time_base)
        packets = [packet for packet in source.demux(template) if packet.dts is not None]
        stamps = [(packet.pts, packet.dts) for packet in packets]
        for repeat in range(seconds // PIECE_SECONDS):
            for packet, (pts, dts) in zip(packets, stamps, strict=True):
                packet.pts, packet.dts = pts + repeat * ticks, dts + repeat * ticks
                packet.stream = stream
                packet.time_base = template.time_base
                target.mux(packet)
    return path


if __name__ == "__main__":
    main()
