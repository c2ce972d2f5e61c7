"""The main job on UT-Interaction set 1, leave one sequence out: features, every head, fusion, and the table of docs/ut_interaction.md.

    python examples/ut_interaction.py VIDEOS --weights WEIGHTS [--out FOLDER] [--heads NAME,NAME] [--jobs N]

VIDEOS is the folder of the set's clips (``<index>_<sequence>_<class>.avi``), WEIGHTS an ImageNet MobileNetV2 or ``published``. Everything
that is there already is kept, so it can be interrupted and run again, and ``--table`` prints what is there.
"""

import argparse
import json
import math
from collections import Counter
from pathlib import Path
from statistics import mean, stdev

import numpy as np
from commands import actioncache

from store.scores import ScoreTable

PATTERN = r"\d+_(?P<group>\d+)_(?P<label>\d)\.avi"
CLASSES = "0=shake_hands,1=hug,2=kick,3=point,4=punch,5=push"
STREAMS = ("rgb", "flow")
HEADS = (
    "res_lstm",
    "mean",
    "mean_std",
    "max",
    "svm_mean",
    "svm_mean_std",
    "gru",
    "lstm",
    "sru",
    "res_gru",
    "res_sru",
    "temporal_conv",
    "transformer",
)
SEEDS = (0, 1, 2, 3, 4)
TRAINING = ["--sequence.znorm", "--train.epochs", "60", "--train.patience", "10", "--train.refit"]
RULES = {"sum": ["--rule", "sum"], "product": ["--rule", "product"], "weighted": ["--rule", "weighted", "--weights", "rgb=1,flow=1.5"]}
COLUMNS = ("rgb", "flow", "mid sum", "mid product", *(f"late {rule}" for rule in RULES), "product, all seeds")


def extract(videos: Path, weights: str, out: Path) -> tuple[Path, dict[str, Path]]:
    """The list, and the stores of both streams: the mean of ten crops."""
    listed = out / "ut.csv"
    actioncache("list", videos, "--pattern", PATTERN, "--class-names", CLASSES, "-o", listed)
    stores = {}
    for stream in STREAMS:
        preset = f"mobilenet-{stream}-tencrop"
        printed = actioncache("extract", listed, "--preset", preset, "--weights", weights, "--out", out / "features", "--json")
        stores[stream] = Path(json.loads(printed)["store"])
    return listed, stores


def train(listed: Path, stores: dict[str, Path], out: Path, head: str, jobs: int) -> None:
    """One head on each stream and on both by mid fusion: ten folds, five seeds. A fold's test sequence takes no part in its training."""
    common = ["--head.name", head, *TRAINING, "--cross-validate", "--seeds", ",".join(map(str, SEEDS)), "--jobs", str(jobs)]
    streams = ["--grid", "features=" + ",".join(str(stores[stream]) for stream in STREAMS)]
    actioncache("sweep", listed, "--name", f"streams-{head}", "--out", out / "sweeps", *streams, *common)
    both = [word for stream in STREAMS for word in ("--features", str(stores[stream]))]
    actioncache("sweep", listed, "--name", f"mid-{head}", "--out", out / "sweeps", *both, "--grid", "sequence.mid=sum,product", *common)


def runs(out: Path, head: str) -> dict[str, Path]:
    """The folder of each input's five cross-validations, as the sweeps tell."""
    found = {}
    for name in ("streams", "mid"):
        path = out / "sweeps" / f"{name}-{head}" / "sweep.json"
        for setting in json.loads(path.read_text())["settings"] if path.is_file() else ():
            mid = setting["spec"]["sequence"]["mid"]
            stream = next(stream for stream in STREAMS if f"-{stream}-" in Path(setting["features"][0]).name)
            if not setting["failure"]:
                found[stream if mid == "none" else f"mid {mid}"] = Path(setting["run"])
    return found


def accuracies(out: Path, head: str) -> dict[str, list[float]]:
    """Top-1 in per cent of each column, a value a seed (one for all seeds together)."""
    folders = runs(out, head)
    files = {name: [folder / f"seed-{seed}" / "scores.npz" for seed in SEEDS] for name, folder in folders.items()}
    if all(stream in folders for stream in STREAMS):
        for rule, words in RULES.items():
            files[f"late {rule}"] = [out / "scores" / f"{rule}-{head}-{seed}.npz" for seed in SEEDS]
            for at, fused in enumerate(files[f"late {rule}"]):
                actioncache("fuse", *(f"{stream}={files[stream][at]}" for stream in STREAMS), *words, "-o", fused, show=False)
        everything = out / "scores" / f"all-{head}.npz"
        tables = [f"{stream}{seed}={file}" for stream in STREAMS for seed, file in zip(SEEDS, files[stream], strict=True)]
        actioncache("fuse", *tables, "--rule", "product", "-o", everything, show=False)
        files["product, all seeds"] = [everything]
    named = {f"{name}:{at}": file for name, paths in files.items() for at, file in enumerate(paths)}
    if not named:
        return {}
    printed = actioncache("evaluate", *(f"{name}={path}" for name, path in named.items()), "--json", show=False)
    top1 = {row["name"]: 100 * row["top1"] for row in json.loads(printed)["tables"]}
    return {name: [top1[f"{name}:{at}"] for at in range(len(paths))] for name, paths in files.items()}


