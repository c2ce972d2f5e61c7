"""Names of I3D's weights: hassony2's and TensorFlow's, in piergiaj's, which are the network's own."""

import re
from collections.abc import Mapping

import torch

State = dict[str, torch.Tensor]
HASSONY2_BRANCHES = {"0": "b0", "1.0": "b1a", "1.1": "b1b", "2.0": "b2a", "2.1": "b2b", "3.1": "b3b"}


def from_hassony2(key: str) -> str:
    """``mixed_3b.branch_1.0.batch3d.weight`` -> ``Mixed_3b.b1a.bn.weight``; other names stay."""
    key = re.sub(r"^conv3d_0c_1x1\.", "logits.", key)
    key = re.sub(r"^(conv3d|mixed)_(?=\d)", lambda start: start[0].capitalize(), key)
    key = re.sub(r"\.branch_(\d(?:\.\d)?)(?=\.)", lambda branch: f".{HASSONY2_BRANCHES.get(branch[1], branch[1])}", key)
    return key.replace(".batch3d.", ".bn.")


TENSORFLOW_PARTS = {
    "conv_3d/w": "conv3d.weight",
    "conv_3d/b": "conv3d.bias",
    "batch_norm/beta": "bn.bias",
    "batch_norm/moving_mean": "bn.running_mean",
    "batch_norm/moving_variance": "bn.running_var",
}
TENSORFLOW_BRANCH = re.compile(r"/Branch_(\d)/Conv3d_0([ab])_(\d)x\d$")


def is_tensorflow(state: Mapping[str, torch.Tensor]) -> bool:
    """Whether these are TensorFlow's variables and no state dict."""
    return any(name.endswith("/conv_3d/w") for name in state)


def from_tensorflow(variables: Mapping[str, torch.Tensor]) -> State:
    """DeepMind's variables, such as ``RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0a_1x1/conv_3d/w``, as a state dict.

    Filters [t, h, w, in, out] become [out, in, t, h, w]; batch normalisation, there without a scale, gets a scale of 1. What only
    training needs (momentum) is left out; names that are not understood stay, to be reported as unexpected.
    """
    state: State = {}
    for name, value in variables.items():
        if name.endswith("/Momentum"):
            continue
        layer, _, part = name.rpartition("/conv_3d/") if "/conv_3d/" in name else name.rpartition("/batch_norm/")
        known = TENSORFLOW_PARTS.get(name.removeprefix(f"{layer}/"))
        if known is None:
            state[name] = value
            continue
        unit = _unit(layer)
        state[f"{unit}.{known}"] = value.permute(4, 3, 0, 1, 2) if part == "w" and value.dim() == 5 else value.flatten()
        if known == "bn.running_var":
            state[f"{unit}.bn.weight"] = torch.ones(value.numel())
    return state


def _unit(layer: str) -> str:
    """``RGB/inception_i3d/Mixed_3b/Branch_1/Conv3d_0a_1x1`` -> ``Mixed_3b.b1a``."""
    layer = re.sub(r"^(RGB|Flow)/inception_i3d/", "", layer)
    if layer == "Logits/Conv3d_0c_1x1":
        return "logits"
    return TENSORFLOW_BRANCH.sub(lambda found: f".b{found[1]}{_letter(found[1], found[2], found[3])}", layer)


def _letter(branch: str, letter: str, kernel: str) -> str:
    """Second convolutions are ``b``, also the one of Mixed_5b that DeepMind's file calls ``0a_3x3``; branch 0 has one without a letter."""
    return "" if branch == "0" else "b" if kernel == "3" else letter
