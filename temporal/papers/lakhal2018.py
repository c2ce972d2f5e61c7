"""Lakhal et al. 2018, Residual Stacked RNNs for Action Recognition: Fig. 3, Tables 1, 2 and 5."""

from collections.abc import Sequence
from typing import Any

from temporal.papers import HMDB, UCF, Fuse, How, Line, Paper, Scores, Table, Train
from temporal.papers.inputs import Facts, choose_units

SIZES = (256, 512, 1024, 2048)
KINDS = {"res_lstm": "Res-LSTM", "lstm": "LSTM", "res_gru": "Res-GRU", "gru": "GRU"}


def tables(facts: Facts) -> list[Table]:
    """All of them; the sizes fit the features that are there."""
    units = choose_units(facts, "rgb", 1024, SIZES)
    base = {"sequence.width": units, "head.hidden": units}
    return [_hidden(facts), _size(facts), _depth(base), _steps(base), _fusion(base), _final(base, facts.scores)]


def _rgb(varied: dict[str, Any], base: dict[str, Any]) -> Train:
    return Train((("rgb", ""),), varied, base)


def _too_wide(facts: Facts, units: int) -> str:
    limit = facts.pca_limit("rgb")
    if limit is None or units <= limit:
        return ""
    return f"PCA to {units} needs features and training clips for it; here are {facts.width('rgb')} and {facts.training_clips}"


def _hidden(facts: Facts) -> Table:
    lines = []
    for size in SIZES:
        varied = {"head.name": "lstm", "head.layers": 1, "sequence.projection": "none", "head.hidden": facts.units(size)}
        lines.append(Line(("LSTM", str(size)), _rgb(varied, {})))
    said = "“The best validation performance of the model increased before h = 1024 and stagnated after”. The figure has no numbers."
    return Table("Fig. 3 (a)", "Hidden units of an LSTM, without PCA", said, ("head", "hidden units"), tuple(lines), curve=True)


def _size(facts: Facts) -> Table:
    lines = []
    for head in ("res_lstm", "lstm"):
        for size in SIZES:
            units = facts.units(size)
            varied = {"head.name": head, "sequence.width": units, "head.hidden": units}
            lines.append(Line((KINDS[head], str(size)), _too_wide(facts, units) or _rgb(varied, {})))
    said = (
        "Features through PCA to d_m, two layers, with and without the residual connections: “the residual connections help "
        "generalization in both datasets”. The figure has no numbers."
    )
    return Table("Fig. 3", "Size d_m with and without residual connections", said, ("head", "d_m"), tuple(lines), curve=True)


def _depth(base: dict[str, Any]) -> Table:
    lines = [Line((text, str(n)), _rgb({"head.name": head, "head.layers": n}, base)) for head, text in KINDS.items() for n in (2, 3, 4)]
    said = (
        "“Stacking only two layers provides the best depth for the residual model”; “even when dropping on performance, the residual RNN "
        "still performs better”. The figure has no numbers, and LSTM only."
    )
    return Table("Fig. 3 (b, c)", "Layers with and without residual connections", said, ("head", "layers"), tuple(lines), curve=True)


def _steps(base: dict[str, Any]) -> Table:
    published = {5: (59.5, 77.9), 15: (60.2, 79.9), 25: (61.5, 79.5), 35: (61.4, 80.9)}
    lines = [Line(("Res-LSTM", str(t)), _rgb({"sequence.steps": t}, base), {HMDB: h, UCF: u}) for t, (h, u) in published.items()]
    said = "“T = 25 and T = 35 are the best choices for HMDB-51 and UCF-101, respectively” (C3D features)."
    return Table("Table 1", "Sequence length T", said, ("head", "T"), tuple(lines), curve=True)


def _late(base: dict[str, Any], rule: str, weights: dict[str, float] | None = None) -> Fuse:
    return Fuse({"rgb": _rgb({}, base), "flow": Train((("flow", ""),), {}, base)}, rule, weights or {})


def _fusion(base: dict[str, Any]) -> Table:
    def mid(op: str) -> Train:
        return Train((("rgb", ""), ("flow", "")), {"sequence.mid": op}, base)

    lines = [
        Line(("mid", "sum"), mid("sum"), {HMDB: 59.3}),
        Line(("mid", "product"), mid("product"), {HMDB: 56.5}),
        Line(("late", "sum"), _late(base, "sum"), {HMDB: 65.2}),
        Line(("late", "product"), _late(base, "product"), {HMDB: 68.0, UCF: 92.5}),
        Line(("late", "1.5 flow + 1 RGB"), _late(base, "weighted", {"flow": 1.5, "rgb": 1}), {HMDB: 63.3}),
    ]
    said = "“Late fusion outperforms mid fusion on HMDB-51 [...] with a clear benefit of the product aggregation” (TSN features)."
    return Table("Table 2", "Mid and late fusion of RGB and flow", said, ("fusion", "by"), tuple(lines))


def _final(base: dict[str, Any], scores: Sequence[str]) -> Table:
    product = _late(base, "product")
    with_idt: How | str = Fuse({"two-stream": product, "idt": Scores("idt")}, "product")
    if "idt" not in scores:
        with_idt = "needs scores of improved dense trajectories: --scores idt=FILE.npz"
    lines = [
        Line(("RGB",), _rgb({}, base)),
        Line(("flow",), Train((("flow", ""),), {}, base)),
        Line(("Res-LSTM (RGB x flow)",), product, {HMDB: 68.0, UCF: 92.5}),
        Line(("Res-LSTM x IDT",), with_idt, {HMDB: 76.9, UCF: 93.0}),
    ]
    said = (
        "Split 1. “From the combination, we obtained an improvement of accuracy of, respectively, +0.5% and +8.9% in UCF-101 and HMDB-51.”"
    )
    return Table("Table 5", "The streams, their product, and with improved dense trajectories", said, ("model",), tuple(lines))


PAPER = Paper(
    "lakhal2018",
    "Lakhal, Clapés, Escalera, Lanz, Cavallaro: Residual Stacked RNNs for Action Recognition (2018)",
    {
        "rgb": "features of RGB frames, e.g. presets c3d, c3d-tencrop, tsn-rgb-tencrop",
        "flow": "features of optical flow with as many clips and as wide, e.g. preset tsn-flow-tencrop",
    },
    {},
    {"idt": "scores of improved dense trajectories on the same videos"},
    tables,
)
