"""What the benchmarks of recurrent layers have in common: a training step, and the time of its matrix products alone."""

from collections.abc import Callable

import torch
from torch import Tensor, nn

STEPS, BATCH = 25, 64


def training_step(module: nn.Module, width: int, batch: int = BATCH, precision: str = "fp32") -> Callable[[], None]:
    """Forward, backward and an Adam step on x [25, batch, width]; what ``module`` gives may be a tuple, as that of torch's own layers."""
    x = torch.randn(STEPS, batch, width, generator=torch.Generator().manual_seed(0))
    optimizer = torch.optim.Adam(module.parameters(), fused=True)
    towards = torch.randn(1, batch, 1)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            found = module(x)
        output = found[0] if isinstance(found, tuple) else found
        (output * towards).sum().backward()
        optimizer.step()

    return step


def products_alone(shapes: list[tuple[int, int, int]], dtype: torch.dtype = torch.float32) -> Callable[[], None]:
    """All matrix products [n, d] x [d, k] of ``shapes`` (as often as they stand there), and of their backward passes, but a first x's."""
    made = [[torch.randn(shape).to(dtype) for shape in ((n, d), (k, d), (n, k))] for n, d, k in dict.fromkeys(shapes)]
    by_shape = dict(zip(dict.fromkeys(shapes), made, strict=True))
    into = {
        shape: [torch.empty(size, dtype=dtype) for size in ((shape[0], shape[2]), shape[:2], (shape[2], shape[1]))] for shape in by_shape
    }

    def multiply() -> None:
        for number, shape in enumerate(shapes):
            x, w, g = by_shape[shape]
            forward, to_x, to_w = into[shape]
            torch.mm(x, w.t(), out=forward)
            torch.mm(g.t(), x, out=to_w)
            if number:
                torch.mm(g, w, out=to_x)

    return multiply


def recurrent_products(width: int, hidden: int, gates: int, layers: int, batch: int) -> Callable[[], None]:
    """All products of a stack of LSTM (4 gates) or GRU (3) layers: of the inputs, of each step's memory, and backward."""
    large = [(STEPS * batch, hidden if layer else width, gates * hidden) for layer in range(layers)]
    inputs = products_alone(large)
    h, w, g = torch.randn(batch, hidden), torch.randn(gates * hidden, hidden), torch.randn(batch, gates * hidden)
    all_g, all_h = torch.randn((STEPS - 1) * batch, gates * hidden), torch.randn((STEPS - 1) * batch, hidden)
    forward, back = torch.empty(batch, gates * hidden), torch.empty(batch, hidden)

    def multiply() -> None:
        inputs()
        for _ in range(layers):
            for _ in range(STEPS - 1):
                torch.mm(h, w.t(), out=forward)
                torch.mm(g, w, out=back)
            torch.mm(all_g.t(), all_h)

    return multiply


class Chain(nn.Module):
    """Layers of torch's own one after another, each of which gives a tuple."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers:
            x = layer(x)[0]
        return x
