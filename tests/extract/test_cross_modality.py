"""Cross-modality initialisation against its equation in plain numpy."""

import numpy as np
import pytest
import torch

from extract.backbones import BACKBONES, BackboneInfo
from extract.backbones.cross_modality import cross_modality, from_rgb, refuse_rgb
from store.errors import WeightsError

FLOW = BackboneInfo("flow", {"last": 1}, channels=10, modality="flow")


def rgb_state(dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return {"conv1.weight": torch.randn(8, 3, 7, 7, generator=generator).to(dtype), "bn1.weight": torch.ones(8)}


@pytest.mark.parametrize("channels", [2, 10, 20])
def test_every_channel_is_the_mean_of_the_rgb_filters(channels: int) -> None:
    state = rgb_state()
    before = state["conv1.weight"].clone()
    spread = cross_modality(state, "conv1.weight", channels)
    exact = before.numpy().astype(np.float64).sum(1) / 3
    assert spread["conv1.weight"].shape == (8, channels, 7, 7)
    for channel in range(channels):
        np.testing.assert_allclose(spread["conv1.weight"][:, channel].numpy(), exact, rtol=0, atol=1e-6)
    assert spread["bn1.weight"] is state["bn1.weight"]
    assert torch.equal(state["conv1.weight"], before)  # the argument is left alone
    spread["conv1.weight"][:, 0] = 0
    assert spread["conv1.weight"][:, 1].abs().max() > 0  # no shared memory between the channels


def test_half_precision_stays_half_and_is_averaged_in_float32() -> None:
    state = rgb_state(torch.float16)
    state["conv1.weight"][:] = 60_000  # three of them overflow float16
    spread = cross_modality(state, "conv1.weight", 4)["conv1.weight"]
    assert spread.dtype == torch.float16
    assert torch.isfinite(spread).all()


def test_what_is_no_rgb_network_is_refused() -> None:
    with pytest.raises(WeightsError, match=r"no entry conv9\.weight, the first layer"):
        cross_modality(rgb_state(), "conv9.weight", 10)
    with pytest.raises(WeightsError, match=r"conv1\.weight is \[8, 10, 7, 7\]; only the filters of an RGB network"):
        cross_modality({"conv1.weight": torch.zeros(8, 10, 7, 7)}, "conv1.weight", 10)
    with pytest.raises(WeightsError, match=r"bn1\.weight is \[8\]; only the filters"):
        cross_modality(rgb_state(), "bn1.weight", 10)


def test_rgb_weights_are_refused_with_the_command_that_converts_them() -> None:
    with pytest.raises(
        WeightsError,
        match=r"conv1\.weight takes 3 channels, but flow takes 10 channels of flow\. .*"
        r"`actioncache weights convert flow FILE --cross-modality -o OUT`",
    ):
        refuse_rgb(FLOW, rgb_state(), "conv1.weight")
    refuse_rgb(FLOW, {"conv1.weight": torch.zeros(8, 10, 7, 7)}, "conv1.weight")
    refuse_rgb(FLOW, {}, "conv1.weight")  # a missing first layer is told with all other problems
    refuse_rgb(BackboneInfo("rgb", {"last": 1}), rgb_state(), "conv1.weight")


def test_only_flow_networks_start_from_rgb() -> None:
    with pytest.raises(WeightsError, match="tiny cannot start from RGB weights across modalities"):
        from_rgb(BACKBONES.get("tiny")(), rgb_state())
