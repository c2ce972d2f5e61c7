"""What is known about published weights that several families share."""

import torchvision

from extract.backbones import Published


def from_torchvision(name: str) -> dict[str, Published]:
    """torchvision's weights of its model ``name``, the newest last as torchvision lists them."""
    return {weights.name: _of(weights) for weights in torchvision.models.get_model_weights(name)}


def _of(weights: "torchvision.models.WeightsEnum") -> Published:
    scores = next(iter(weights.meta.get("_metrics", {}).items()), None)
    accuracy = f"; {scores[0]}: " + ", ".join(f"{name} {value}" for name, value in scores[1].items()) if scores else ""
    about = f"torchvision, {weights.meta.get('num_params', 0):,} parameters{accuracy}"
    size = round(weights.meta.get("_file_size", 0) * 2**20)  # stated in MiB with three digits, so to a kilobyte
    return Published(weights.url, bytes=size, licence="BSD-3-Clause (torchvision)", about=about)
