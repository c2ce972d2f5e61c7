"""Stacks of LSTM, GRU or SRU layers, with and without residual connections, read at the last valid step or at every one."""

import torch
from torch import Tensor, nn

from temporal.heads import HEADS
from temporal.heads.pool import max_over_time, mean_over_time
from temporal.params import Param
from temporal.recurrence import Dropout, Kind, LayerOptions, RecurrentStack
from temporal.spec import HeadSpec

PARAMS = (
    Param("init", "uniform", "initial weights: uniform, or orthogonal matrices of each gate", choices=("uniform", "orthogonal")),
    Param("between", 0.0, "dropout between recurrent layers while training", low=0, high=0.95),
)
LAYERS = {"res_lstm": 2, "res_gru": 2}  # the last layer's addition reaches no class score, so with one layer there would be none


def last_step(memory: Tensor, lengths: Tensor) -> Tensor:
    """The memory [T, B, H] at each sequence's last valid step, [B, H]."""
    return memory[lengths - 1, torch.arange(memory.shape[1], device=memory.device)]


class RecurrentHead(nn.Module):
    """Class scores W m^L_t + b from the last layer's memory, before any residual addition.

    ``spec.output``: "last", at the last valid step T (PAPERS A); "mean" or "max" of the class scores of all valid steps, before the
    softmax (PAPERS C, eq. 8-9).
    """

    seeds_together = True

    def __init__(self, kind: Kind, input_width: int, num_classes: int, spec: HeadSpec, residual: bool) -> None:
        super().__init__()
        self.stack = RecurrentStack(kind, input_width, spec.hidden, spec.layers, residual, LayerOptions(**spec.params))  # type: ignore[arg-type]
        self.output = spec.output
        self.dropout = Dropout(spec.dropout)
        self.classifier = nn.Linear(spec.hidden, num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        memory = self.stack(x.transpose(0, 1).contiguous())
        if self.output == "last":
            return self.classifier(self.dropout(last_step(memory, lengths)))
        every_step = self.classifier(self.dropout(memory)).transpose(0, 1)
        return (mean_over_time if self.output == "mean" else max_over_time)(every_step, lengths)


@HEADS.register("lstm")
def lstm(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Stacked LSTM."""
    return RecurrentHead("lstm", input_width, num_classes, spec, residual=False)


@HEADS.register("gru")
def gru(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Stacked GRU."""
    return RecurrentHead("gru", input_width, num_classes, spec, residual=False)


@HEADS.register("res_lstm")
def res_lstm(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Residual stacked LSTM (Lakhal et al. 2018)."""
    return RecurrentHead("lstm", input_width, num_classes, spec, residual=True)


@HEADS.register("res_gru")
def res_gru(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Residual stacked GRU."""
    return RecurrentHead("gru", input_width, num_classes, spec, residual=True)
