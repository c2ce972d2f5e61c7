"""How flow becomes bytes, one way a family of networks, and what a mirror makes of a byte. Imports no torch.

For a displacement v in pixels and a bound b, with halves rounded to even:

============  ============================================  ==========  ===========================  ==================================
quantise      byte                                          no motion   mirror of byte x             whose
============  ============================================  ==========  ===========================  ==================================
symmetric     round(128 + 127 clip(v, -b, b) / b)           128         256 - x                      this project's flow images
dense_flow    round(255 (clip(v, -b, b) + b) / (2 b))       128         255 - x                      TSN, two-stream, ST-ResNet
i3d           round(128 + 255 v / (2 b)), clipped to 0-255  128         256 - x, at most 255         I3D (b = 20: 128 + 255 v / 40)
============  ============================================  ==========  ===========================  ==================================

``dense_flow`` is the rounding of the tool of that name, whose zero is 127.5 and hence the byte 128; its networks were trained and tested on
mirrors 255 - x, in which no motion is 127. ``i3d`` is what the PyTorch ports of I3D compute; they keep the value 256 that v = b gives,
which a byte cannot hold: it becomes 255. The mirrors of the other two keep no motion at 128.
"""

import numpy as np

from extract.spec import FlowSpec

MIRRORS = {"": 256, "symmetric": 256, "dense_flow": 255, "i3d": 256}
"""The sum of a byte and its mirror; clipped to a byte. Nothing said means symmetric."""


def flow_bytes(flow: np.ndarray, spec: FlowSpec) -> np.ndarray:
    """Flow float32 [H, W, 2] in pixels -> uint8 [H, W, 3] (encoding image: x, y, magnitude) or [H, W, 2] (encoding pairs: x, y).

    The magnitude m = sqrt(x² + y²) of the flow before clipping becomes round(255 min(m, bound) / bound), with 0 for no motion.
    """
    components = quantised(flow, spec.bound, spec.quantise)
    if spec.encoding == "pairs":
        return components
    x, y = np.moveaxis(flow.astype(np.float32).astype(np.float64), -1, 0)
    length = np.sqrt(x * x + y * y).astype(np.float32)  # through double precision, so that every machine gets the same bits
    magnitude = np.rint(np.minimum(length, np.float32(spec.bound)) * np.float32(255 / spec.bound))
    return np.concatenate([components, magnitude.astype(np.uint8)[..., None]], 2)


def quantised(flow: np.ndarray, bound: float, quantise: str) -> np.ndarray:
    """Flow of any shape in pixels as bytes of the same shape, by the table above; nothing said means symmetric."""
    if quantise == "dense_flow":  # in double precision, as the tool, whose halves are exact
        return np.rint(255 * (np.clip(flow.astype(np.float64), -bound, bound) + bound) / (2 * bound)).astype(np.uint8)
    flow = np.clip(flow.astype(np.float32, copy=False), -bound, bound)
    scale = np.float32((127.5 if quantise == "i3d" else 127) / bound)
    return np.clip(np.rint(128 + flow * scale), 0, 255).astype(np.uint8)


def dequantised(values: np.ndarray, bound: float, quantise: str) -> np.ndarray:
    """Bytes of any shape as float32 displacements in pixels: the inverse of the table above, up to half a step."""
    values = values.astype(np.float32)
    if quantise == "dense_flow":
        return values * np.float32(2 * bound / 255) - np.float32(bound)
    return (values - 128) * np.float32(bound / (127.5 if quantise == "i3d" else 127))


def mirrored_channels(spec: FlowSpec) -> slice:
    """The channels that hold motion to the right, which a mirror inverts: the first of an image, every other one of pairs."""
    return slice(3 if spec.with_rgb else 0, 1 if spec.encoding == "image" else None, 2)
