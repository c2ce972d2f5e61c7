"""The papers' settings by name: overrides of ``RunSpec``'s defaults, which a config file and flags override in turn.

Imports no torch: the command line shows them in its help. Every setting stands with what the paper says, word for word where it is quoted,
or with our choice where the paper says nothing.
"""

import copy
import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from store.errors import UnknownNameError


class Protocol(NamedTuple):
    """``settings``: dotted name -> (value, what the paper says); ``presets``: what to extract; ``after``: what comes after training."""

    paper: str
    presets: tuple[str, ...]
    settings: Mapping[str, tuple[Any, str]]
    after: tuple[str, ...]


def _unsaid() -> dict[str, tuple[Any, str]]:
    """What a paper that names neither a number of epochs nor a batch leaves to us."""
    return {
        "train.gradient_clip": (0.0, "choice: the paper names no limit of the gradient"),
        "train.batch_size": (32, "choice: the paper names none"),
        "train.epochs": (100, "choice: the paper names none; at most so many"),
        "train.validation": (0.15, "choice: so much of the training list, in whole groups, decides when to stop"),
        "train.patience": (20, "choice: as above"),
        "train.refit": (True, "choice: the paper holds nothing of the training list back, so the head is trained anew on all of it"),
    }


PROTOCOLS: dict[str, Protocol] = {
    "lakhal2018": Protocol(
        "Lakhal, Clapés, Escalera, Lanz, Cavallaro: Residual Stacked RNNs for Action Recognition, 2018",
        ("c3d", "c3d-tencrop", "tsn-rgb-tencrop", "tsn-flow-tencrop"),
        {
            "sequence.sampling": ("sigma", "sigma(t) = 1 + floor((t - 1) (K_v - 1) / (T - 1))"),
            "sequence.steps": (25, '"the final scores we report are for T = 25"'),
            "sequence.projection": ("pca", '"we apply PCA over the initial feature [...] to fit with the dimension of the residual RNN"'),
            "sequence.width": (1024, '"the dimension of the input at time t in layer l must be the same as the memory"'),
            "head.name": ("res_lstm", "equation 1: x_t^l = m_t^l + x_t^(l-1)"),
            "head.hidden": (1024, '"we therefore used h = 1024 as a base parameter to our models"'),
            "head.layers": (2, '"stacking only two layers provides the best depth for the residual model"'),
            "head.output": ("last", '"a softmax layer at the last time step T" (equation 2)'),
            "head.dropout": (0.0, "choice: the paper names no dropout"),
            "train.optimizer": ("rmsprop", '"we used the RMSProp optimizer"'),
            "train.learning_rate": (1e-3, '"with a learning rate of 10^-3"'),
            **_unsaid(),
        },
        (
            "late fusion, element-wise product (best): fuse rgb=RGB flow=FLOW --rule product",
            "late fusion, element-wise sum: fuse rgb=RGB flow=FLOW --rule sum",
            "late fusion, weighted: fuse rgb=RGB flow=FLOW --rule weighted --weights rgb=1,flow=1.5",
            "mid fusion: train-head --features RGB --features FLOW --sequence.mid sum (or product)",
        ),
    ),
    "zheng2017": Protocol(
        "Zheng, An, Ruan: Multi-Level Recurrent Residual Networks for Action Recognition, 2017",
        ("resnet34-mrrn",),
        {
            "sequence.samples": ("clips", '"21147 clips for training that each serves as an individual training sample"'),
            "sequence.sampling": ("all", "every frame of a clip is a step"),
            "head.name": ("sru", "equations 2 to 6"),
            "head.hidden": (1024, '"we fix the number of hidden units as 1024 and layers as 3"'),
            "head.layers": (3, "as above"),
            "head.output": ("mean", '"we assign mean pooling as default time series pooling" (equation 8)'),
            "head.dropout": (
                0.5,
                '"the dropout regularization ratio 0.5 for linear transformations and 0 for connections between RNN layers"',
            ),
            "head.params": ({"init": "orthogonal"}, '"The orthogonal weight initialization"'),
            "train.optimizer": ("adam", '"Adam optimizer algorithm and CrossEntropyLoss"'),
            "train.learning_rate": (1e-5, '"1e-5 for the first 8 epochs and changed to 1e-6 for the rest"; 1e-4 on the low and mid level'),
            "train.schedule": ("step", "as above"),
            "train.milestones": ((8,), "as above"),
            "train.decay": (0.1, "as above"),
            "train.epochs": (12, '"for 12 epochs over the entire datasets"'),
            "train.batch_size": (28, '"mini-batch size 28"'),
            "train.validation": (0.0, "choice: a fixed number of epochs needs no validation part"),
            "train.gradient_clip": (0.0, "choice: the paper names no limit of the gradient"),
        },
        ("fusion of the levels (equation 10): fuse high=H mid=M low=L --rule weighted --weights high=0.7,mid=0.2,low=0.1",),
    ),
    "iqbal2017": Protocol(
        "Iqbal, Richard, Kuehne, Gall: Recurrent Residual Learning for Action Recognition, 2017",
        ("resnet50-every10", "resnet50-maps"),
        {
            "sequence.sampling": ("all", '"every tenth frame from each video is sampled as input"'),
            "sequence.znorm": (True, '"after Z-normalization and without Z-normalization"'),
            "head.name": ("gru", '"a recurrent neural network with 128 gated recurrent units (GRUs)"'),
            "head.hidden": (128, "as above"),
            "head.layers": (1, "as above"),
            "head.output": ("last", "choice: the paper does not say which step is read"),
            "head.dropout": (0.0, "choice: the paper names no dropout"),
            "train.optimizer": ("adam", '"We use ADAM as learning algorithm"'),
            "train.learning_rate": (1e-3, "choice: the paper names none; Adam's usual one (1e-4 for the pretrained blocks)"),
            **_unsaid(),
        },
        (
            "the other baseline, mean and a linear classifier: train-head --protocol iqbal2017 --head.name mean",
            "both without Z-normalisation: --no-sequence.znorm",
            "recurrent residual blocks (identity, linear, nonlinear; positions; skips), on maps: train-head --protocol iqbal2017 "
            "--no-sequence.znorm --head.name recurrent_residual --head.params skip=identity,position=block4_end,skips=1 "
            "--sequence.samples windows --sequence.window 2 --sequence.stride 2 --train.learning-rate 1e-4 --head-weights FILE",
        ),
    ),
}


