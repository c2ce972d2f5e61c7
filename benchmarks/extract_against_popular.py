"""The fast preset against the same network driven as popular extractors drive one: from encoded videos to features on the disk.

The popular way, after video_features and its like: OpenCV decodes in line, Pillow and torchvision transform each frame by itself, the
crops of one frame (one clip's stack) at a time go through the network in float32, and each video becomes one .npy file. It decodes the
frames that it needs only, as the preset does; many extractors run over all of them. C3D's poolings are ``max_pool3d`` there, as in the
PyTorch conversions that are in use. It runs in a process of its own, as it does where people use it: the extraction
sets the memory allocator of its process for large blocks (``store.memory.keep_memory``), from which it would gain as well.

How near the preset comes to what the processor can do at all is told as its rate of multiplications, everything else included, against that
of a large bf16 matrix product in the same run.
`python benchmarks/extract_against_popular.py PRESET ...` runs some of the cases.
"""

import multiprocessing
import sys
import tempfile
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path

import cv2
import numpy as np
import torch
from figures import alternate, report
from material import video_list
from PIL import Image
from torch.nn import functional
from torch.utils.flop_counter import FlopCounterMode
from torchvision import transforms

from extract.backbones import Backbone
from extract.backbones.c3d import C3D
from extract.clips import clip_indices
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import FeatureSpec, RunOptions
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import VideoList

BAR = 2.5
CPU = torch.device("cpu")
SIDE, PRODUCTS = 2048, 20  # of the matrices
VIDEOS = {"resnet34-tencrop": 2, "resnet34-mrrn": 1, "c3d": 2}


def main() -> None:
    """Print how many times as fast the fast presets are."""
    for name, count in VIDEOS.items():
        if sys.argv[1:] and name not in sys.argv[1:]:
            continue
        with tempfile.TemporaryDirectory() as folder:
            compare(name, count, Path(folder))


def compare(name: str, count: int, folder: Path) -> None:
    """One preset over ``count`` videos."""
    videos = video_list(count, folder)
    spec, fast = prepare_spec(f"{name}-fast", {}, "random:0", CPU)
    matrix = torch.rand(SIDE, SIDE).bfloat16()
    runs = 0

    def ours() -> None:
        nonlocal runs
        runs += 1
        store = FeatureStore.create(folder / str(runs), "bench", to_plain(spec))
        assert extract_features(videos, spec, store, fast, RunOptions(device="cpu", workers=1)).done == count

    def theirs() -> None:
        here.send(True)
        here.recv()

    def products() -> None:
        for _ in range(PRODUCTS):
            matrix @ matrix

    with FlopCounterMode(display=False) as counted:
        ours()
    spawn = multiprocessing.get_context("spawn")  # a fork would have what this process has set, and OpenMP's threads not
    here, there = spawn.Pipe()
    extractor = spawn.Process(target=popular_extractor, args=(name, videos, folder, there), daemon=True)
    extractor.start()
    there.close()  # an extractor that dies is an EOFError here, not a wait without end
    here.recv()
    popular, quick, product = alternate(theirs, ours, products)
    here.send(False)
    extractor.join()
    report(f"{name}-fast, {count} videos", popular / quick, "times as fast", "in-line OpenCV, PIL, one stack at a time, fp32", BAR)
    rate = counted.get_total_flops() / quick / (2 * SIDE**3 * PRODUCTS / product)
    report(f"{name}-fast, rate of multiplications", rate, "ratio", f"a bf16 product of {SIDE} x {SIDE} matrices")


def popular_extractor(name: str, videos: VideoList, folder: Path, told: Connection) -> None:
    """All the videos in the popular way, each time ``told`` says so; it is answered when the features are on the disk."""
    spec, backbone = prepare_spec(name, {}, "random:0", CPU)
    if isinstance(backbone, C3D):
        backbone.pool = popular_pool  # type: ignore[method-assign]
    popular = stacks_one_by_one if backbone.info.clip_length > 1 else clips_one_by_one if spec.crops.count == 1 else frames_one_by_one
    told.send(None)
    while told.recv():
        for video in videos:
            for level, values in popular(backbone, video.path, spec).items():
                np.save(folder / f"{Path(video.id).name}-{level}.npy", values)
        told.send(None)


def popular_pool(number: int, x: torch.Tensor) -> torch.Tensor:
    """``C3D.pool`` as the PyTorch conversions in use have it."""
    if number == 1:
        return functional.max_pool3d(x, (1, 2, 2))
    return functional.max_pool3d(x, 2, padding=(0, 1, 1) if number == 5 else 0)


def decoded(path: Path) -> list[np.ndarray]:
    """All frames, as OpenCV reads them."""
    capture, frames = cv2.VideoCapture(str(path)), []
    while (read := capture.read())[0]:
        frames.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
    return frames


@torch.no_grad()
def frames_one_by_one(backbone: Backbone, path: Path, spec: FeatureSpec) -> dict[str, np.ndarray]:
    """Ten crops of each wanted frame, one frame at a time: [N, D] a level."""
    crops = [
        transforms.TenCrop(backbone.info.size),
        transforms.Lambda(lambda crops: torch.stack([transforms.ToTensor()(crop) for crop in crops])),
    ]
    frames, transform = decoded(path), of_frame(backbone, crops)
    wanted = clip_indices(len(frames), spec.clips)[:, 0].tolist()
    return gathered(mean_of_crops(backbone(transform(Image.fromarray(frames[index])), spec.levels)) for index in wanted)


@torch.no_grad()
def clips_one_by_one(backbone: Backbone, path: Path, spec: FeatureSpec) -> dict[str, np.ndarray]:
    """The centre crop of every frame of a clip, one clip at a time: [N, T, D] a level."""
    frames, transform = decoded(path), of_frame(backbone, [transforms.CenterCrop(backbone.info.size), transforms.ToTensor()])
    clips = clip_indices(len(frames), spec.clips).tolist()
    return gathered(backbone(torch.stack([transform(Image.fromarray(frames[index])) for index in clip]), spec.levels) for clip in clips)


@torch.no_grad()
def stacks_one_by_one(backbone: Backbone, path: Path, spec: FeatureSpec) -> dict[str, np.ndarray]:
    """The centre crop of each clip, one clip at a time: [N, D] a level. For C3D, which takes bytes, blue first."""
    width, height = backbone.info.resize
    steps = [transforms.Resize((height, width)), transforms.CenterCrop(backbone.info.size), transforms.PILToTensor()]
    frames, transform = decoded(path), transforms.Compose(steps)
    results = []
    for clip in clip_indices(len(frames), spec.clips).tolist():
        stack = torch.stack([transform(Image.fromarray(frames[index])).float() for index in clip], 1)
        results.append(backbone(stack.flip(0)[None], spec.levels))
    return gathered({name: level[0] for name, level in result.items()} for result in results)


def of_frame(backbone: Backbone, crops: list[Callable[..., object]]) -> Callable[[Image.Image], torch.Tensor]:
    """Resize, what ``crops`` does, normalise."""
    info = backbone.info
    return transforms.Compose([transforms.Resize(info.resize[0]), *crops, transforms.Normalize(info.mean, info.std)])


def mean_of_crops(levels: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """[n, D] -> [D]."""
    return {name: level.mean(0) for name, level in levels.items()}


def gathered(results: Iterable[dict[str, torch.Tensor]]) -> dict[str, np.ndarray]:
    """The results of one stack after another as one array a level."""
    each = list(results)
    return {name: np.stack([result[name].numpy() for result in each]) for name in each[0]}


if __name__ == "__main__":
    main()
