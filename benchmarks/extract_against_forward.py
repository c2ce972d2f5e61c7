"""Does extraction cost more than its network? Real encoded videos through the whole of stage one, against the bare forward passes.

The bare passes are as many, of the same size, precision and layout as the extraction runs, over one prepared tensor. The extraction
starts its decode workers, decodes, resizes, cuts, normalises, averages, and publishes a store on the disk. Few videos, so the start counts
for more than in a job; `python benchmarks/extract_against_forward.py PRESET ...` runs some of the cases.
"""

import sys
import tempfile
from pathlib import Path

import torch
from figures import alternate, report
from material import video_list

from extract.backbones import Backbone
from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import FeatureSpec, RunOptions
from store.digest import to_plain
from store.features import FeatureStore

BAR = 0.90
CASES = {  # preset: number of videos
    "resnet34-tencrop": 1,
    "resnet34-tencrop-fast": 2,
    "c3d": 1,
    "c3d-fast": 2,
    "mobilenet-rgb": 40,
}


def main() -> None:
    """Print the ratio of bare forward time to whole extraction time."""
    for preset, count in CASES.items():
        if sys.argv[1:] and preset not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            measure(preset, count, Path(folder))


def measure(preset: str, count: int, folder: Path) -> None:
    """One preset over ``count`` videos."""
    cpu = torch.device("cpu")
    options = RunOptions(device="cpu", workers=1)
    videos = video_list(count, folder)
    spec, backbone = prepare_spec(preset, {}, "random:0", cpu)
    sizes: list[int] = []
    runs = 0

    def extract() -> None:
        nonlocal runs
        runs += 1
        store = FeatureStore.create(folder / str(runs), "bench", to_plain(spec))
        summary = extract_features(videos, spec, store, backbone, options)
        assert summary.done == count, summary.failed

    with backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0]))):
        extract()
    images = Network(backbone, spec, cpu).images(torch.randint(0, 256, _units(spec, backbone, max(sizes)), dtype=torch.uint8))

    def forward() -> None:
        with torch.inference_mode(), exact_arithmetic():
            for size in sizes:
                backbone(images[:size], spec.levels)

    bare, whole = alternate(forward, extract)
    title = f"extract end to end, {preset}, {count} videos, {sum(sizes)} images or clips"
    report(title, bare / whole, "ratio", "bare forward passes", None if preset.startswith("mobilenet") else BAR)


def _units(spec: FeatureSpec, backbone: Backbone, images: int) -> tuple[int, ...]:
    length = spec.clips.length if backbone.info.clip_length > 1 else 1
    return images, length, 1, backbone.info.channels, spec.crops.size, spec.crops.size


if __name__ == "__main__":
    main()
