"""Features of one video that others extracted with published weights (video_features by V. Iashin), and ours of the same frames.

The reference is a folder laid out as docs/testing.md says. What is compared is our whole path: decoding, clips, crops, network.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from extract.backbones import Backbone, resolve_levels
from extract.clips import clip_indices, frame_spans, time_spans
from extract.compare import Comparison, Tolerance, compare, differ
from extract.decode import ClipPlan
from extract.network import Network
from extract.precision import exact_arithmetic
from extract.spec import ClipSpec, CropSpec, DecodeSpec, FeatureSpec
from extract.video import TIE_SECONDS, VideoSource, open_source
from extract.video_features import VideoFeatures
from store.errors import PipelineError

VIDEO = "v_GGSY1Qvo990"
FEATURES, VIDEOS = "features/video_features_reference.npz", "videos/video_features_sample"
BLOCK = 32  # frames decoded at a time
PASS = 8  # clips or frames in a forward pass

SAME_FRAMES = Tolerance(0.999, 0.02, "same frames, resized to bytes by another library")
FLOAT_FRAMES = Tolerance(0.995, 0.1, "same frames, resized without rounding to bytes")
ENCODED_ANEW = Tolerance(0.95, 0.35, "made from the video encoded anew at another frame rate; measured 0.978 and 0.17 for MobileNetV2")


@dataclass(frozen=True)
class VideoReference:
    """One array of the reference, and what it takes to make it."""

    key: str
    backbone: str
    level: str
    made_with: str  # the weights
    clips: ClipSpec
    crops: CropSpec
    tolerance: Tolerance
    fps: float = 0.0  # frame rate that the video was encoded anew at; 0: not at all
    ahead: int = 0  # frames after a clip that must be there, though the network does not see them


def _frames(step: int = 1) -> ClipSpec:
    return ClipSpec("every", length=1, stride=step)


def _stacks(length: int, stride: int) -> ClipSpec:
    return ClipSpec("sliding", length=length, stride=stride)


_I3D, _R21D = f"i3d/{VIDEO}_None_raft", f"r21d/{VIDEO}_r2plus1d_18_16_kinetics_None_None_None"
_KINETICS_I3D = "published:imagenet_kinetics400_hassony2"
_224, _S3D, _112 = CropSpec(), CropSpec(resize=(224,)), CropSpec(resize=(171, 128), size=112)
REFERENCES = (
    VideoReference(
        f"resnet/{VIDEO}_resnet34_64_None_resnet", "resnet34", "block4", "published:IMAGENET1K_V1", _frames(), _224, SAME_FRAMES
    ),
    VideoReference(
        f"resnet/{VIDEO}_resnet101_1_1_resnet", "resnet101", "block4", "published:IMAGENET1K_V1", _frames(), _224, ENCODED_ANEW, 1.0
    ),
    VideoReference(f"{_R21D}_r21d", "r2plus1d_18", "features", "published:KINETICS400_V1", _stacks(16, 16), _112, FLOAT_FRAMES),
    VideoReference(f"{_I3D}_None_None_None_rgb", "i3d_rgb", "features", _KINETICS_I3D, _stacks(64, 64), _224, SAME_FRAMES, 0.0, 1),
    VideoReference(f"{_I3D}_24_24_25_rgb", "i3d_rgb", "features", _KINETICS_I3D, _stacks(24, 24), _224, ENCODED_ANEW, 25.0, 1),
    VideoReference(f"{_I3D}_24_12_15_rgb", "i3d_rgb", "features", _KINETICS_I3D, _stacks(24, 12), _224, ENCODED_ANEW, 15.0, 1),
    VideoReference(
        f"s3d/{VIDEO}_None_None_None_s3d", "s3d_kylemin", "features", "Kyle Min's S3D", _stacks(64, 64), _S3D, ENCODED_ANEW, 25.0
    ),
    VideoReference(f"s3d/{VIDEO}_32_32_20_s3d", "s3d_kylemin", "features", "Kyle Min's S3D", _stacks(32, 32), _S3D, ENCODED_ANEW, 20.0),
)


def compare_video(backbone: Backbone, folder: Path, device: torch.device) -> Iterator[Comparison]:
    """Each reference of ``backbone`` in ``folder`` against our features; those that the folder does not have are left out.

    ``backbone`` is prepared (float32, on the device). Also compares the time stamps where the reference has them.
    """
    wanted = [each for each in REFERENCES if each.backbone == backbone.info.name]
    path = folder / FEATURES
    if not wanted or not path.is_file():
        return
    arrays = _arrays(path)
    for reference in wanted:
        if reference.key in arrays:
            yield from _compare(reference, arrays, backbone, folder / VIDEOS / f"{VIDEO}.mp4", device)


def _arrays(path: Path) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: stored[name] for name in stored.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise PipelineError(f"{path} is damaged or no .npz file of arrays ({error}); take it out of the folder, or copy it again") from None


def _compare(
    reference: VideoReference, arrays: dict[str, np.ndarray], backbone: Backbone, video: Path, device: torch.device
) -> Iterator[Comparison]:
    with open_source(video, DecodeSpec()) as source:
        plan = plan_clips(source, reference)
        features = run(backbone, reference, plan, source, device)
    yield compare(reference.key, reference.made_with, arrays[reference.key], features, reference.tolerance)
    stamps = arrays.get(reference.key.rpartition("_")[0] + "_timestamps_ms")
    if stamps is not None:
        yield differ(f"{reference.key}: time stamps in ms", stamps, stamp(plan, reference), 0.01)


def plan_clips(source: VideoSource, reference: VideoReference) -> ClipPlan:
    """The clips that the reference was made of, as frames of the video itself; times of a video encoded anew are those of its frames."""
    shown = filtered_indices(source.times, source.end, reference.fps) if reference.fps else np.arange(source.num_frames)
    times = np.arange(len(shown)) / reference.fps if reference.fps else source.times
    if len(shown) - reference.ahead < reference.clips.length:
        raise PipelineError(f"{source.path} has {len(shown)} frames, too few for the reference {reference.key}")
    indices = clip_indices(len(shown) - reference.ahead, reference.clips)
    return ClipPlan(shown[indices], frame_spans(indices), time_spans(indices, times, source.end))


def stamp(plan: ClipPlan, reference: VideoReference) -> np.ndarray:
    """Time stamps as the reference means them, in ms: a frame's beginning; of a stack, the beginning of the frame behind it: our clip's
    end."""
    return plan.times[:, 1 if reference.clips.length > 1 else 0] * 1000


def run(backbone: Backbone, reference: VideoReference, plan: ClipPlan, source: VideoSource, device: torch.device) -> np.ndarray:
    """Features of the clips of ``plan`` as extraction computes them: float32 [N, D]."""
    level = resolve_levels(backbone.info, (reference.level,))
    spec = FeatureSpec(reference.backbone, level, clips=reference.clips, crops=reference.crops, dtype="float32")
    gathering = VideoFeatures(Network(backbone, spec, device, PASS), plan)
    block: list[np.ndarray] = []
    with exact_arithmetic():
        for number, frame in enumerate(source.frames(plan.wanted), start=1):
            block.append(frame)
            if len(block) == BLOCK or number == len(plan.wanted):
                gathering.add(np.stack(block))
                block = []
        return gathering.finish().values[level[0]]


def filtered_indices(times: np.ndarray, end: float, fps: float) -> np.ndarray:
    """Source frame that FFmpeg's filter ``fps`` shows in each of its output frames: int64 [K].

    Its rule: frame i has the place round(times[i] * fps), and each place shows the last frame whose own place is not after it. At 1
    frame a second that is a frame shown half a second later; ``DecodeSpec.fps`` takes the nearest in time instead.
    """
    places = np.floor(times * fps + 0.5 + TIE_SECONDS).astype(np.int64)
    count = max(1, int(np.floor(end * fps + 0.5 + TIE_SECONDS)))
    return np.searchsorted(places, np.arange(count), side="right") - 1
