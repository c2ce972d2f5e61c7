"""Zheng et al. 2017, Multi-Level Recurrent Residual Networks for Action Recognition: Tables 1 to 3."""

from typing import Any

from temporal.papers import HMDB, UCF, Fuse, Line, Paper, Table, Train
from temporal.papers.inputs import Facts

LAYERS, UNITS = (3, 4, 5), (256, 512, 1024)
TABLE_1 = {256: (48.10, 48.10, 43.92), 512: (48.17, 49.28, 46.21), 1024: (50.78, 49.61, 47.71)}
TABLE_2 = {
    ("mean", "low"): (26.60, 46.50), ("mean", "mid"): (36.80, 64.16), ("mean", "high"): (50.78, 81.38),
    ("max", "low"): (25.36, 45.23), ("max", "mid"): (35.82, 64.96), ("max", "high"): (47.78, 81.25),
}  # fmt: skip
WEIGHTS = {"high": 0.7, "mid": 0.2, "low": 0.1}
FASTER = 1e-4  # "In the case of low-level representations and mid-level representations, we change the learning rate to 1e-4"
QUICK_RATE = 1e-3  # 12 epochs over few videos are too few steps for the paper's rate


def tables(facts: Facts) -> list[Table]:
    """All of them."""
    return [_hyper_parameters(facts), _levels(facts), _fused(facts)]


def _level(facts: Facts, level: str, varied: dict[str, Any]) -> Train:
    base: dict[str, Any] = {"head.hidden": facts.units(1024)}
    if level != "high":
        base["train.learning_rate"] = FASTER
    if facts.quick:
        base["train.learning_rate"] = QUICK_RATE
    if not facts.framed("levels", level):
        base["sequence.samples"] = "video"  # a clip is one vector here, so a video is one sequence of them
    return Train((("levels", level),), varied, base)


def _hyper_parameters(facts: Facts) -> Table:
    lines = []
    for units, row in TABLE_1.items():
        for layers, published in zip(LAYERS, row, strict=True):
            train = _level(facts, "high", {"head.layers": layers, "head.hidden": facts.units(units)})
            lines.append(Line((f"{units} units", str(layers)), train, {HMDB: published}))
    said = "“We fix the number of hidden units as 1024 and layers as 3.” High level, first split of HMDB-51."
    return Table("Table 1", "SRU layers and units", said, ("hidden units", "layers"), tuple(lines), curve=True)


def _levels(facts: Facts) -> Table:
    lines = []
    for (pool, level), (hmdb, ucf) in TABLE_2.items():
        lines.append(Line((level, pool), _level(facts, level, {"head.output": pool}), {HMDB: hmdb, UCF: ucf}))
    said = "“Mean pooling is superior to max pooling in most case.” Class scores of all steps are pooled before the softmax."
    return Table("Table 2", "Levels and pooling over time", said, ("level", "pooling"), tuple(lines))


def _fused(facts: Facts) -> Table:
    levels = {level: _level(facts, level, {"head.output": "mean"}) for level in WEIGHTS}
    lines = [
        Line(("high",), levels["high"], {HMDB: 50.8, UCF: 81.4}),
        Line(("0.7 high + 0.2 mid + 0.1 low",), Fuse(levels, "weighted", WEIGHTS), {HMDB: 51.3, UCF: 81.9}),
    ]
    said = "“The combined model can merge information in different depth and there are some benefits to improve the precision.”"
    return Table("Table 3", "Fusion of the levels' softmax scores", said, ("model",), tuple(lines))


PAPER = Paper(
    "zheng2017",
    "Zheng, An, Ruan: Multi-Level Recurrent Residual Networks for Action Recognition (2017)",
    {"levels": "features of three levels of a ResNet, every frame of each clip kept: preset resnet34-mrrn"},
    {"low": "block2", "mid": "block3", "high": "block4"},
    {},
    tables,
)
