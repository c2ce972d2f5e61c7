"""The fast preset against the same network driven as extractors usually do it, over the same real videos.

The usual way: OpenCV decodes in line, Pillow and torchvision's transforms prepare one frame after the other, the network takes one stack of
frames at a time in fp32, and every video's features become one .npy file. It is given the frames to take: ours finds them by itself.
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

from extract.clips import clip_indices
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import FeatureSpec, RunOptions
from extract.video import open_source
from store.digest import to_plain
from store.features import FeatureStore
from store.videos import Video, VideoList

VIDEOS, BAR = 6, 2.5
STACK = 25  # frames


def main() -> None:
    """Print how many times as fast the extraction is, and that both compute the same features up to their arithmetic."""
    cpu = torch.device("cpu")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        videos = video_list(VIDEOS, folder, ("videos/ut_interaction/set1/*.avi",))
        fast, fast_network = prepare_spec("resnet34-tencrop-fast", {"crops": {"count": 1}}, "random:0", cpu)
        _, plain = prepare_spec("resnet34-tencrop", {"crops": {"count": 1}}, "random:0", cpu)
        wanted = {video.id: frames_of(video, fast) for video in videos}
        stores: list[FeatureStore] = []

        def ours() -> None:
            stores.append(FeatureStore.create(folder / str(len(stores)), "bench", to_plain(fast)))
            assert extract_features(videos, fast, stores[-1], fast_network, RunOptions(device="cpu", workers=1)).done == VIDEOS

        def usual() -> None:
            usual_way(videos, wanted, plain, folder)

        mine, theirs = alternate(ours, usual)
        title = f"ResNet-34, 25 segments, centre crop, {VIDEOS} videos, bf16 channels-last folded"
        report(title, theirs / mine, "times as fast", "the usual way, fp32", BAR)
        cosine = min(similarity(stores[-1], video, folder) for video in videos)
        report(f"{title}: least cosine of a feature", cosine, "cosine", "the usual way, fp32 and another resize", 0.99)


def frames_of(video: Video, spec: FeatureSpec) -> np.ndarray:
    """Which frames the clips take."""
    with open_source(video.path, spec.decode) as source:
        return clip_indices(source.num_frames, spec.clips)[:, 0]


def usual_way(videos: VideoList, wanted: dict[str, np.ndarray], network: torch.nn.Module, folder: Path) -> None:
    """Decode, transform and compute in one loop."""
    prepare = transforms.Compose(
        [
            transforms.Resize(256),
            transforms.CenterCrop(224),
            transforms.ToTensor(),
            transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225]),
        ]
    )
    with torch.no_grad(), exact_arithmetic():
        for video in videos:
            capture, decoded = cv2.VideoCapture(str(video.path)), []
            while (read := capture.read())[0]:
                decoded.append(cv2.cvtColor(read[1], cv2.COLOR_BGR2RGB))
            stack = [prepare(Image.fromarray(decoded[min(index, len(decoded) - 1)])) for index in wanted[video.id].tolist()]
            features = [network(torch.stack(stack[start : start + STACK]))["block4"] for start in range(0, len(stack), STACK)]
            np.save(folder / f"{video.id.replace('/', '-')}.npy", torch.cat(features).numpy())


def similarity(store: FeatureStore, video: Video, folder: Path) -> float:
    """The least cosine between both ways' features of one video's frames."""
    ours = store.get(video.id).values["block4"].astype(np.float64)
    theirs = np.load(folder / f"{video.id.replace('/', '-')}.npy").astype(np.float64)
    return float(((ours * theirs).sum(1) / np.linalg.norm(ours, axis=1) / np.linalg.norm(theirs, axis=1)).min())


if __name__ == "__main__":
    main()
