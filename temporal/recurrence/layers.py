"""Layers that hold the weights of a recurrence, and stacks of them, with and without residual connections."""

import math
import warnings
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor, nn

from temporal.recurrence.dropout import Dropout
from temporal.recurrence.gru import fast_gru
from temporal.recurrence.lstm import fast_lstm
from temporal.recurrence.products import products_dtype
from temporal.recurrence.sru import fast_sru

Kind = Literal["lstm", "gru", "sru"]
Weights = tuple[Tensor, Tensor, Tensor, Tensor]  # W_x [G H, D], W_h [G H, H], b_x [G H], b_h [G H]; G gates


@dataclass(frozen=True)
class LayerOptions:
    """How layers start and what lies between them; what follows ``between`` is of the SRU only.

    init: "uniform", within 1/sqrt(H) (SRU: weights within sqrt(3 / D), biases 0), or "orthogonal", every gate's matrix (PAPERS C).
    between: dropout on what a layer passes to the next. peephole: gates see c_{t-1}, as the SRU of 2018 has it. squash: g is tanh.
    highway_bias: what b_r starts from. rescale: the highway term is scaled by sqrt(1 + 2 exp(highway_bias)), so that activations keep their
    variance through many layers.
    """

    init: Literal["uniform", "orthogonal"] = "uniform"
    between: float = 0.0
    peephole: bool = False
    squash: bool = True
    highway_bias: float = 0.0
    rescale: bool = False


class RecurrentLayer(nn.Module):
    """One LSTM or GRU layer, x [T, B, D] -> m [T, B, H]; ``cell`` is the torch module that holds the weights and, on a GPU, runs.

    With ``own`` it does not run on a GPU either: what runs can then be batched over seeds.
    """

    def __init__(self, kind: Literal["lstm", "gru"], input_width: int, hidden: int, options: LayerOptions | None = None) -> None:
        super().__init__()
        self.kind = kind
        self.own = False
        self.cell: nn.RNNBase = nn.LSTM(input_width, hidden) if kind == "lstm" else nn.GRU(input_width, hidden)
        if options is not None and options.init == "orthogonal":
            for weight in self.weights()[:2]:
                orthogonal_blocks(weight, hidden)

    def weights(self) -> Weights:
        """W_x, W_h, b_x, b_h."""
        w_x, w_h, b_x, b_h = (getattr(self.cell, f"{name}_l0") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        return w_x, w_h, b_x, b_h

    def forward(self, x: Tensor) -> Tensor:
        if x.device.type != "cpu" and not self.own:
            low = products_dtype(x)
            return self.cell(x)[0] if low == x.dtype else self.in_type(x, low)
        return (fast_lstm if self.kind == "lstm" else fast_gru)(x, *self.weights())

    def in_type(self, x: Tensor, low: torch.dtype) -> Tensor:
        """The torch module's recurrence in another number type, which ``torch.autocast`` would make float16 whatever it was asked for."""
        none = x.new_zeros(1, x.shape[1], self.cell.hidden_size, dtype=low)
        weights = [weight.to(low) for weight in self.weights()]
        settings = (weights, True, 1, 0.0, self.training, False, False)  # biases, one layer, no dropout, one direction, time first
        with torch.autocast(x.device.type, enabled=False), warnings.catch_warnings():
            warnings.filterwarnings("ignore", "RNN module weights are not part of single contiguous chunk")  # they are cast in every step
            if self.kind == "lstm":
                return torch.lstm(x.to(low), [none, none], *settings)[0].to(x.dtype)
            return torch.gru(x.to(low), none, *settings)[0].to(x.dtype)


class SRULayer(nn.Module):
    """One SRU layer, x [T, B, D] -> h [T, B, H]. weight [3 H, D] (x~, f, r), or [4 H, D] with the highway's projection where D is not H."""

    def __init__(self, input_width: int, hidden: int, options: LayerOptions | None = None) -> None:
        super().__init__()
        options = options or LayerOptions()
        self.squash = options.squash
        scale = math.sqrt(1 + 2 * math.exp(options.highway_bias)) if options.rescale else 1.0
        projected = input_width != hidden
        self.scale = 1.0 if projected else scale  # a learned projection starts with it instead
        self.weight = nn.Parameter(torch.empty((3 + projected) * hidden, input_width))
        self.bias = nn.Parameter(torch.zeros(2 * hidden))
        self.peephole = nn.Parameter(torch.empty(2 * hidden)) if options.peephole else None
        with torch.no_grad():
            self.bias[hidden:] = options.highway_bias
            if options.init == "orthogonal":
                orthogonal_blocks(self.weight, hidden)
            else:
                self.weight.uniform_(-math.sqrt(3 / input_width), math.sqrt(3 / input_width))
            self.weight[3 * hidden :] *= scale
            if self.peephole is not None:
                self.peephole.uniform_(-math.sqrt(3), math.sqrt(3)).mul_(1 / math.sqrt(hidden))

    def forward(self, x: Tensor) -> Tensor:
        return fast_sru(x, self.weight, self.bias, self.peephole, self.squash, self.scale)


def orthogonal_blocks(weight: Tensor, hidden: int) -> None:
    """Make each block [H, D] of a weight [K H, D] (semi-)orthogonal, in place (Saxe et al., which PAPERS C starts from)."""
    with torch.no_grad():
        for block in weight.split(hidden):
            nn.init.orthogonal_(block)


class RecurrentStack(nn.Module):
    """L layers; with ``residual`` the stack of PAPERS A: m^l = RNN_l(x^{l-1}), x^l = m^l + x^{l-1}.

    ``forward`` gives m^L, the last layer's memory *before* the residual addition, [T, B, H]. The addition needs the width H: where
    the input is not H wide (no PCA to H), a learned linear map x^0 = W x + b brings it there first.
    """

    def __init__(
        self, kind: Kind, input_width: int, hidden: int, layers: int, residual: bool = False, options: LayerOptions | None = None
    ) -> None:
        super().__init__()
        self.residual = residual
        self.widen = nn.Linear(input_width, hidden) if residual and input_width != hidden else nn.Identity()
        first = hidden if residual else input_width
        self.layers = nn.ModuleList(make_layer(kind, hidden if index else first, hidden, options) for index in range(layers))
        self.between = Dropout(options.between if options else 0.0)

    def forward(self, x: Tensor) -> Tensor:
        x = self.widen(x)
        memory = x
        for number, layer in enumerate(self.layers):
            memory = layer(self.between(x) if number else x)
            x = memory + x if self.residual else memory
        return memory


def make_layer(kind: Kind, input_width: int, hidden: int, options: LayerOptions | None) -> nn.Module:
    """A layer of one kind."""
    return SRULayer(input_width, hidden, options) if kind == "sru" else RecurrentLayer(kind, input_width, hidden, options)
