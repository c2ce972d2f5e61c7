"""Do RGB and flow of a video in one command cost more than their networks and the flow itself?

The whole: decode workers, DIS, both networks, two stores on the disk. Against it: the bare forward passes of both networks, as many and of
the same size, over prepared tensors, and the bare DIS of the same pairs on one thread. Also against the two commands one after another.
On CUDA where there is one. `python benchmarks/flow_two_streams.py VIDEOS` takes another number of videos; with few the start counts more.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from figures import alternate, report
from material import MOBILENET_WEIGHTS, video_list

from extract.clips import clip_indices
from extract.device import resolve_device
from extract.flow import flow_method
from extract.flow_frames import flow_grey
from extract.flow_stacks import FlowPlan
from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.run import Prepared, extract_together
from extract.spec import FeatureSpec, RunOptions
from extract.video import open_source
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import VideoList

BAR = 0.85
PRESETS = "mobilenet-rgb-tencrop", "mobilenet-flow-tencrop"
VIDEOS = {"cpu": 3, "cuda": 60}
RUNS = 5


def main() -> None:
    """Print the ratios."""
    device = resolve_device("auto")
    options = RunOptions(device=str(device), workers=1 if device.type == "cpu" else 0)
    weights = str(MOBILENET_WEIGHTS) if MOBILENET_WEIGHTS.is_file() else "random:0"
    with tempfile.TemporaryDirectory() as folder:
        videos = video_list(int(sys.argv[1]) if sys.argv[1:] else VIDEOS[device.type], Path(folder))
        specs = [prepare_spec(preset, {}, weights, device) for preset in PRESETS]
        made = 0

        def extract(*wanted: int) -> None:
            nonlocal made
            made += 1
            root = Path(folder) / str(made)
            streams = [Prepared(*specs[n], FeatureStore.create(root, PRESETS[n], to_plain(specs[n][0]))) for n in wanted]
            for summary in extract_together(videos, streams, options):
                assert summary.done == len(videos), summary.failed

        passes = [count_passes(spec_and_network[1], lambda number=number: extract(number)) for number, spec_and_network in enumerate(specs)]
        networks = [Network(backbone, spec, device) for spec, backbone in specs]
        images = [network.images(noise(network, max(sizes))) for network, sizes in zip(networks, passes, strict=True)]
        pairs = flow_pairs(videos, specs[1][0])
        method = flow_method(specs[1][0].flow)

        def forward() -> None:
            with torch.inference_mode(), exact_arithmetic():
                for network, sizes, batch in zip(networks, passes, images, strict=True):
                    for size in sizes:
                        network.backbone(batch[:size], network.spec.levels)
            if device.type == "cuda":
                torch.cuda.synchronize(device)

        def one_after_another() -> None:
            extract(0)
            extract(1)

        def flow() -> None:
            for first, second in pairs:
                method(first, second)

        bare, alone, both, apart = alternate(forward, flow, lambda: extract(0, 1), one_after_another, runs=RUNS)
    title = f"RGB and DIS flow of {len(videos)} videos in one command, {sum(map(sum, passes))} images, {len(pairs)} pairs, {device.type}"
    report(title, (bare + alone) / both, "ratio", f"bare forward passes {bare:.2f} s + bare flow {alone:.2f} s", BAR)
    report(title, apart / both, "times as fast", "two commands one after another")


def count_passes(backbone: torch.nn.Module, action: Callable[[], object]) -> list[int]:
    """Images of each pass that ``action`` runs."""
    sizes: list[int] = []
    handle = backbone.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    action()
    handle.remove()
    return sizes


def noise(network: Network, images: int) -> torch.Tensor:
    """Units of one crop each: uint8 [B, 1, 1, 3, S, S]."""
    size = network.spec.crops.size
    return torch.randint(0, 256, (images, 1, 1, 3, size, size), dtype=torch.uint8, device=network.device.device)


def flow_pairs(videos: VideoList, spec: FeatureSpec) -> list[tuple[np.ndarray, np.ndarray]]:
    """The grey images of every pair whose flow the extraction computes."""
    pairs = []
    for video in videos:
        with open_source(video.path, spec.decode) as source:
            plan = FlowPlan.of(np.unique(clip_indices(source.num_frames, spec.clips, spec.flow)), source.num_frames, spec.flow)
            frames = zip(plan.needed.tolist(), source.frames(plan.needed), strict=True)
            grey = {index: flow_grey(frame, spec.flow.short_side) for index, frame in frames}
            pairs += [(grey[pair], grey[pair + 1]) for pair in plan.pairs.tolist()]
    return pairs


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("no CUDA device: figures of the processor", file=sys.stderr)
    main()
