"""Any network for images of the library timm, by its name there: ``timm:vit_base_patch16_224``.

timm is an extra: it is imported when such a network is asked for and not before.
"""

import dataclasses
import difflib
import functools
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch

from extract.backbones import Backbone, BackboneInfo
from store.errors import PipelineError, SpecError, UnknownNameError

PREFIX = "timm"
OWN = "network."  # timm's parameter names stand below it


def timm_builder(name: str) -> Callable[[], Backbone]:
    """A builder of timm's network ``name``, with or without the tag of its weights; ``UnknownNameError`` names the nearest ones."""
    timm = _timm(name)
    architecture = name.partition(".")[0]
    known = timm.list_models()
    if architecture not in known:
        near = difflib.get_close_matches(architecture, known, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else "timm.list_models() in Python lists them"
        raise UnknownNameError(f"timm {timm.__version__} has no network {architecture!r}; {hint}")
    tagged = timm.list_pretrained(f"{architecture}.*")
    if name not in (architecture, *tagged):
        raise UnknownNameError(f"timm {timm.__version__} knows no weights {name!r} of {architecture}; known: {', '.join(tagged) or 'none'}")
    return functools.partial(TimmNetwork, name)


def _timm(name: str) -> Any:
    try:
        import timm
        import timm.data
    except ImportError as error:
        raise PipelineError(
            f"backbone {PREFIX}:{name} needs the library timm, which cannot be imported here ({error}); "
            "run: pip install 'actioncache[timm]'"
        ) from None
    return timm


class TimmNetwork(Backbone):
    """One of timm's networks, fed as timm's own evaluation feeds it.

    ``features`` are what its classifier sees (timm's ``num_classes=0``) and ``logits`` the class scores, where it has a classifier.
    ``block1`` ... are what ``forward_intermediates`` gives: a convolutional network's resolutions, a transformer's blocks without the
    tokens that stand for no place. The whole network runs for any of them.
    """

    def __init__(self, name: str) -> None:
        super().__init__()
        timm = _timm(name)
        self.network: Any = timm.create_model(name, pretrained=False)
        self.info = _describe(name)
        self.level_keys = {"logits": _classifier(self.network)} if "logits" in self.info.dims else {}  # type: ignore[misc]

    def stages(self, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
        """Yield the output of each block, [B, D, h, w], then the features and class scores."""
        yield from _stages(self.network, frames)

    def convert(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """timm's names, or these with the prefix that they have here."""
        return {key if key.startswith(OWN) else OWN + key: value for key, value in state.items()}

    def without(self, level: str) -> None:
        """Give up the classifier, the only part that a level has for itself."""
        classifier = self.level_keys[level]
        self.network.reset_classifier(0)
        assert not any(key.startswith(classifier) for key in self.state_dict()), classifier
        dims = {name: width for name, width in self.info.dims.items() if name != level}
        self.info = dataclasses.replace(self.info, dims=dims)


def _stages(network: Any, frames: torch.Tensor) -> Iterator[tuple[str, torch.Tensor]]:
    if hasattr(network, "forward_intermediates"):
        last, blocks = network.forward_intermediates(frames, output_fmt="NCHW")
        yield from ((f"block{number}", block.contiguous()) for number, block in enumerate(blocks, start=1))
    else:
        last = network.forward_features(frames)
    yield "features", network.forward_head(last, pre_logits=True)
    if network.num_classes:
        yield "logits", network.forward_head(last)


def _classifier(network: Any) -> tuple[str, ...]:
    names = network.pretrained_cfg.get("classifier") or ()
    return tuple(f"{OWN}{name}." for name in ((names,) if isinstance(names, str) else names))


@functools.cache
def _describe(name: str) -> BackboneInfo:
    """Levels from a pass without values; preprocessing from timm's configuration of the weights that ``name`` means."""
    timm = _timm(name)
    with torch.device("meta"):
        network = timm.create_model(name, pretrained=False).eval()
    config = timm.data.resolve_model_data_config(network)
    size = _square(name, config)
    try:
        with torch.inference_mode():
            outputs = dict(_stages(network, torch.zeros(1, *config["input_size"], device="meta")))
    except (RuntimeError, AttributeError, TypeError) as error:
        raise SpecError(f"backbone {PREFIX}:{name} is not called as timm's networks for images are ({error}); choose another one") from None
    scaled = math.floor(size / (config["crop_pct"] or 0.875))
    return BackboneInfo(
        f"{PREFIX}:{name}",
        {level: output.shape[1] for level, output in outputs.items()},
        "features",
        maps=tuple(level for level, output in outputs.items() if output.dim() == 4),
        resize=(scaled, scaled) if config["crop_mode"] == "squash" else (scaled,),
        size=size,
        fixed_size=bool(network.pretrained_cfg.get("fixed_input_size")),
        interpolation=config["interpolation"],
        mean=tuple(config["mean"]),
        std=tuple(config["std"]),
        code=f"timm:{timm.__version__}",
    )


def _square(name: str, config: Mapping[str, Any]) -> int:
    """The side of the input; ``SpecError`` for a network that is fed in a way that we cannot reproduce."""
    channels, height, width = config["input_size"]
    crop, interpolation = config["crop_mode"] or "center", config["interpolation"]
    if channels != 3 or height != width or crop not in ("center", "squash") or interpolation not in ("bilinear", "bicubic"):
        raise SpecError(
            f"backbone {PREFIX}:{name} takes {channels} x {height} x {width} pixels, crop mode {crop}, interpolation {interpolation}; "
            "only square RGB input, crop modes center and squash, bilinear or bicubic interpolation can be reproduced: choose another one"
        )
    return int(height)
