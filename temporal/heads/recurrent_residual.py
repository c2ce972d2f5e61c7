"""Recurrent residual networks (Iqbal et al. 2017): temporal skip connections inside the last blocks of a ResNet, trained on cached maps.

A skip carries the *input* of a residual unit from step t - 1 into its output at step t (PAPERS B, eq. 2-4):

    identity     y_t = s(x_t * W) + x_t + x_{t-1}
    linear       y_t = s(x_t * W) + x_t + x_{t-1} * W_s
    nonlinear    y_t = s(x_t * W) + x_t + s(x_{t-1} * W_s)

It is no full recurrence, so no step waits for the one before: all steps of all sequences go through a unit's convolutions as one batch.
n skips, in n units in a row, see n + 1 steps. The first step of a sequence has none before it, and x_0 adds nothing.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from temporal.heads import HEADS
from temporal.heads.pool import max_over_time, mean_over_time, valid_steps
from temporal.params import Param
from temporal.resnet_tail import Tail, load_tail
from temporal.spec import HeadSpec

PARAMS = (
    Param("backbone", "resnet50", "the ResNet whose maps are read", choices=("resnet18", "resnet34", "resnet50", "resnet101")),
    Param("skip", "identity", "kind of temporal skip", choices=("identity", "linear", "nonlinear")),
    Param(
        "position",
        "block4_end",
        "unit of the last skip: block 1's first, block 2's last, block 4's first (mid) or last",
        choices=("block1", "block2", "block4_mid", "block4_end"),
    ),
    Param("skips", 1, "units with a skip, the one at POSITION and those before it; they see one step more than that", low=1, high=16),
)
READS = "maps"
WEIGHTS = True


class TemporalSkip(nn.Module):
    """What x_{t-1} adds to a unit's output: itself, x_{t-1} * W_s, or s(x_{t-1} * W_s) with a 1x1 convolution W_s.

    W_s begins as the identity, or as the unit's own shortcut where that changes the shape, so that all kinds begin as eq. 2 (maps are
    behind a ReLU, where s changes nothing). An identity skip takes a shape-changing unit's shortcut itself, with its weights.
    """

    def __init__(self, kind: str, unit: Any) -> None:
        super().__init__()
        self.kind = kind
        self.unit: list[Any] = [unit]  # in a list: its weights belong to the network
        channels, shortcut = unit.conv1.in_channels, unit.downsample
        self.own: nn.Conv2d | None = None
        if kind != "identity":
            first = None if shortcut is None else shortcut[0]
            out, stride = (channels, 1) if first is None else (first.out_channels, first.stride)
            self.own = nn.Conv2d(channels, out, 1, stride, bias=first is not None)
            if first is None:
                nn.init.dirac_(self.own.weight)

    def begin_as_shortcut(self) -> None:
        """W_s from the unit's shortcut and its batch normalisation, as they are now."""
        shortcut = self.unit[0].downsample
        if self.own is None or shortcut is None:
            return
        convolution, norm = shortcut[0], shortcut[1]
        scale = norm.weight / (norm.running_var + norm.eps).sqrt()
        with torch.no_grad():
            assert self.own.bias is not None, "W_s of a unit that changes the shape has one"
            self.own.weight.copy_(convolution.weight * scale[:, None, None, None])
            self.own.bias.copy_(norm.bias - norm.running_mean * scale)

    def forward(self, before: Tensor) -> Tensor:
        """Maps of the unit's input at t - 1 -> what is added at t."""
        if self.own is not None:
            return functional.relu(self.own(before)) if self.kind == "nonlinear" else self.own(before)
        shortcut = self.unit[0].downsample
        return before if shortcut is None else shortcut(before)


class RecurrentResidual(nn.Module):
    """The rest of a ResNet from the cached maps on, with temporal skips, mean over space, and a linear classifier.

    Batch normalisation always uses the statistics of the pretrained weights, in training, too (its scales and shifts are trained), so that
    neither padding nor other sequences of a batch change a result. Class scores are read at the last step, or their mean or max over
    the steps (``head.output``).
    """

    def __init__(self, input_width: int, num_classes: int, spec: HeadSpec) -> None:
        super().__init__()
        params = spec.params
        self.tail = Tail(str(params["backbone"]), input_width)
        numbers = self.tail.units_up_to(str(params["position"]), int(params["skips"]))
        self.skips = nn.ModuleDict({str(number): TemporalSkip(str(params["skip"]), self.tail.units[number]) for number in numbers})
        self._begin_skips()
        self.output = spec.output
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(self.tail.output_width, num_classes)

    def load_pretrained(self, file: Path) -> None:
        """The blocks' weights from a state dict of the whole network; TrainingError tells what does not fit."""
        load_tail(self.tail, file)
        self._begin_skips()

    def _begin_skips(self) -> None:
        for skip in self.skips.values():
            assert isinstance(skip, TemporalSkip)
            skip.begin_as_shortcut()

    def train(self, mode: bool = True) -> "RecurrentResidual":
        """Batch normalisation stays in evaluation mode."""
        super().train(mode)
        for module in self.tail.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
        return self

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        """x [B, T, C, H, W] -> class scores [B, classes]; steps of padding never enter a convolution."""
        valid = valid_steps(x.flatten(2), lengths).squeeze(2)
        step = torch.arange(x.shape[1], device=x.device).expand(len(x), -1)[valid]
        maps = self._packed(x[valid], step > 0)
        scores = self.classifier(self.dropout(maps.mean((2, 3))))
        steps = scores.new_zeros(*valid.shape, scores.shape[1])
        steps[valid] = scores
        if self.output == "last":
            return steps[torch.arange(len(x), device=x.device), lengths - 1]
        return (mean_over_time if self.output == "mean" else max_over_time)(steps, lengths)

    def _packed(self, maps: Tensor, has_before: Tensor) -> Tensor:
        """Maps of all valid steps, one after the other [N, C, H, W], through all units; ``has_before`` [N]: not a sequence's first."""
        for number, unit in enumerate(self.tail.units):
            added = self._shortcut(unit, maps)
            if str(number) in self.skips:
                later = has_before.nonzero().squeeze(1)
                added = added.index_add(0, later, self.skips[str(number)](maps[later - 1]).to(added.dtype))
            maps = functional.relu(self.tail.residual(unit, maps) + added)
        return maps

    @staticmethod
    def _shortcut(unit: Any, maps: Tensor) -> Tensor:
        return maps if unit.downsample is None else unit.downsample(maps)

    def step_by_step(self, x: Tensor) -> Tensor:
        """The slow twin: maps [T, C, H, W] of one sequence -> those after the last unit, one step after the other by eq. 2-4."""
        before: dict[int, Tensor] = {}
        results = []
        for x_t in x.unsqueeze(1):
            for number, unit in enumerate(self.tail.units):
                y_t = self.tail.residual(unit, x_t) + self._shortcut(unit, x_t)
                if str(number) in self.skips and number in before:
                    y_t = y_t + self.skips[str(number)](before[number])
                before[number] = x_t
                x_t = functional.relu(y_t)
            results.append(x_t)
        return torch.cat(results)


@HEADS.register("recurrent_residual")
def recurrent_residual(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """The rest of a ResNet from cached maps on, with temporal skips from step t - 1 into its residual units.

    Paper: Iqbal et al. 2017
    """
    return RecurrentResidual(input_width, num_classes, spec)