def protocol(name: str | None) -> dict[str, Any]:
    """The settings of protocol ``name`` as a new nested dict ({} for None); an unknown name raises ``UnknownNameError``."""
    settings: dict[str, Any] = {}
    for dotted, (value, _) in find_protocol(name).settings.items() if name else ():
        table, _, field = dotted.partition(".")
        settings.setdefault(table, {})[field] = copy.deepcopy(value)
    return settings


def find_protocol(name: str) -> Protocol:
    """The protocol called ``name``; an unknown one raises ``UnknownNameError`` with the nearest names."""
    if name not in PROTOCOLS:
        near = difflib.get_close_matches(name, PROTOCOLS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PROTOCOLS)}"
        raise UnknownNameError(f"no protocol is called {name!r}; {hint}")
    return PROTOCOLS[name]


def protocol_text(name: str) -> str:
    """One protocol in words: paper, what to extract, each setting as its flag with the paper's words, and what comes after."""
    found = find_protocol(name)
    lines = [name, f"    {found.paper}", f"    features   extract --preset {' | '.join(found.presets)}"]
    for dotted, (value, words) in found.settings.items():
        lines.append(f"    {_flag(dotted, value):36} {words}")
    return "\n".join([*lines, *(f"    then       {line}" for line in found.after)])


def _flag(dotted: str, value: Any) -> str:
    flag = dotted.replace("_", "-")
    if isinstance(value, dict):
        return f"--{flag} " + ",".join(f"{key}={item}" for key, item in value.items())
    if isinstance(value, tuple):
        return f"--{flag} " + ",".join(map(str, value))
    if isinstance(value, bool):
        return f"--{flag}" if value else f"--no-{flag}"
    return f"--{flag} {value:g}" if isinstance(value, float) else f"--{flag} {value}"
