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
EVERY_10TH = {"rule": "every", "stride": 10, "length": 1}
C3D_CLIPS = {"rule": "sliding", "length": 16, "stride": 8}
I3D_CLIPS = {"rule": "sliding", "length": 64, "stride": 32}
CENTRE, TEN = {"resize": [256], "size": 224, "count": 1}, {"resize": [256], "size": 224, "count": 10}
TSN_TEN = {"resize": [340, 256], "size": 224, "count": 10}
TV_CENTRE, TV_TEN = {"resize": [171, 128], "size": 112, "count": 1}, {"resize": [171, 128], "size": 112, "count": 10}
SMALL = {"resize": [64], "size": 56, "count": 1}
LAST_THREE = ["block2", "block3", "block4"]
DIS = {"method": "dis"}
PAIR, PAIRS = {"method": "tvl1", "encoding": "pairs", "pairs": 1}, {"method": "tvl1", "encoding": "pairs", "pairs": 5}
CENTRED = {"method": "tvl1", "encoding": "pairs", "pairs": 10, "offset": -5, "with_rgb": True}
# exact to 5 digits and 1.6 to 2.8 times as fast on a CPU; bf16 would cost MobileNet more than it may (cosine 0.998), see
# benchmarks/extract_fast.py
MOBILENET = {"backbone": "mobilenet_v2", "channels_last": True, "fold_bn": True}

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
        {"backbone": "resnet50", "levels": LAST_THREE, "clips": EVERY_10TH, "crops": CENTRE},
    ),
    "resnet50-maps": Preset(
        "ResNet-50, the maps [1024, 14, 14] that enter block 4; every 10th frame (Iqbal et al. 2017)",
        {"backbone": "resnet50", "levels": ["block3.map"], "clips": EVERY_10TH, "crops": CENTRE},
    ),
    "c3d": Preset(
        "C3D fc6, clips of 16 frames, stride 8, centre crop (Lakhal et al. 2018)",
        {"backbone": "c3d", "levels": ["fc6"], "clips": C3D_CLIPS, "crops": TV_CENTRE},
    ),
    "c3d-tencrop": Preset(
        "C3D fc6, clips of 16 frames, stride 8, mean over ten crops (Lakhal et al. 2018)",
        {"backbone": "c3d", "levels": ["fc6"], "clips": C3D_CLIPS, "crops": TV_TEN},
    ),
    "i3d-rgb": Preset(
        "I3D, clips of 64 frames at 25 frames/s, stride 32, centre crop (Carreira and Zisserman 2017)",
        {"backbone": "i3d_rgb", "decode": {"fps": 25}, "clips": I3D_CLIPS, "crops": CENTRE},
    ),
    "i3d-flow": Preset(
        "I3D on TV-L1 flow, clips of 64 frames at 25 frames/s, stride 32, centre crop (Carreira and Zisserman 2017)",
        {"backbone": "i3d_flow", "decode": {"fps": 25}, "clips": I3D_CLIPS, "crops": CENTRE, "flow": PAIR},
    ),
    "i3d-rgb-tencrop-kept": Preset(
        "I3D, clips of 16 frames side by side, ten crops of 340x256, each kept: [clips, 10, 1024], as in anomaly detection",
        {"backbone": "i3d_rgb", "clips": {"rule": "sliding", "length": 16, "stride": 16}, "crops": {**TSN_TEN, "keep": True}},
    ),
    "r2plus1d": Preset(
        "R(2+1)D-18, clips of 16 frames, stride 8, centre crop (Tran et al. 2018)",
        {"backbone": "r2plus1d_18", "clips": C3D_CLIPS, "crops": TV_CENTRE},
    ),
    "tsn-rgb-tencrop": Preset(
        "BN-Inception of temporal segment networks, 25 segments, mean over ten crops of 340x256 (Wang et al. 2016, Lakhal et al. 2018)",
        {"backbone": "tsn_bninception_rgb", "clips": SEGMENTS, "crops": TSN_TEN},
    ),
    "tsn-flow-tencrop": Preset(
        "BN-Inception of temporal segment networks on stacks of five TV-L1 flows, 25 segments, mean over ten crops of 340x256",
        {"backbone": "tsn_bninception_flow", "clips": SEGMENTS, "crops": TSN_TEN, "flow": PAIRS},
    ),
    "st-resnet": Preset(
        "ST-ResNet-50 on RGB and ten TV-L1 flows: 25 clips of 5 chunks, 5 frames apart, centre crop (Feichtenhofer et al. 2016)",
        {"backbone": "st_resnet50", "clips": {**SEGMENTS, "length": 5, "step": 5}, "crops": CENTRE, "flow": CENTRED},
    ),
    "st-resnet-video": Preset(
        "ST-ResNet-50 on RGB and ten TV-L1 flows: one clip of 25 chunks spread over the video, centre crop",
        {"backbone": "st_resnet50", "clips": {"rule": "spread", "length": 25}, "crops": CENTRE, "flow": CENTRED},
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

# cosine and difference measured by benchmarks/extract_fast.py on real frames, with seeded weights; C3D has no batch normalisation to fold
FAST = {"precision": "bf16", "channels_last": True, "fold_bn": True}
MADE_FAST = {
    "resnet34-mrrn": ("0.99999", "0.4 %", FAST),
    "resnet34-tencrop": ("0.99999", "0.4 %", FAST),
    "resnet50-every10": ("0.99998", "0.6 %", FAST),
    "c3d": ("0.99998", "0.5 %", {**FAST, "fold_bn": False}),
    "i3d-rgb": ("0.99999", "0.4 %", FAST),
    "r2plus1d": ("0.99999", "0.3 %", FAST),
    "tsn-rgb-tencrop": ("0.99998", "0.6 %", FAST),
}
PRESETS |= {
    f"{name}-fast": Preset(
        f"as {name}, in bf16 and channels-last; cosine to fp32 at least {cosine}, largest difference {difference} of the largest value "
        "(seeded weights, real frames)",
        {**PRESETS[name].settings, **fast},
    )
    for name, (cosine, difference, fast) in MADE_FAST.items()
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
