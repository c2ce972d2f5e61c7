"""Heads that no machine could hold are refused before anything is allocated."""

import os

import torch
from torch import nn

from store.errors import TrainingError
from temporal.heads import HEADS, Limited
from temporal.spec import HeadSpec

BYTES_A_WEIGHT = 16  # float32: itself, its gradient, two moments of the optimizer


def memory_of(device: str) -> int:
    """Bytes: what is free on a GPU, all that this machine has for the CPU.

    What earlier heads of this process have used stays with torch, which hands it out again, but counts as used for the GPU's driver.
    """
    if device.startswith("cuda"):
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return int(torch.cuda.mem_get_info(device)[0]) + kept
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def check_rows(num_bytes: int, device: str) -> None:
    """TrainingError where the features of a part, which are held on the GPU as a whole, do not fit there."""
    if device.startswith("cuda") and num_bytes > (free := memory_of(device)):
        raise TrainingError(
            f"the features take {num_bytes / 1e9:,.1f} GB of the memory of {device}, and {free / 1e9:,.1f} GB of it are free; train on "
            "--device cpu, make them narrower (--sequence.projection pca), or use a GPU with more memory"
        )


def check_size(spec: HeadSpec, input_width: int, num_classes: int, device: str = "cpu") -> None:
    """TrainingError where the head's weights and what training keeps of each need more than this machine's, or the GPU's, memory."""
    check_head(spec, input_width, num_classes, 0, device)


def check_head(spec: HeadSpec, input_width: int, num_classes: int, longest: int, device: str) -> nn.Module:
    """``check_size``; SpecError where the head refuses its settings, or sequences of ``longest`` steps. The head, without weights."""
    size = f"head {spec.name} with hidden {spec.hidden} and layers {spec.layers}, for features of width {input_width},"
    advice = "choose a smaller --head.hidden or --head.layers"
    try:
        with torch.random.fork_rng(devices=[]), torch.device("meta"):
            head = HEADS.get(spec.name)(input_width, num_classes, spec)
    except (RuntimeError, OverflowError, MemoryError) as error:
        raise TrainingError(f"{size} cannot be built: {str(error).splitlines()[0]}; {advice}") from None
    if isinstance(head, Limited):
        head.check_steps(longest)
    weights = sum(parameter.numel() for parameter in head.parameters())
    needed, memory = BYTES_A_WEIGHT * weights, memory_of(device)
    if needed > memory:
        has = f"{device} has {memory / 1e9:,.1f} free" if device.startswith("cuda") else f"this machine has {memory / 1e9:,.0f}"
        problem = f"{size} has {weights:.3g} weights; training them takes {needed / 1e9:,.0f} GB, and {has}"
        raise TrainingError(f"{problem}; {advice}")
    return head
