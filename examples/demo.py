"""The main job on a small action set, with the commands that anyone would type: `make demo`.

It makes real encoded videos in which the order of events decides the class, extracts RGB and optical flow, trains heads on the cached
features, fuses the streams and writes a report. See make_demo_videos.py for what each stream can know.

    python examples/demo.py [FOLDER]
"""

import json
import sys
import time
from pathlib import Path

from commands import actioncache
from make_demo_videos import make_videos

STREAMS = {"rgb": "tiny", "flow": "tiny-flow"}
HEADS = {"mean": "mean pooling", "gru": "GRU", "res_lstm": "Res-LSTM"}
SETTINGS = ["--sequence.znorm", "--head.hidden", "64", "--train.learning-rate", "0.003"]
WEIGHTS = "random:0"


def extract(videos: Path, folder: Path) -> dict[str, Path]:
    """Stage one: both streams of every video into their stores; returns the stores."""
    stores = {}
    for stream, preset in STREAMS.items():
        printed = actioncache("extract", videos, "--preset", preset, "--weights", WEIGHTS, "--out", folder / "features", "--json")
        stores[stream] = Path(json.loads(printed)["store"])
    return stores


def train(videos: Path, stores: dict[str, Path], folder: Path) -> dict[str, Path]:
    """Stage two: each head on each stream, then both streams of a head together; returns the score tables by name."""
    tables = {}
    for head in HEADS:
        for stream, store in stores.items():
            name = f"{stream}-{head}"
            actioncache("train-head", videos, "--features", store, "--name", name, "--out", folder / "runs", "--head.name", head, *SETTINGS)
            tables[name] = folder / "runs" / name / "scores.npz"
        fused = folder / "scores" / f"fused-{head}.npz"
        actioncache("fuse", f"rgb={tables[f'rgb-{head}']}", f"flow={tables[f'flow-{head}']}", "--rule", "product", "-o", fused)
        tables[f"fused-{head}"] = fused
    return tables


def story(results: dict[str, float]) -> str:
    """The table: top-1 accuracy of each head on each stream and of their product."""
    columns = ["rgb", "flow", "fused"]
    lines = [f"{'top-1 accuracy on 64 unseen videos, 8 classes':48}" + "".join(f"{column:>9}" for column in columns)]
    for head, title in HEADS.items():
        lines.append(f"{title:48}" + "".join(f"{100 * results[f'{column}-{head}']:8.1f}%" for column in columns))
    lines.append(f"{'the most that RGB can know, in order':48}{50:8.1f}%")
    lines.append(f"{'  ... and averaged over time':48}{25:8.1f}%")
    return "\n".join(lines)


def main(folder: Path) -> None:
    """Run the whole job below ``folder``."""
    started = time.monotonic()
    print("Making 192 short videos in which the order of events decides the class ...", flush=True)
    videos = make_videos(folder / "videos")
    stores = extract(videos, folder)
    tables = train(videos, stores, folder)
    named = [f"{name}={path}" for name, path in tables.items()]
    results = {table["name"]: table["top1"] for table in json.loads(actioncache("evaluate", *named, "--json"))["tables"]}
    actioncache("frames", videos, "-o", folder / "frames")
    shown = [f"{name}={tables[name]}" for name in ("rgb-mean", "rgb-res_lstm", "flow-res_lstm", "fused-res_lstm")]
    actioncache("report", *shown, "-o", folder / "report", "--frames", folder / "frames", "--title", "actioncache demo")
    print(f"\n{story(results)}\n")
    print("The classes share their frames and differ only in their order, so a mean over time must fail and a recurrent head need not;")
    print("RGB does not show which way the camera turns, optical flow shows no colour, and their product combines the two.")
    print(f"Weights: the small network `tiny` with seeded random weights ({WEIGHTS}), which have learned nothing from any data set.")
    print(f"Report: {folder / 'report' / 'report.html'}")
    print(f"{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else "demo"))
