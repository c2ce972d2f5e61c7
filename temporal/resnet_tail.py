"""The last blocks of a ResNet, from the maps that enter them on, with torchvision's modules and parameter names."""

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from store.errors import SpecError, TrainingError

BLOCKS = (1, 2, 3, 4)


class Tail(nn.Module):
    """Blocks ``first`` to 4 of a ResNet: ``units`` are their residual units, one after the other, [N, C, H, W] -> [N, D, h, w].

    ``first`` follows from the channels of the maps: those that leave block b enter block b + 1, and 64 channels enter block 1 (as the
    stem's do). ``layer1`` ... ``layer4`` are torchvision's.
    """

    def __init__(self, backbone: str, channels: int) -> None:
        super().__init__()
        import torchvision  # takes a second, which no other head should wait for

        network = torchvision.models.get_model(backbone, weights=None)
        blocks = [getattr(network, f"layer{number}") for number in BLOCKS]
        enters = {block[0].conv1.in_channels: number for number, block in zip(BLOCKS, blocks, strict=True)}
        if backbone in ("resnet18", "resnet34"):
            enters[64] = 2  # the stem's and block 1's maps are alike in shape; those of block 1 are meant
        if channels not in enters:
            known = ", ".join(f"{width} (enters block {number})" for width, number in enters.items())
            raise SpecError(
                f"maps of {channels} channels enter no block of {backbone}, whose blocks take {known}; choose another --sequence.level, "
                "or --head.params backbone=..."
            )
        self.backbone, self.first = backbone, enters[channels]
        for number in BLOCKS[self.first - 1 :]:
            self.add_module(f"layer{number}", blocks[number - 1])
        self.output_width = int(network.fc.in_features)

    @property
    def units(self) -> list[nn.Module]:
        """The residual units in order."""
        return [unit for number in BLOCKS[self.first - 1 :] for unit in getattr(self, f"layer{number}")]

    def units_up_to(self, position: str, count: int) -> list[int]:
        """The numbers of ``count`` units in a row, the last one at ``position``; SpecError where the maps enter too late for that."""
        starts = dict(zip(BLOCKS[self.first - 1 :], self._starts(), strict=True))
        block = int(position[5])
        lengths = {number: len(getattr(self, f"layer{number}")) for number in starts}
        if block not in starts:
            raise SpecError(
                f"position {position} is in block {block}, but these maps enter block {self.first} of {self.backbone}; read "
                f"maps that enter block {block} or an earlier one (--sequence.level)"
            )
        last = starts[block] + (0 if position in ("block1", "block4_mid") else lengths[block] - 1)
        if count > last + 1:
            raise SpecError(
                f"{count} skips ending at {position} need {count} residual units, but from the maps that enter block {self.first} of "
                f"{self.backbone} on there are {last + 1}; take fewer skips, or maps that enter an earlier block (--sequence.level)"
            )
        return list(range(last + 1 - count, last + 1))

    def _starts(self) -> list[int]:
        lengths = [len(getattr(self, f"layer{number}")) for number in BLOCKS[self.first - 1 :]]
        return [sum(lengths[:index]) for index in range(len(lengths))]

    @staticmethod
    def residual(unit: nn.Module, maps: Tensor) -> Tensor:
        """s(x * W): the unit's convolutions, before the addition."""
        for number in (1, 2, 3):
            if not hasattr(unit, f"conv{number}"):
                break
            maps = functional.relu(maps) if number > 1 else maps
            maps = getattr(unit, f"bn{number}")(getattr(unit, f"conv{number}")(maps))
        return maps


def load_tail(tail: Tail, file: Path) -> None:
    """Weights of the blocks from a state dict of the whole network (.safetensors, or a torch file read without running code)."""
    state = _read(file)
    state = {name.removeprefix("module.").removeprefix("backbone."): tensor for name, tensor in state.items()}
    own = tail.state_dict()
    absent = [name for name in own if name not in state and not name.endswith("num_batches_tracked")]
    if absent:
        raise TrainingError(
            f"{file} has not the weights of {tail.backbone}'s blocks {tail.first} to 4: {len(absent)} of {len(own)} tensors are absent, "
            f"such as {absent[0]}; give a state dict with torchvision's names"
        )
    wrong = [name for name in own if name in state and state[name].shape != own[name].shape]
    if wrong:
        name = wrong[0]
        raise TrainingError(f"{file}: {name} is {list(state[name].shape)}, but {tail.backbone} has {list(own[name].shape)}")
    tail.load_state_dict({name: state[name] for name in own if name in state}, strict=False)


def _read(file: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        data = load_file(str(file)) if file.suffix == ".safetensors" else torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, pickle.UnpicklingError, EOFError, ValueError) as error:
        raise TrainingError(f"{file} cannot be read as weights: {str(error).splitlines()[0]}") from None
    data = data.get("state_dict", data) if isinstance(data, dict) else data
    if not isinstance(data, dict) or not all(isinstance(value, Tensor) for value in data.values()):
        raise TrainingError(f"{file} holds no state dict (names and tensors)")
    return data
