"""Heads that no machine could hold are refused before anything is allocated."""

import os

import torch

from store.errors import TrainingError
from temporal.heads import HEADS
from temporal.spec import HeadSpec

BYTES_A_WEIGHT = 16  # float32: itself, its gradient, two moments of the optimizer


def check_size(spec: HeadSpec, input_width: int, num_classes: int) -> None:
    """TrainingError where the head's weights and what training keeps of each need more than this machine's memory."""
    size = f"head {spec.name} with hidden {spec.hidden} and layers {spec.layers}, for features of width {input_width},"
    advice = "choose a smaller --head.hidden or --head.layers"
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            weights = sum(parameter.numel() for parameter in HEADS.get(spec.name)(input_width, num_classes, spec).parameters())
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise TrainingError(f"{size} cannot be built: {str(error).splitlines()[0]}; {advice}") from None
    needed, memory = BYTES_A_WEIGHT * weights, os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if needed > memory:
        problem = f"{size} has {weights:.3g} weights; training them takes {needed / 1e9:,.0f} GB, and this machine has {memory / 1e9:,.0f}"
        raise TrainingError(f"{problem}; {advice}")
