"""A small temporal transformer: what users of cached features run today beside recurrent heads."""

import math

import torch
from torch import Tensor, nn

from store.errors import SpecError
from temporal.heads import HEADS
from temporal.heads.pool import mean_over_time, valid_steps
from temporal.params import Param
from temporal.spec import HeadSpec

PARAMS = (
    Param("attention_heads", 4, "attention heads of a layer; they divide head.hidden", low=1, high=64),
    Param("feed_forward", 4, "width of a layer's perceptron, as a multiple of head.hidden", low=1, high=16),
    Param("positions", "learned", "positions are vectors learned, or sines and cosines", choices=("learned", "sinusoidal")),
    Param("longest", 512, "longest sequence (positions=learned)", low=1, high=65536),
    Param("pooling", "cls", "classify an own token, or the mean of the steps", choices=("cls", "mean")),
    Param("layer_dropout", 0.1, "dropout inside the layers", low=0, high=0.9),
)
POSITION_DEVIATION = 0.02  # of the token's and the positions' first values, as in BERT and ViT


class TemporalTransformer(nn.Module):
    """L pre-norm layers x + A(N(x)), x + P(N(x)) of width H over the projected steps, a last normalisation, and a linear classifier.

    Padding is masked out of the attention, so it never changes a result. ``head.output`` is not used.
    """

    mask: Tensor

    def __init__(self, input_width: int, num_classes: int, spec: HeadSpec) -> None:
        super().__init__()
        width, heads, params = spec.hidden, int(spec.params["attention_heads"]), spec.params
        if width % heads:
            raise SpecError(
                f"head.hidden is {width}, which {heads} attention heads cannot share; choose a multiple, or other attention_heads"
            )
        self.cls = nn.Parameter(torch.randn(width) * POSITION_DEVIATION) if params["pooling"] == "cls" else None
        learned = params["positions"] == "learned"
        self.positions = nn.Parameter(torch.randn(int(params["longest"]), width) * POSITION_DEVIATION) if learned else None
        self.widen = nn.Linear(input_width, width)
        inner, dropout = width * int(params["feed_forward"]), float(params["layer_dropout"])
        layer = [
            nn.TransformerEncoderLayer(width, heads, inner, dropout, "gelu", batch_first=True, norm_first=True) for _ in range(spec.layers)
        ]
        self.layers = nn.ModuleList(layer)
        self.norm = nn.LayerNorm(width)
        self.dropout = nn.Dropout(spec.dropout)
        self.classifier = nn.Linear(width, num_classes)

    def forward(self, x: Tensor, lengths: Tensor) -> Tensor:
        valid = valid_steps(x, lengths).squeeze(2)
        x = self.widen(x) + self._positions(x)
        if self.cls is not None:
            x = torch.cat([self.cls.expand(len(x), 1, -1), x], dim=1)
            valid = torch.cat([valid.new_ones(len(valid), 1), valid], dim=1)
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=~valid)
        x = self.norm(x)
        return self.classifier(self.dropout(x[:, 0] if self.cls is not None else mean_over_time(x, lengths)))

    def check_steps(self, steps: int) -> None:
        """Learned positions are as many as head.params longest says."""
        if self.positions is not None and steps > len(self.positions):
            raise SpecError(
                f"a sequence has {steps} steps, but head.params longest is {len(self.positions)}; raise it, sample fewer steps "
                "(--sequence.sampling sigma), or take positions=sinusoidal"
            )

    def _positions(self, x: Tensor) -> Tensor:
        """[T, H]; step t of every sequence has the same."""
        if self.positions is None:
            return sinusoids(x.shape[1], self.norm.normalized_shape[0]).to(x)
        self.check_steps(x.shape[1])
        return self.positions[: x.shape[1]]


def sinusoids(steps: int, width: int) -> Tensor:
    """P[t, 2 i] = sin(t / 10000^(2 i / H)), P[t, 2 i + 1] = cos(the same); [T, H] float64 (Vaswani et al. 2017, section 3.5)."""
    even = torch.arange(0, width, 2, dtype=torch.float64)
    angle = torch.arange(steps, dtype=torch.float64)[:, None] * torch.exp(-even * (math.log(10000.0) / width))
    return torch.stack([angle.sin(), angle.cos()], dim=2).flatten(1)[:, :width]


@HEADS.register("transformer")
def transformer(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Temporal transformer: head.layers pre-norm layers of width head.hidden over the steps.

    Paper: Vaswani et al. 2017; pre-norm: Xiong et al. 2020
    """
    return TemporalTransformer(input_width, num_classes, spec)
