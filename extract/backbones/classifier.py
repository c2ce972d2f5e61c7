"""Classifiers whose number of classes is the checkpoint's, for families whose published files were trained on many data sets."""

import dataclasses
from collections.abc import Mapping

import torch
from torch import nn

from extract.backbones import Backbone


def take_classes(backbone: Backbone, state: Mapping[str, torch.Tensor], *layers: str, level: str = "logits") -> None:
    """Make the linear ``layers`` of a network that is about to be loaded, and its ``level``, as wide as the classifier in ``state``.

    Where the file has none, or one of another input width, or classifiers that disagree, nothing changes: whoever loads the file tells it.
    """
    found = {_classes(state, layer, getattr(backbone, layer)) for layer in layers}
    classes = found.pop()
    if found or classes is None:
        return
    for layer in layers:
        old: nn.Linear = getattr(backbone, layer)
        setattr(backbone, layer, nn.Linear(old.in_features, classes, device=old.weight.device))
    backbone.info = dataclasses.replace(backbone.info, dims={**backbone.info.dims, level: classes})


def _classes(state: Mapping[str, torch.Tensor], layer: str, old: nn.Linear) -> int | None:
    weight = state.get(f"{layer}.weight")
    return weight.shape[0] if weight is not None and weight.dim() == 2 and weight.shape[1] == old.in_features else None
