"""Batch normalisation folded into convolutions: the same function, only where nothing else looks at what lies between."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional

from extract.backbones import BACKBONES, Backbone, BackboneInfo, backbone_info
from extract.fold import NORMALISATIONS, fold
from extract.prepare import prepare_spec
from extract.weights import load_backbone
from store.errors import SpecError

FOLDED = {"resnet18": 20, "mobilenet_v2": 52, "tsn_bninception_rgb": 69, "i3d_flow": 57, "r2plus1d_18": 37, "s3d": 77, "st_resnet50": 90}
NONE_LEFT = sorted(set(FOLDED) - {"st_resnet50"})  # there, RGB and motion meet before some normalisations


def unsettle(network: nn.Module, seed: int = 0) -> nn.Module:
    """Give every batch normalisation statistics and weights of its own, as training does."""
    generator = torch.Generator().manual_seed(seed)
    for module in network.modules():
        if isinstance(module, NORMALISATIONS):
            ranges = ((module.running_var, 0.5, 2), (module.running_mean, -0.3, 0.3), (module.weight, 0.5, 1.5), (module.bias, -1, 1))
            for value, low, high in ranges:
                value.data.uniform_(low, high, generator=generator)  # type: ignore[union-attr]
    return network.eval().requires_grad_(False)


def small_input(info: BackboneInfo) -> torch.Tensor:
    length = (info.shortest_clip or info.clip_length,) if info.clip_length > 1 else ()
    side = info.size if info.fixed_size else 64
    return torch.randn(1, info.channels, *length, side, side, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("name", FOLDED)
def test_folded_networks_compute_the_same(name: str) -> None:
    backbone = load_backbone(name, "random:0").backbone
    unsettle(backbone)
    frames = small_input(backbone.info)
    with torch.inference_mode():
        expected = backbone(frames)
        before = sum(isinstance(module, NORMALISATIONS) for module in backbone.modules())
        assert fold(backbone, ()) is backbone
        assert before - sum(isinstance(module, NORMALISATIONS) for module in backbone.modules()) == FOLDED[name]
        for level, values in backbone(frames).items():
            torch.testing.assert_close(values, expected[level], rtol=1e-3, atol=1e-4 * float(expected[level].abs().max()))
    assert (name in NONE_LEFT) == (before == FOLDED[name])


class Odd(Backbone):
    """Convolutions of which only ``plain`` is followed by its normalisation alone."""

    def __init__(self, biased: bool = True) -> None:
        super().__init__()
        self.info = BackboneInfo("odd", {"out": 4}, size=16)
        self.biased = biased
        for name in ("plain", "seen", "twice", "bare"):
            self.add_module(name, nn.Conv2d(3, 3, 1))
            self.add_module(f"{name}_bn", nn.BatchNorm2d(3))

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        plain, seen, twice = (self.get_submodule(name) for name in ("plain", "seen", "twice"))
        x = functional.conv2d(frames, plain.weight, plain.bias if self.biased else None)  # type: ignore[arg-type]
        assert x.dim() == 4
        assert x.shape[1] == 3
        x = self.get_submodule("plain_bn")(x)
        y = seen(x)
        x = self.get_submodule("seen_bn")(y) + y
        x = self.get_submodule("twice_bn")(twice(twice(x)))
        yield "out", self.get_submodule("bare_bn")(x + self.get_submodule("bare")(x))


def test_only_what_nothing_else_uses_is_folded() -> None:
    network = Odd()
    unsettle(network)
    frames = torch.randn(2, 3, 16, 16)
    with torch.inference_mode():
        expected = network(frames)["out"]
        fold(network, ())
        torch.testing.assert_close(network(frames)["out"], expected, rtol=1e-5, atol=1e-5)
    left = {name for name, module in network.named_modules() if isinstance(module, NORMALISATIONS)}
    assert left == {"seen_bn", "twice_bn", "bare_bn"}


def test_a_network_that_ignores_its_bias_is_refused() -> None:
    network = Odd(biased=False)
    unsettle(network)
    with pytest.raises(SpecError, match="odd cannot be folded: plain takes no bias; leave --fold-bn out"):
        fold(network, ())


def test_where_there_is_nothing_to_fold() -> None:
    with pytest.raises(SpecError, match="tiny has no batch normalisation that can be folded; leave --fold-bn out"):
        prepare_spec("tiny", {"fold_bn": True}, "random:0", torch.device("cpu"))


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in BACKBONES if name not in FOLDED])
def test_every_network_is_folded_rightly_or_not_at_all(name: str) -> None:
    backbone = load_backbone(name, "random:0").backbone
    unsettle(backbone)
    frames = small_input(backbone_info(name))
    with torch.inference_mode():
        expected = backbone(frames)
        try:
            fold(backbone, ())
        except SpecError as error:
            assert "no batch normalisation" in str(error)  # noqa: PT017 either outcome is right
        for level, values in backbone(frames).items():
            torch.testing.assert_close(values, expected[level], rtol=1e-3, atol=1e-4 * float(expected[level].abs().max()))


def test_real_weights_keep_their_features(shared_data: Path) -> None:
    weights = str(shared_data / "weights" / "mobilenet_v2-imagenet-from-tflite.safetensors")
    plain, folded = (prepare_spec("mobilenet-rgb", {"fold_bn": value}, weights, torch.device("cpu")) for value in (False, True))
    assert plain[0].weights == folded[0].weights
    frames = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(0)).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        (expected,), (values,) = plain[1](frames).values(), folded[1](frames).values()
    torch.testing.assert_close(values, expected, rtol=1e-4, atol=1e-5)
