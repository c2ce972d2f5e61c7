"""The fast preset against the same network driven as popular extractors drive one: from encoded videos to features on the disk.

The popular way, after video_features and its like: OpenCV decodes in line, Pillow and torchvision transform each frame by itself, the
crops of one frame (one clip's stack) at a time go through the network in float32, and each video becomes one .npy file. It decodes the
frames that it needs only, as the preset does; many extractors run over all of them.
"""

import tempfile
from pathlib import Path

import cv2
import numpy as np
import torch
from figures import alternate, report
from material import video_list
from PIL import Image
from torchvision import transforms

from extract.backbones import Backbone
from extract.clips import clip_indices
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import ClipSpec, RunOptions
from store.digest import to_plain
from store.features import FeatureStore

BAR = 2.5
CPU = torch.device("cpu")
VIDEOS = {"resnet34-tencrop": 2, "c3d": 4}


def main() -> None:
    """Print how many times as fast the fast presets are."""
    for name, count in VIDEOS.items():
        with tempfile.TemporaryDirectory() as folder:
            compare(name, count, Path(folder))


def compare(name: str, count: int, folder: Path) -> None:
    """One preset over ``count`` videos."""
    videos = video_list(count, folder)
    plain, backbone = prepare_spec(name, {}, "random:0", CPU)
    spec, fast = prepare_spec(f"{name}-fast", {}, "random:0", CPU)
    runs = 0

    def ours() -> None:
        nonlocal runs
        runs += 1
        store = FeatureStore.create(folder / str(runs), "bench", to_plain(spec))
        assert extract_features(videos, spec, store, fast, RunOptions(device="cpu", workers=1)).done == count

    def theirs() -> None:
        for video in videos:
            popular = frames_one_by_one if backbone.info.clip_length == 1 else stacks_one_by_one
            np.save(folder / f"{Path(video.id).name}.npy", popular(backbone, video.path, plain.clips))

    popular, quick = alternate(theirs, ours)
    report(f"{name}-fast, {count} videos", popular / quick, "times as fast", "in-line OpenCV, PIL, one stack at a time, fp32", BAR)


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, as OpenCV reads them."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


@torch.no_grad()
def frames_one_by_one(backbone: Backbone, path: Path, clips: ClipSpec) -> np.ndarray:
    """Ten crops of each wanted frame, one frame at a time: [N, D]."""
    info = backbone.info
    transform = transforms.Compose(
        [
            transforms.Resize(info.resize[0]),
            transforms.TenCrop(info.size),
            transforms.Lambda(lambda crops: torch.stack([transforms.ToTensor()(crop) for crop in crops])),
            transforms.Normalize(info.mean, info.std),
        ]
    )
    frames = decoded(path)
    wanted = clip_indices(len(frames), clips)[:, 0].tolist()
    return np.stack([next(iter(backbone(transform(Image.fromarray(frames[index]))).values())).mean(0).numpy() for index in wanted])


@torch.no_grad()
def stacks_one_by_one(backbone: Backbone, path: Path, clips: ClipSpec) -> np.ndarray:
    """The centre crop of each clip, one clip at a time: [N, D]."""
    info = backbone.info
    width, height = info.resize
    transform = transforms.Compose(
        [
            transforms.Resize((height, width)),
            transforms.CenterCrop(info.size),
            transforms.PILToTensor(),
            transforms.Lambda(lambda x: x.float()),
        ]
    )
    frames = decoded(path)
    features = []
    for clip in clip_indices(len(frames), clips).tolist():
        stack = torch.stack([transform(Image.fromarray(frames[index])) for index in clip], 1)
        features.append(next(iter(backbone(stack.flip(0)[None], ("fc6",)).values()))[0].numpy())
    return np.stack(features)


if __name__ == "__main__":
    main()
