"""Matrix products of a whole layer, for S seeds at once; what number type they are computed in."""

import torch
from torch import Tensor


def products_dtype(x: Tensor) -> torch.dtype:
    """bfloat16 (or float16) inside ``torch.autocast``, else that of x. Sums, gates and memories stay in float32 or float64."""
    kind = x.device.type
    if x.dtype == torch.float32 and torch.is_autocast_enabled(kind):
        return torch.get_autocast_dtype(kind)
    return x.dtype


def product(left: Tensor, right: Tensor) -> Tensor:
    """[S, N, D] times [S, D, K] -> [S, N, K]; one seed's without the detour of a batched product."""
    return torch.mm(left[0], right[0]).unsqueeze(0) if len(left) == 1 else torch.bmm(left, right)


def input_products(x: Tensor, weight: Tensor) -> Tensor:
    """W x of all steps: x [S, T, B, D], W [S, K, D] -> [S, T, B, K]."""
    return product(x.flatten(1, 2), weight.transpose(1, 2)).unflatten(1, x.shape[1:3])


def weight_gradient(to_products: Tensor, x: Tensor) -> Tensor:
    """Gradient of W [S, K, D] from that of the products [S, T, B, K]."""
    return product(to_products.flatten(1, 2).transpose(1, 2), x.flatten(1, 2))


def input_gradient(to_products: Tensor, weight: Tensor) -> Tensor:
    """Gradient of x [S, T, B, D] from that of the products [S, T, B, K]."""
    return product(to_products.flatten(1, 2), weight).unflatten(1, to_products.shape[1:3])


def recurrent_product(left: Tensor, right: Tensor, into: Tensor) -> None:
    """[S, B, K] times [S, K, L] into [S, B, L]: one step's product."""
    if len(left) == 1:
        torch.mm(left[0], right[0], out=into[0])
    else:
        torch.bmm(left, right, out=into)
