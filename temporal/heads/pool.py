"""Pooling over time and a linear classifier: blind to the order of the steps."""

import torch
from torch import Tensor, nn

from temporal.heads import HEADS
from temporal.recurrence.dropout import Dropout
from temporal.spec import HeadSpec

DEVIATION_FLOOR = 1e-8  # keeps the gradient of the square root finite where a feature does not change over time


def valid_steps(x: Tensor, lengths: Tensor) -> Tensor:
    """Boolean [B, T, 1], true before each sequence's length."""
    return (torch.arange(x.shape[1], device=x.device) < lengths[:, None]).unsqueeze(2)


def mean_over_time(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean of the valid steps, [B, D]."""
    return x.masked_fill(~valid_steps(x, lengths), 0).sum(1) / lengths[:, None]


def mean_and_deviation(x: Tensor, lengths: Tensor) -> Tensor:
    """Mean and (population) standard deviation of the valid steps, [B, 2 D]."""
    mean = mean_over_time(x, lengths)
    variance = mean_over_time((x - mean.unsqueeze(1)).square(), lengths)
    return torch.cat([mean, (variance + DEVIATION_FLOOR).sqrt()], dim=1)


def max_over_time(x: Tensor, lengths: Tensor) -> Tensor:
    """Largest value of each feature over the valid steps, [B, D]."""
    return x.masked_fill(~valid_steps(x, lengths), -torch.inf).amax(1)


POOLS = {"mean": (mean_over_time, 1), "mean_std": (mean_and_deviation, 2), "max": (max_over_time, 1)}


class PoolHead(nn.Module):
    """scores = W pool(x_1..x_T) + b; x [B, T, D], or [B, D'] where it is ``pooled`` already."""

    seeds_together = True

    def __init__(self, input_width: int, num_classes: int, spec: HeadSpec, pool: str) -> None:
        super().__init__()
        self.pool, copies = POOLS[pool]
        self.dropout = Dropout(spec.dropout)
        self.classifier = nn.Linear(copies * input_width, num_classes)

    def pooled(self, x: Tensor, lengths: Tensor) -> Tensor:
        """What no weight changes, so that training need not do it anew in every epoch, [B, D']."""
        return self.pool(x, lengths)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        return self.classifier(self.dropout(self.pooled(x, lengths) if x.dim() == 3 else x))


@HEADS.register("mean")
def mean(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Mean over time and a linear classifier."""
    return PoolHead(input_width, num_classes, spec, "mean")


@HEADS.register("mean_std")
def mean_std(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Mean and standard deviation over time and a linear classifier."""
    return PoolHead(input_width, num_classes, spec, "mean_std")


@HEADS.register("max")
def max_pool(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Maximum over time and a linear classifier."""
    return PoolHead(input_width, num_classes, spec, "max")
