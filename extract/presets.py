"""Named feature specs, one line each: overrides of ``FeatureSpec``'s defaults, which a config file and flags override in turn.

Imports no torch: the command line shows them in its help.
"""

import copy
import difflib
from collections.abc import Mapping
from typing import Any, NamedTuple

from store.errors import UnknownNameError

CUSTOM = "custom"


class Preset(NamedTuple):
    """What a preset is for, and the settings it overrides."""

    text: str
    settings: Mapping[str, Any]


SEGMENTS = {"rule": "segments", "segments": 25, "length": 1}
LOOPED = {"rule": "looped", "length": 30, "stride": 8, "max_clips": 20, "pool": "none"}
CENTRE, TEN = {"resize": [256], "size": 224, "count": 1}, {"resize": [256], "size": 224, "count": 10}
SMALL = {"resize": [64], "size": 56, "count": 1}
LAST_THREE = ["block2", "block3", "block4"]
DIS = {"method": "dis"}
MOBILENET = {"backbone": "mobilenet_v2", "channels_last": True}  # faster on a CPU, see benchmarks/extract_against_forward.py

PRESETS: dict[str, Preset] = {
    "mobilenet-rgb": Preset(
        "MobileNetV2, 25 segments, centre crop (the clips of Lakhal et al. 2018 with TSN)",
        {**MOBILENET, "clips": SEGMENTS, "crops": CENTRE},
    ),
    "mobilenet-rgb-tencrop": Preset(
        "MobileNetV2, 25 segments, mean over ten crops (Lakhal et al. 2018)",
        {**MOBILENET, "clips": SEGMENTS, "crops": TEN},
    ),
    "mobilenet-flow": Preset(
        "MobileNetV2 on DIS flow drawn as an image, 25 segments, centre crop",
        {**MOBILENET, "clips": SEGMENTS, "crops": CENTRE, "flow": DIS},
    ),
    "mobilenet-flow-tencrop": Preset(
        "MobileNetV2 on DIS flow drawn as an image, 25 segments, mean over ten crops",
        {**MOBILENET, "clips": SEGMENTS, "crops": TEN, "flow": DIS},
    ),
    "resnet34-mrrn": Preset(
        "ResNet-34 low, mid, high; looped clips of 30 frames, stride 8, at most 20; every frame kept (Zheng et al. 2017)",
        {"backbone": "resnet34", "levels": LAST_THREE, "clips": LOOPED, "crops": CENTRE},
    ),
    "resnet34-tencrop": Preset(
        "ResNet-34, 25 segments, mean over ten crops (Lakhal et al. 2018)",
        {"backbone": "resnet34", "clips": SEGMENTS, "crops": TEN},
    ),
    "resnet50-every10": Preset(
        "ResNet-50 after blocks 2, 3 and 4; every 10th frame (Iqbal et al. 2017)",
        {"backbone": "resnet50", "levels": LAST_THREE, "clips": {"rule": "every", "stride": 10, "length": 1}, "crops": CENTRE},
    ),
    "tiny": Preset(
        "a small network with seeded weights that has learned nothing, 25 segments; for tests and demonstrations",
        {"backbone": "tiny", "clips": SEGMENTS, "crops": SMALL},
    ),
    "tiny-flow": Preset(
        "the small network on DIS flow drawn as an image; for tests and demonstrations",
        {"backbone": "tiny", "clips": SEGMENTS, "crops": SMALL, "flow": {**DIS, "short_side": 64}},
    ),
    "tiny-clips": Preset(
        "a small clip-wise network with seeded weights, sliding clips of 8 frames, stride 4; for tests and demonstrations",
        {"backbone": "tiny3d", "clips": {"rule": "sliding", "length": 8, "stride": 4}, "crops": SMALL},
    ),
}

DESCRIPTIONS: dict[str, str] = {name: preset.text for name, preset in PRESETS.items()}


def preset(name: str) -> dict[str, Any]:
    """The settings of preset ``name`` as a new nested dict; an unknown name raises ``UnknownNameError`` with the nearest ones."""
    if name not in PRESETS:
        near = difflib.get_close_matches(name, PRESETS, n=3)
        hint = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(PRESETS)}"
        raise UnknownNameError(f"no preset is called {name!r}; {hint}")
    return copy.deepcopy(dict(PRESETS[name].settings))


def store_name(name: str | None) -> str:
    """First part of a store's folder name: the preset's name, or ``custom`` without one. The digest after it tells what was overridden."""
    return name or CUSTOM
