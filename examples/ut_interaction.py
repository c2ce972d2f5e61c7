"""The main job on UT-Interaction set 1, leave one sequence out: features, heads, fusion, and the table of docs/ut_interaction.md.

    python examples/ut_interaction.py VIDEOS --weights WEIGHTS [--out FOLDER]

VIDEOS is the folder of the set's clips (``<index>_<sequence>_<class>.avi``), WEIGHTS an ImageNet MobileNetV2 or ``published``. Everything
that is there already is kept, so it can be interrupted and run again.
"""

import argparse
import json
from pathlib import Path
from statistics import mean, stdev

from commands import actioncache

PATTERN = r"\d+_(?P<group>\d+)_(?P<label>\d)\.avi"
CLASSES = "0=shake_hands,1=hug,2=kick,3=point,4=punch,5=push"
HEADS = ("mean", "mean_std", "lstm", "gru", "res_lstm", "res_gru")
CROPS = {"": "1", "-tencrop": "10"}
SEEDS = (0, 1, 2)
TRAINING = ["--sequence.znorm", "--train.epochs", "60", "--train.patience", "10", "--train.refit"]
RULES = {"sum": ["--rule", "sum"], "product": ["--rule", "product"], "weighted": ["--rule", "weighted", "--weights", "rgb=1,flow=1.5"]}


def extract(videos: Path, weights: str, out: Path) -> tuple[Path, dict[str, Path]]:
    """The list, and the four stores by preset: RGB and flow, centre crop and ten crops."""
    listed = out / "ut.csv"
    actioncache("list", videos, "--pattern", PATTERN, "--class-names", CLASSES, "-o", listed)
    stores = {}
    for preset in (f"mobilenet-{stream}{crops}" for crops in CROPS for stream in ("rgb", "flow")):
        printed = actioncache("extract", listed, "--preset", preset, "--weights", weights, "--out", out / "features", "--json")
        stores[preset] = Path(json.loads(printed)["store"])
    return listed, stores


def train(listed: Path, stores: dict[str, Path], out: Path) -> None:
    """Every head on every store: ten folds, three seeds. A fold's test sequence has no part in anything before it is scored."""
    seeds = ",".join(map(str, SEEDS))
    for preset, store in stores.items():
        for head in HEADS:
            name = f"{preset.removeprefix('mobilenet-')}-{head}"
            run = ["train-head", listed, "--features", store, "--name", name, "--out", out / "runs", "--head.name", head, *TRAINING]
            actioncache(*run, "--cross-validate", "--seeds", seeds)


def scores(out: Path, crops: str, head: str, seed: int) -> dict[str, Path]:
    """Score tables of one head and seed by name: both streams and every fusion of them."""
    streams = {stream: out / "runs" / f"{stream}{crops}-{head}" / f"seed-{seed}" / "scores.npz" for stream in ("rgb", "flow")}
    named = [f"{stream}={path}" for stream, path in streams.items()]
    fused = {rule: out / "scores" / f"{rule}{crops}-{head}-{seed}.npz" for rule in RULES}
    for rule, path in fused.items():
        actioncache("fuse", *named, *RULES[rule], "-o", path, show=False)
    return streams | fused


def table(out: Path) -> str:
    """Markdown: top-1 accuracy in per cent, mean and deviation over the seeds."""
    columns = ["rgb", "flow", *RULES]
    lines = ["| crops | head | " + " | ".join(columns) + " |", "| --- | --- |" + " ---: |" * len(columns)]
    for crops, number in CROPS.items():
        for head in HEADS:
            inputs = {f"{name}-{seed}": path for seed in SEEDS for name, path in scores(out, crops, head, seed).items()}
            printed = actioncache("evaluate", *(f"{name}={path}" for name, path in inputs.items()), "--json", show=False)
            top1 = {row["name"]: 100 * row["top1"] for row in json.loads(printed)}
            cells = [[top1[f"{column}-{seed}"] for seed in SEEDS] for column in columns]
            lines.append(f"| {number} | {head} | " + " | ".join(f"{mean(cell):.1f} ± {stdev(cell):.1f}" for cell in cells) + " |")
    return "\n".join(lines)


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, default=Path("ut"))
    arguments = parser.parse_args()
    listed, stores = extract(arguments.videos, arguments.weights, arguments.out)
    train(listed, stores, arguments.out)
    print(table(arguments.out))


if __name__ == "__main__":
    main()
