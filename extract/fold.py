"""Batch normalisation folded into the convolution before it: one pass over memory less for each layer, the same function.

In evaluation y = (conv(x) - mean) * gamma / sqrt(var + eps) + beta is again a convolution: its weights are w * s and its bias
(b - mean) * s + beta, with s = gamma / sqrt(var + eps) for each output channel.
"""

import copy
import weakref
from collections import Counter
from typing import Any

import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from extract.backbones import Backbone
from store.errors import SpecError

CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
NORMALISATIONS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


def fold(backbone: Backbone, levels: tuple[str, ...]) -> Backbone:
    """Fold every batch normalisation that is all that follows a convolution, in place; the network computes the same up to rounding.

    Which those are is seen by watching a pass without values. Raises ``SpecError`` where there are none, or where that cannot be done.
    """
    modules = dict(backbone.named_modules())
    pairs = _watched(backbone, levels).pairs()
    if not pairs:
        raise SpecError(f"{backbone.info.name} has no batch normalisation that can be folded; leave --fold-bn out")
    for convolution, normalisation in pairs:
        _merge(modules[convolution], modules[normalisation])
        parent, _, name = normalisation.rpartition(".")
        setattr(modules[parent], name, nn.Identity())
    unbiased = {convolution for convolution, _ in pairs} - _watched(backbone, levels).biased
    if unbiased:
        raise SpecError(f"{backbone.info.name} cannot be folded: {min(unbiased)} takes no bias; leave --fold-bn out")
    return backbone


def _watched(backbone: Backbone, levels: tuple[str, ...]) -> "_Watch":
    ghost = copy.deepcopy(backbone).to("meta").eval().requires_grad_(False)
    info, watch = ghost.info, _Watch(ghost)
    length = (info.shortest_clip or info.clip_length,) if info.clip_length > 1 else ()
    try:
        with torch.inference_mode(), watch:
            ghost(torch.empty(1, info.channels, *length, info.size, info.size, device="meta"), levels)
    except (RuntimeError, NotImplementedError, AttributeError) as error:
        raise SpecError(f"{info.name} cannot be folded: {str(error).splitlines()[0]}; leave --fold-bn out") from None
    return watch


class _Watch(TorchFunctionMode):
    """Notes every convolution, every batch normalisation, and who uses what a convolution gives."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        modules = list(network.named_modules())
        self._convolutions = {id(module.weight): name for name, module in modules if isinstance(module, CONVOLUTIONS)}
        # exact types: a subclass may do more than normalise, as timm's with its activation
        self._normalisations = {id(module.running_mean): name for name, module in modules if type(module) in NORMALISATIONS}
        self._made: dict[str, weakref.ref[torch.Tensor]] = {}
        self._found: list[tuple[str, str]] = []
        self._uses: Counter[str] = Counter()
        self._runs: Counter[str] = Counter()
        self.biased: set[str] = set()

    def pairs(self) -> list[tuple[str, str]]:
        """Names of (convolution, normalisation): each runs once, and nothing else uses the convolution's output."""
        return [pair for pair in self._found if self._uses[pair[0]] == 1 and self._runs[pair[0]] == self._runs[pair[1]] == 1]

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is functional.batch_norm:
            self._normalised(args[0], self._normalisations.get(id(args[1])))
        result = func(*args, **(kwargs or {}))
        if any(isinstance(leaf, torch.Tensor) for leaf in tree_leaves(result)):  # not a look at the shape
            used = {id(leaf) for leaf in tree_leaves((args, kwargs)) if isinstance(leaf, torch.Tensor)}
            self._uses.update(name for name, output in self._made.items() if id(output()) in used)
        if func in (torch.conv1d, torch.conv2d, torch.conv3d) and id(args[1]) in self._convolutions:
            name = self._convolutions[id(args[1])]
            self._runs.update([name])
            self._made[name] = weakref.ref(result)
            if len(args) > 2 and args[2] is not None:
                self.biased.add(name)
        return result

    def _normalised(self, value: torch.Tensor, name: str | None) -> None:
        if name is not None:
            self._runs.update([name])
            self._found += [(before, name) for before, output in self._made.items() if output() is value]


def _merge(convolution: nn.Module, normalisation: nn.Module) -> None:
    assert isinstance(convolution, CONVOLUTIONS)
    assert isinstance(normalisation, NORMALISATIONS)
    weight = convolution.weight.data.double()
    zero = torch.zeros(weight.shape[0], dtype=torch.float64)
    mean, variance = (zero if each is None else each.double() for each in (normalisation.running_mean, normalisation.running_var))
    gamma = zero + 1 if normalisation.weight is None else normalisation.weight.data.double()
    beta = zero if normalisation.bias is None else normalisation.bias.data.double()
    bias = zero if convolution.bias is None else convolution.bias.data.double()
    scale = gamma / torch.sqrt(variance + normalisation.eps)
    convolution.weight = nn.Parameter((weight * scale.view(-1, *[1] * (weight.dim() - 1))).float(), requires_grad=False)
    convolution.bias = nn.Parameter(((bias - mean) * scale + beta).float(), requires_grad=False)
