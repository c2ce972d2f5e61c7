"""How large should a forward pass be, what would it gain to fill passes with clips of several videos, and may one?

A pass may mix videos only where a row's features do not depend on its place: looked at here for networks of every kind. What mixing gains
is a question of the size of passes: as many frames as one short video has, or as many as the processor likes.
"""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from figures import alternate, report
from material import video_list

from extract.network import Network
from extract.precision import exact_arithmetic
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import RunOptions
from store.digest import to_plain
from store.features import FeatureStore

CPU = torch.device("cpu")
SIZES = {"mobilenet-rgb": (1, 4, 8, 16, 32), "resnet34-tencrop-fast": (1, 4, 8, 16, 32), "c3d-fast": (1, 2, 4)}
NETWORKS = ("resnet34", "mobilenet_v2", "tsn_bninception_rgb", "r2plus1d_18", "tiny3d")
ARITHMETIC = ({}, {"channels_last": True}, {"channels_last": True, "precision": "bf16"})
SHORT = 3  # clips of one short video


def main() -> None:
    """Print time an image by size of the pass, what mixing gains, and whether rows agree."""
    for preset, sizes in SIZES.items():
        by_size(preset, sizes)
    for name in NETWORKS:
        agreeing = 0
        for arithmetic in ARITHMETIC:
            spec, backbone = prepare_spec(None, {"backbone": name, **arithmetic}, "random:0", CPU)
            with exact_arithmetic():
                agreeing += Network(backbone, spec, CPU, 8).rows_agree()
        title = f"{name}: arithmetics in which a row's features are the same at every place"
        report(title, agreeing, f"of {len(ARITHMETIC)}", "the first place of the pass", len(ARITHMETIC))
    mixing()


def by_size(preset: str, sizes: tuple[int, ...]) -> None:
    """Time an image or clip takes in passes of several sizes."""
    spec, backbone = prepare_spec(preset, {"crops": {"count": 1}}, "random:0", CPU)
    row = Network(backbone, spec, CPU, 1).noise()
    inputs = [Network(backbone, spec, CPU, size).images(row.expand(size, *[-1] * 5)) for size in sizes]
    with torch.inference_mode(), exact_arithmetic():
        seconds = alternate(*[partial(backbone, images, spec.levels) for images in inputs])
    each = [second / size for second, size in zip(seconds, sizes, strict=True)]
    for size, second in zip(sizes[:-1], each, strict=False):
        report(f"{preset}, an image or clip in a pass of {size}", second / each[-1], "times as long", f"in a pass of {sizes[-1]}")


def mixing() -> None:
    """Videos of a few clips each: passes of one video against mixed ones."""
    with tempfile.TemporaryDirectory() as folder:
        videos = video_list(24, Path(folder))
        spec, backbone = prepare_spec("mobilenet-rgb", {"clips": {"segments": SHORT}}, "random:0", CPU)
        runs = 0

        def extract(mixed: str) -> None:
            nonlocal runs
            runs += 1
            store = FeatureStore.create(Path(folder) / str(runs), "bench", to_plain(spec))
            extract_features(videos, spec, store, backbone, replace(RunOptions(device="cpu", workers=1), mixed=mixed))

        alone, together = alternate(lambda: extract("no"), lambda: extract("yes"))
        report(f"mixed passes, MobileNetV2, {SHORT} frames a video", alone / together, "times as fast", "passes of one video")


if __name__ == "__main__":
    main()
