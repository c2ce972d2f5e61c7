"""Matrix products of a whole layer, for S seeds at once; what number type they are computed in.

Large float32 products of a seed go through oneDNN, which torch.mm does not use for them: some 10 % less time for those of all steps and
40 % for the product of every step, whose weights are packed once (Res-LSTM of 1,024 units, AMD EPYC with AVX-512).
"""

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor


def products_dtype(x: Tensor) -> torch.dtype:
    """bfloat16 (or float16) inside ``torch.autocast``, else that of x. Sums, gates and memories stay in float32 or float64."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


LARGE_WEIGHT = 1 << 20  # numbers; packing smaller ones gains nothing
LARGE_PRODUCT = 1 << 28  # multiplications; what oneDNN prepares for each new shape takes about a millisecond


def product(left: Tensor, right: Tensor) -> Tensor:
    """[S, N, D] times [S, D, K] -> [S, N, K]; one seed's without the detour of a batched product."""
    return torch.mm(left[0], right[0]).unsqueeze(0) if len(left) == 1 else torch.bmm(left, right)


def through(x: Tensor, weight: Tensor) -> Tensor:
    """``product`` of the inputs of all steps, or their gradient, with a layer's weights [S, D, K]."""
    if x[0].numel() * weight.shape[2] >= LARGE_PRODUCT and (linear := _onednn(x)):
        if len(x) == 1:
            return linear(x[0], weight[0].t()).unsqueeze(0)
        return torch.stack([linear(own, matrix.t()) for own, matrix in zip(x, weight, strict=True)])
    return product(x, weight)


def input_products(x: Tensor, weight: Tensor) -> Tensor:
    """W x of all steps: x [S, T, B, D], W [S, K, D] -> [S, T, B, K]."""
    return through(x.flatten(1, 2), weight.transpose(1, 2)).unflatten(1, x.shape[1:3])


def weight_gradient(to_products: Tensor, x: Tensor) -> Tensor:
    """Gradient of W [S, K, D] from that of the products [S, T, B, K]."""
    return product(to_products.flatten(1, 2).transpose(1, 2), x.flatten(1, 2))


def input_gradient(to_products: Tensor, weight: Tensor) -> Tensor:
    """Gradient of x [S, T, B, D] from that of the products [S, T, B, K]."""
    return through(to_products.flatten(1, 2), weight).unflatten(1, to_products.shape[1:3])


def recurrent_product(right: Tensor, into: Tensor) -> Callable[[Tensor], object]:
    """What multiplies left [S, B, K] with right [S, K, L] into ``into`` [S, B, L], for every step of a pass."""
    if len(right) > 1:
        return lambda left: torch.bmm(left, right, out=into)
    if right.numel() >= LARGE_WEIGHT and (linear := _onednn(right)):
        packed = torch.ops.mkldnn._reorder_linear_weight(right[0].t(), into.shape[1])
        return lambda left: into[0].copy_(linear(left[0], packed))
    weight, product_of_one = right[0], into[0]
    return lambda left: torch.mm(left[0], weight, out=product_of_one)


def _onednn(like: Tensor) -> Callable[[Tensor, Tensor], Tensor] | None:
    """x [N, D], W [K, D] -> x W^T by oneDNN, for tensors such as ``like``; None where it has nothing to offer."""
    return _linear() if like.dtype == torch.float32 and like.device.type == "cpu" and torch.backends.mkldnn.enabled else None


@functools.cache
def _linear() -> Callable[[Tensor, Tensor], Tensor] | None:
    """The operator that torch.compile uses for linear layers, where this torch has it and it computes what is expected."""

    def linear(x: Tensor, weight: Tensor) -> Tensor:
        found: Any = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
        return found

    if not torch.backends.mkldnn.is_available():
        return None
    x = torch.eye(16)[:, :8]
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(x.t(), 16)
        works = torch.equal(linear(x, x), x @ x.t()) and torch.equal(linear(x.t(), packed), x.t() @ x)
    except (AttributeError, RuntimeError, TypeError):
        return None
    return linear if works else None
