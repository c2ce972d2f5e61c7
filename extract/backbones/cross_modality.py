"""Flow networks that start from RGB weights: cross-modality initialisation (Wang et al. 2016, section 3.2).

Weights of an RGB network never become a flow network's by accident: loading them is refused with the command that does it on purpose,
``actioncache weights convert NAME FILE --cross-modality -o OUT``, whose work is ``from_rgb``.
"""

from collections.abc import Mapping
from typing import Protocol, runtime_checkable

import torch

from extract.backbones import Backbone, BackboneInfo
from store.errors import WeightsError

State = dict[str, torch.Tensor]
RGB_CHANNELS = 3


def cross_modality(state: Mapping[str, torch.Tensor], key: str, channels: int) -> State:
    """A copy of an RGB network's ``state`` whose first layer, ``key``, takes ``channels`` channels instead of three.

    The filters w [D, 3, kh, kw] become w' [D, channels, kh, kw], every channel their mean over RGB:
    w'[d, c] = (w[d, 0] + w[d, 1] + w[d, 2]) / 3, taken in float32 and stored in the type of w. Everything else is shared, not copied.
    Feichtenhofer et al. 2016 fill the 20 channels of their motion stream the same way. Raises ``WeightsError`` when there is no such
    entry or when it does not take three channels.
    """
    if key not in state:
        raise WeightsError(f"the weights have no entry {key}, the first layer, so there is nothing to start a flow network from")
    filters = state[key]
    if filters.dim() < 2 or filters.shape[1] != RGB_CHANNELS:
        raise WeightsError(f"{key} is {list(filters.shape)}; only the filters of an RGB network, [D, 3, ...], can be spread over flow")
    mean = filters.float().mean(1, keepdim=True).to(filters.dtype)
    return {**state, key: mean.repeat_interleave(channels, 1)}


@runtime_checkable
class StartsFromRgb(Protocol):
    """A network whose RGB and flow variants differ in their first layer alone."""

    info: BackboneInfo
    first_layer: str
    """Key of the first layer's filters, in this module's naming."""

    def rename(self, state: Mapping[str, torch.Tensor]) -> State:
        """A published checkpoint's keys in this module's naming, whatever its number of input channels."""
        ...


def from_rgb(backbone: Backbone, state: Mapping[str, torch.Tensor]) -> State:
    """The state dict, in ``backbone``'s own keys, of a flow network started from the RGB weights ``state`` in any layout it knows.

    Raises ``WeightsError`` when ``backbone`` is no flow network that can start from RGB weights, or the weights are not RGB ones.
    """
    if not isinstance(backbone, StartsFromRgb) or backbone.info.modality != "flow":
        raise WeightsError(f"{backbone.info.name} cannot start from RGB weights across modalities; only flow networks of TSN can")
    return cross_modality(backbone.rename(state), backbone.first_layer, backbone.info.channels)


def refuse_rgb(info: BackboneInfo, state: Mapping[str, torch.Tensor], key: str) -> None:
    """Raise ``WeightsError`` when ``state`` is an RGB network's and ``info`` describes a flow network; ``key`` is the first layer."""
    filters = state.get(key)
    if info.modality == "flow" and filters is not None and filters.dim() > 1 and filters.shape[1] == RGB_CHANNELS != info.channels:
        raise WeightsError(
            f"these are weights of an RGB network: {key} takes {RGB_CHANNELS} channels, but {info.name} takes {info.channels} channels of "
            f"flow. To start a flow network from them, run `actioncache weights convert {info.name} FILE --cross-modality -o OUT` "
            "and give OUT as the weights"
        )
