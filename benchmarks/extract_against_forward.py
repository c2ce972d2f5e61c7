"""Does extraction cost more than its network? Real encoded videos through the whole of stage one, against the bare forward passes.

Also: what the channels-last layout gains for MobileNetV2 on this machine.
"""

import runpy
import tempfile
from pathlib import Path

import torch
from figures import alternate, report

from extract.backbones import Backbone
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import RunOptions
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import read_list

EXAMPLES = Path(__file__).resolve().parent.parent / "examples"
BATCH = 25  # one video: the passes that the extraction makes


def forward(backbone: Backbone, images: torch.Tensor, passes: int) -> None:
    """The bare network, as often as the extraction runs it."""
    with torch.inference_mode(), exact_arithmetic():
        for _ in range(passes):
            backbone(images)


def main() -> None:
    """Print the ratio of bare forward time to whole extraction time, and of layouts."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as folder:
        make_videos = runpy.run_path(str(EXAMPLES / "make_demo_videos.py"))["make_videos"]
        videos = read_list(make_videos(Path(folder) / "videos", train_groups=1, test_groups=1))
        spec, backbone = prepare_spec("mobilenet-rgb", {}, "random:0", cpu)
        images = torch.rand(BATCH, 3, 224, 224).contiguous(memory_format=torch.channels_last)
        count = 0

        def extract() -> None:
            nonlocal count
            count += 1
            store = FeatureStore.create(Path(folder) / str(count), "bench", to_plain(spec))
            extract_features(videos, spec, store, backbone, RunOptions(device="cpu", workers=1))

        bare, whole = alternate(lambda: forward(backbone, images, len(videos)), extract)
        report("extract end to end, MobileNetV2 centre crop, 16 short videos", bare / whole, "ratio", "bare forward passes")
        _, contiguous = prepare_spec("mobilenet-rgb", {"channels_last": False}, "random:0", cpu)
        plain = images.contiguous(memory_format=torch.contiguous_format)
        slow, fast = alternate(lambda: forward(contiguous, plain, 1), lambda: forward(backbone, images, 1))
        report("MobileNetV2 fp32 channels-last", slow / fast, "times as fast", "contiguous layout")


if __name__ == "__main__":
    main()
