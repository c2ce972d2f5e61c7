"""Iqbal et al. 2017, Recurrent Residual Learning for Action Recognition: Tables 1 to 4, as accuracies (the paper prints errors)."""

from temporal.papers import UCF, Line, Paper, Table, Train
from temporal.papers.inputs import Facts

TABLE_1 = {
    ("block4", "mean"): (0.236, 0.237), ("block4", "gru"): (0.239, 0.276),
    ("block3", "mean"): (0.309, 0.313), ("block3", "gru"): (0.403, 0.325),
    ("block2", "mean"): (0.431, 0.434), ("block2", "gru"): (0.440, 0.493),
}  # fmt: skip
HEADS = {"mean": "average pooling", "gru": "GRU, 128 units"}
# The level that enters the block of a position.
ENTERS = {"block1": "stem.map", "block2": "block1.map", "block4_mid": "block3.map", "block4_end": "block3.map"}
BLOCK4_UNITS = 3  # of ResNet-50; more skips than that begin in block 3, which block 2's maps enter
POSITIONS = {"block1": 0.265, "block2": 0.234, "block4_mid": 0.231, "block4_end": 0.219}
KINDS = {"identity": 0.197, "linear": 0.219, "nonlinear": 0.210}
CONTEXTS = {1: 0.236, 2: 0.197, 3: 0.194, 5: 0.209}
SHARE_OF_TRAINING = 0.01  # "we update the model after observing 1% of training data", which are the windows that videos are cut into
FINE_TUNING_RATE = 1e-4  # choice: the paper gives none; pretrained blocks and a new classifier are trained together


def tables(facts: Facts) -> list[Table]:
    """All of them."""
    return [_baselines(facts), _positions(facts), _kinds(facts), _contexts(facts)]


def accuracy(error: float) -> dict[str, float]:
    """The published error rate as top-1 in per cent."""
    return {UCF: round(100 * (1 - error), 1)}


def _baselines(facts: Facts) -> Table:
    lines = []
    for (level, head), errors in TABLE_1.items():
        for znorm, error in zip((True, False), errors, strict=True):
            base = {"sequence.inner": "mean"} if facts.framed("levels", level) else {}
            train = Train((("levels", level),), {"head.name": head, "sequence.znorm": znorm, "head.hidden": 128}, base)
            lines.append(Line((level, HEADS[head], "yes" if znorm else "no"), train, accuracy(error)))
    said = "“The average pooling model outperforms the model with gated recurrent units. [...] with more depth, features become richer.”"
    return Table("Table 1", "Average pooling and GRU on cached features", said, ("features", "head", "Z-norm"), tuple(lines))


def _skips(facts: Facts, position: str, kind: str, skips: int) -> Train:
    level = "block2.map" if position == "block4_end" and skips > BLOCK4_UNITS else ENTERS[position]
    params = {"skip": kind, "position": position, "skips": skips}
    varied = {"head.name": "recurrent_residual", "sequence.window": skips + 1, "sequence.stride": skips + 1}
    base = {
        "sequence.samples": "windows",
        "sequence.znorm": False,
        "train.learning_rate": FINE_TUNING_RATE,
        "train.batch_size": max(1, round(SHARE_OF_TRAINING * facts.training_windows("maps", skips + 1))),
    }
    return Train((("maps", level),), {**varied, **{f"head.params.{name}": value for name, value in params.items()}}, base)


def _positions(facts: Facts) -> Table:
    names = {"block1": "Block1", "block2": "Block2", "block4_mid": "Mid Block4", "block4_end": "Block4"}
    lines = [Line((names[at],), _skips(facts, at, "linear", 1), accuracy(error)) for at, error in POSITIONS.items()]
    said = "“The deeper we place the temporal skip connection in the network, the better is the classification accuracy.” Linear skips."
    return Table("Table 2", "Position of the skip connection", said, ("position",), tuple(lines))


def _kinds(facts: Facts) -> Table:
    names = {"identity": "identity mapping", "linear": "convolutional, linear", "nonlinear": "convolutional, non-linear"}
    lines = [Line((names[kind],), _skips(facts, "block4_end", kind, 1), accuracy(error)) for kind, error in KINDS.items()]
    said = "“Identity mapping connection with non trainable weights performed best.”"
    return Table("Table 3", "Type of the skip connection", said, ("type",), tuple(lines))


def _contexts(facts: Facts) -> Table:
    lines = []
    for context, error in CONTEXTS.items():
        pooled = {"head.name": "mean", "sequence.znorm": True, "head.hidden": 128}
        base = {"sequence.inner": "mean"} if facts.framed("levels", "block4") else {}
        how = _skips(facts, "block4_end", "identity", context - 1) if context > 1 else Train((("levels", "block4"),), pooled, base)
        lines.append(Line((str(context),), how, accuracy(error)))
    said = "“We do not gain much by including more temporal context.” Context 1 is average pooling."
    return Table("Table 4", "Temporal context of identity skips, in steps", said, ("context",), tuple(lines), curve=True)


PAPER = Paper(
    "iqbal2017",
    "Iqbal, Richard, Kuehne, Gall: Recurrent Residual Learning for Action Recognition (2017)",
    {
        "levels": "features after blocks 2, 3 and 4 of ResNet-50: preset resnet50-every10",
        "maps": "feature maps of ResNet-50: preset resnet50-maps (block3.map); stem.map for Block1, block1.map for Block2, block2.map for "
        "context 5",
    },
    {},
    {},
    tables,
)