def table(out: Path, heads: tuple[str, ...]) -> str:
    """Markdown: top-1 accuracy in per cent, mean and deviation over the seeds."""
    lines = ["| head | " + " | ".join(COLUMNS) + " |", "| --- |" + " ---: |" * len(COLUMNS)]
    for head in heads:
        found = accuracies(out, head)
        cells = [_cell(found.get(column, [])) for column in COLUMNS]
        lines.append(f"| {head} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def chosen(out: Path, heads: tuple[str, ...], stream: str, seed: int, target: Path) -> list[str]:
    """Score each fold by the head of least loss on the fold's own validation part, into ``target``; returns the heads, a fold each."""
    folders = {head: runs(out, head).get(stream) for head in heads}
    seeds = {head: folder / f"seed-{seed}" for head, folder in folders.items() if folder and (folder / f"seed-{seed}" / "folds").is_dir()}
    names = sorted(fold.name for fold in (next(iter(seeds.values())) / "folds").iterdir())
    best = [min(seeds, key=lambda head: _loss(seeds[head] / "folds" / name)) for name in names]
    tables = [ScoreTable.load(seeds[head] / "folds" / name / "scores.npz") for head, name in zip(best, names, strict=True)]
    ids = tuple(id_ for table in tables for id_ in table.ids)
    values, labels = (np.concatenate([getattr(table, name) for table in tables]) for name in ("values", "labels"))
    ScoreTable(ids, tables[0].classes, values, tables[0].kind, labels).save(target)
    return best


def _loss(fold: Path) -> float:
    """The least validation loss of its training; infinite for a head that has none, such as an SVM."""
    epochs = [json.loads(line) for line in (fold / "metrics.jsonl").read_text().splitlines()]
    return min((epoch["val_loss"] for epoch in epochs if epoch.get("val_loss") is not None), default=math.inf)


def with_chosen_rgb(out: Path, heads: tuple[str, ...]) -> str:
    """RGB by the head that each fold's validation part prefers, times Res-LSTM's flow: a line with mean, deviation and heads."""
    flow, picked, files = runs(out, "res_lstm")["flow"], Counter[str](), []
    for seed in SEEDS:
        rgb, fused = (out / "scores" / f"{name}-{seed}.npz" for name in ("chosen-rgb", "chosen-product"))
        picked.update(chosen(out, heads, "rgb", seed, rgb))
        actioncache("fuse", f"rgb={rgb}", f"flow={flow / f'seed-{seed}' / 'scores.npz'}", "--rule", "product", "-o", fused, show=False)
        files.append(f"{seed}={fused}")
    top1 = [100 * row["top1"] for row in json.loads(actioncache("evaluate", *files, "--json", show=False))["tables"]]
    times = ", ".join(f"{head} {count}" for head, count in picked.most_common())
    return f"RGB by the head of least validation loss ({times} folds), product with Res-LSTM's flow: {_cell(top1)}"


def _cell(values: list[float]) -> str:
    if len(values) < 2:
        return f"{values[0]:.1f}" if values else ""
    return f"{mean(values):.1f} ± {stdev(values):.1f}"


def main() -> None:
    """Run what is missing and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("videos", type=Path)
    parser.add_argument("--weights", required=True)
    parser.add_argument("--out", type=Path, default=Path("ut"))
    parser.add_argument("--heads", default=",".join(HEADS))
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--table", action="store_true", help="only print the table of what is there")
    arguments = parser.parse_args()
    heads = tuple(arguments.heads.split(","))
    if not arguments.table:
        listed, stores = extract(arguments.videos, arguments.weights, arguments.out)
        for head in heads:
            train(listed, stores, arguments.out, head, arguments.jobs)
    print(table(arguments.out, heads))
    if runs(arguments.out, "res_lstm").get("flow"):
        print(f"\n{with_chosen_rgb(arguments.out, heads)}")


if __name__ == "__main__":
    main()
