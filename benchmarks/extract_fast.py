"""What the fast arithmetic gains and what it costs: time, cosine and largest difference against float32 in the contiguous layout.

Frames are real; weights are seeded (random:0), and real for MobileNetV2 where they are at hand. Cosine is the least of any clip,
the difference the largest of any value, in parts of the largest value.
"""

import tempfile
from pathlib import Path

import numpy as np
import torch
from figures import alternate, report
from material import MOBILENET_WEIGHTS, video_list

from extract.backbones import Backbone
from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.presets import MADE_FAST
from extract.spec import DecodeSpec, FeatureSpec
from extract.video import open_source

CPU = torch.device("cpu")
FASTER, FARTHEST = 1.8, 500.0  # a cosine of 0.9995
PLAIN = {"precision": "fp32", "channels_last": False, "fold_bn": False}
TIMED = ("resnet34-tencrop", "c3d", "mobilenet-rgb")  # the others would take minutes each, and their cost is of the same kind
VIDEOS = 6


def main() -> None:
    """Print, for each preset, how much faster and how near."""
    with tempfile.TemporaryDirectory() as folder:
        paths = [video.path for video in video_list(VIDEOS, Path(folder))]
    cases = [(name, f"{name}-fast", {}, "random:0") for name in MADE_FAST]
    cases.append(("mobilenet-rgb", "mobilenet-rgb", {}, "random:0"))
    if MOBILENET_WEIGHTS.is_file():
        cases.append(("mobilenet-rgb", "mobilenet-rgb", {}, str(MOBILENET_WEIGHTS)))
        cases.append(("mobilenet-rgb", "mobilenet-rgb", {"precision": "bf16"}, str(MOBILENET_WEIGHTS)))
        cases.append(("mobilenet-rgb", "mobilenet-rgb", {"precision": "bf16", "fold_bn": False}, str(MOBILENET_WEIGHTS)))
    for name, fast, settings, weights in cases:
        compare(name, fast, settings, weights, paths)


def compare(name: str, fast: str, settings: dict[str, object], weights: str, paths: list[Path]) -> None:
    """One fast preset against its plain arithmetic."""
    one_crop = {"crops": {"count": 1}}
    plain = network(*prepare_spec(name, {**PLAIN, **one_crop}, weights, CPU))
    quick = network(*prepare_spec(fast, {**settings, **one_crop}, weights, CPU))
    units = [inputs(plain, path) for path in paths]
    with exact_arithmetic():
        exact, near = ([each.features(unit) for unit in units] for each in (plain, quick))
    kind = "real weights" if weights.endswith(".safetensors") else "seeded weights"
    title = f"{fast}{f' {settings}' if settings else ''}, {kind}"
    for level in plain.spec.levels:
        theirs, ours = (torch.cat([each[level] for each in results]).double() for results in (exact, near))
        distance = 1 - float(torch.cosine_similarity(theirs, ours).min())
        bar = FARTHEST if fast.endswith("-fast") else None
        report(f"{title}, {level}: 1 - cosine", distance * 1e6, "millionths", "fp32 contiguous", bar, at_least=False)
        difference = float((theirs - ours).abs().max() / theirs.abs().max())
        report(f"{title}, {level}: largest difference", difference, "of the largest value", "fp32 contiguous")
    if name in TIMED and kind == "seeded weights" and not settings:
        with exact_arithmetic():
            slow, swift = (lambda each=each: [each.features(unit) for unit in units[:3]] for each in (plain, quick))
            before, after = alternate(slow, swift)
        report(f"{title}: time", before / after, "times as fast", "fp32 contiguous", FASTER if fast.endswith("-fast") else None)


def network(spec: FeatureSpec, backbone: Backbone) -> Network:
    """A network ready to run."""
    return Network(backbone, spec, CPU)


def inputs(made: Network, path: Path) -> torch.Tensor:
    """Crops of the first clip, or of eight frames, of a video: uint8 [B, T, 1, C, S, S]."""
    length = made.spec.clips.length if made.backbone.info.clip_length > 1 else 1
    with open_source(path, DecodeSpec()) as source:
        wanted = np.arange(length) if length > 1 else np.unique(np.linspace(0, source.num_frames - 1, 8).astype(int))
        frames = list(source.frames(wanted[wanted < source.num_frames]))
    frames += [frames[-1]] * (length - len(frames))
    crops = made.cut(made.resize(np.stack(frames)))
    return crops[None] if length > 1 else crops[:, None]


if __name__ == "__main__":
    main()
