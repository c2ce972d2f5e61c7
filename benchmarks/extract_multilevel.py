"""What sharing saves: ResNet-34's three levels over overlapping clips (preset resnet34-mrrn), against each clip and level by itself.

Both start from the same resized and cut frames of a real video. A clip by itself sends its 30 frames through the network, for one level
only as far as that level; the preset computes a frame once, whatever number of clips and levels share it.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from figures import alternate, report
from material import video_list

from extract.clips import clip_indices, frame_spans, time_spans
from extract.decode import ClipPlan
from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.video import open_source
from extract.video_features import VideoFeatures

CPU = torch.device("cpu")
BAR = 6.0
PRESET = "resnet34-mrrn-fast"  # the ratio is that of the passes, whatever the arithmetic


def main() -> None:
    """Print how many times as fast it is to share."""
    spec, backbone = prepare_spec(PRESET, {}, "random:0", CPU)
    with tempfile.TemporaryDirectory() as folder:
        path = max((video.path for video in video_list(60, Path(folder))), key=lambda path: path.stat().st_size)
        with open_source(path, spec.decode) as source:
            indices = clip_indices(source.num_frames, spec.clips)
            plan = ClipPlan(indices, frame_spans(indices), time_spans(indices, source.times, source.end))
            frames = np.stack(list(source.frames(plan.wanted)))
    network = Network(backbone, spec, CPU)

    def shared() -> None:
        video = VideoFeatures(network, plan)
        video.add(frames)
        video.finish()

    def each_by_itself() -> None:
        crops = network.cut(network.resize(frames))[:, None]
        for level in spec.levels:
            for clip in np.searchsorted(plan.wanted, indices):
                for start in range(0, len(clip), network.units_per_pass):
                    with torch.inference_mode():
                        backbone(network.images(crops[clip[start : start + network.units_per_pass]]), (level,))

    with exact_arithmetic():
        separate, together = alternate(each_by_itself, shared)
    title = f"three levels over {len(indices)} clips of 30/8, {len(plan.wanted)} frames"
    report(title, separate / together, "times as fast", "each clip and each level by itself", BAR)


if __name__ == "__main__":
    main()
