"""Where should flow be computed: in the decode workers, or by the job on the network's device? Whole extractions both ways, in turns.

The network is the small one, so that flow is what takes the time. ``--flow-on auto`` (the device on CUDA, the workers else) should be the
faster one. On CUDA also pairs a second end to end, and where the time went: what bounds it.
"""

import sys
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from figures import alternate, report
from material import video_list

from extract.device import resolve_device
from extract.prepare import prepare_spec
from extract.run import Summary, extract_features
from extract.spec import RunOptions
from store.digest import to_plain
from store.features import FeatureStore

GPU_BAR = 100  # pairs of 340 x 256 a second
FRAMES = ("videos/c3d_examples/*.avi", "videos/torchvision_assets/*.[am][vp][i4]")  # 320 x 240, all but one
CASES = {  # method, parameters, weights, pairs of a video, videos by device
    "tvl1": ({}, "", 8, {"cpu": 6, "cuda": 60}),
    "raft_large": ({"updates": 12.0}, "random:0", 2, {"cpu": 0, "cuda": 60}),  # minutes on a processor
}


def main() -> None:
    """Print a ratio for each method."""
    device = resolve_device("auto")
    for method, (params, weights, pairs, counts) in CASES.items():
        if counts[device.type]:
            with tempfile.TemporaryDirectory() as folder:
                measure(method, params, weights, pairs, counts[device.type], device, Path(folder))


def measure(method: str, params: dict[str, float], weights: str, pairs: int, count: int, device: torch.device, folder: Path) -> None:
    """One method over ``count`` videos."""
    settings = {"flow": {"method": method, "params": params, "short_side": 256}, "clips": {"segments": pairs}}
    spec, backbone = prepare_spec("tiny-flow", settings, "random:0", device, weights)
    options = RunOptions(device=str(device), flow_weights=weights)
    videos = video_list(count, folder, FRAMES)
    last: dict[str, Summary] = {}

    def extract(where: str) -> None:
        store = FeatureStore.create(folder / where / str(len(list(folder.glob(f"{where}/*")))), "bench", to_plain(spec))
        last[where] = extract_features(videos, spec, store, backbone, replace(options, flow_on=where))  # type: ignore[arg-type]
        assert last[where].done == count, last[where].failed

    in_workers, on_device = alternate(lambda: extract("workers"), lambda: extract("device"))
    what = f"{method}, {count * pairs} pairs of {count} videos, network and flow on {device.type}"
    report(f"flow by the job, {what}", in_workers / on_device, "times as fast", "in decode workers")
    report(f"flow in decode workers, {what}", count * pairs / in_workers, "pairs/s", "end to end")
    bar = GPU_BAR if device.type == "cuda" else None
    report(f"flow by the job, {what}", count * pairs / on_device, "pairs/s", f"end to end; {shares(last['device'])}", bar)


def shares(summary: Summary) -> str:
    """Where the time went."""
    return ", ".join(f"{stage} {seconds:.1f} s" for stage, seconds in summary.seconds.items())


if __name__ == "__main__":
    if not torch.cuda.is_available():
        print("no CUDA device: figures of the processor", file=sys.stderr)
    main()
