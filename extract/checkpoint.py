"""Checkpoint files: read safely, understood or refused with the reason, and fitted to a network key by key."""

import io
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import safetensors
import safetensors.torch
import torch

from extract.backbones import Backbone
from extract.caffe_model import is_caffe, read_caffe
from extract.tensor_bundle import SUFFIX, read_bundle
from store.errors import WeightsError

WRAPPERS = ("state_dict", "model_state_dict", "model")  # keys under which training programs put the state dict
IGNORED_SUFFIX = "num_batches_tracked"  # a counter that evaluation does not use; old files lack it
SHOWN = 4  # keys listed of each kind of problem
TORCH_ERRORS = (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, LookupError, AttributeError, TypeError, OSError, ImportError)
OBJECT_WORDS = ("GLOBAL", "unrecognized function", "Can only create new object", "Can only build Tensor")
"""How torch's safe loader names what is neither tensor nor plain container; its other refusals mean damage."""

State = dict[str, torch.Tensor]


def read_state(data: bytes, path: Path) -> State:
    """State dict of a checkpoint file's bytes, on the CPU; nothing in the file is executed.

    Takes safetensors and what ``torch.save`` wrote: a state dict, alone or under ``state_dict``, ``model_state_dict`` or ``model``; the
    prefix ``module.`` of data-parallel training is taken off. A Caffe model gives its layers' blobs, the index of a TensorFlow checkpoint
    the variables of the data files beside it, both under their own names. Anything else raises ``WeightsError`` with file and reason.
    """
    reason = _not_a_checkpoint(data)
    if reason:
        raise WeightsError(f"{path} is not a checkpoint: {reason}")
    state = _find_state(_read(data, path), path)
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    return state


def _not_a_checkpoint(data: bytes) -> str:
    start = data[:512].lstrip().lower()
    if not data:
        return "it is empty; download it again"
    if start.startswith((b"<!doctype", b"<html", b"<?xml", b"<head")):
        return "it is a web page, most likely the error page of a failed download; download it again"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer, not the file itself; run git lfs pull where it came from"
    return ""


def _read(data: bytes, path: Path) -> Any:
    if _is_safetensors(data, path):
        return _read_safetensors(data, path)
    if path.suffix == SUFFIX:
        return read_bundle(data, path)
    return read_caffe(data, path) if is_caffe(data) else _read_torch(data, path)


def _is_safetensors(data: bytes, path: Path) -> bool:
    return path.suffix == ".safetensors" or data[8:9] == b"{"


def _read_safetensors(data: bytes, path: Path) -> State:
    try:
        return safetensors.torch.load(data)
    except (safetensors.SafetensorError, ValueError, KeyError) as error:
        raise WeightsError(f"{path} is not a whole safetensors file: {error}; download it again") from None


def _read_torch(data: bytes, path: Path) -> Any:
    try:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except TORCH_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        if any(words in reason for words in OBJECT_WORDS):
            asked = re.search(r"GLOBAL ([\w.]+)", reason)  # torch's own text advises to load it unsafely, so only the name is passed on
            what = f" ({asked[1]})" if asked else ""
            raise WeightsError(
                f"{path} holds Python objects besides tensors{what}, which could run any program when loaded, so it was not loaded. "
                "If you trust its source, save its state dict alone (torch.save(network.state_dict(), ...) or safetensors) and use that."
            ) from None
        raise WeightsError(
            f"{path} is damaged or not a checkpoint ({type(error).__name__}: {_last_words(reason)}); download it again"
        ) from None


def _last_words(reason: str) -> str:
    """What is wrong, without torch's advice to load it unsafely."""
    words = reason.rpartition("WeightsUnpickler error: ")[2]
    return re.split(r" In PyTorch 2\.6| Check the documentation", words)[0][:300]


def _find_state(content: Any, path: Path) -> State:
    for wrapper in WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
            break
    if not isinstance(content, Mapping) or not content:
        raise WeightsError(f"{path} holds a {type(content).__name__} and no state dict (names with tensors); save network.state_dict()")
    others = [f"{key!r} ({type(value).__name__})" for key, value in content.items() if not _is_entry(key, value)]
    if others:
        raise WeightsError(f"{path} holds no plain state dict; these entries are no tensors: {_some(others)}")
    return dict(content)


def _is_entry(key: Any, value: Any) -> bool:
    return isinstance(key, str) and isinstance(value, torch.Tensor)


def fit_state(backbone: Backbone, state: Mapping[str, torch.Tensor], levels: tuple[str, ...], path: Path) -> None:
    """Put ``state`` into ``backbone`` (made on the meta device) so that every weight is the file's, as float32.

    Levels that are not wanted and need parameters of their own (``Backbone.level_keys``: a classifier) are given up if the file's do not
    fit. All missing, unexpected, wrongly shaped and non-finite entries are reported in one ``WeightsError``.
    """
    state = {key: value for key, value in _converted(backbone, state, path).items() if not key.endswith(IGNORED_SUFFIX)}
    for level, prefixes in backbone.level_keys.items():
        wanted = {key for key in _targets(backbone) if key.startswith(prefixes)}
        if level not in levels and not all(key in state and _fits(state[key], _targets(backbone)[key]) for key in wanted):
            backbone.without(level)
            state = {key: value for key, value in state.items() if not key.startswith(prefixes)}
    problems = _problems(_targets(backbone), state)
    if problems:
        entries = f"{backbone.info.name} ({len(_targets(backbone))} entries)"
        raise WeightsError(f"{path} does not fit {entries}: {'; '.join(problems)}{_extras(backbone, state, path)}")
    counters = {key: torch.zeros((), dtype=torch.int64) for key in backbone.state_dict() if key.endswith(IGNORED_SUFFIX)}
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    backbone.load_state_dict({**state, **counters}, assign=True)
    assert not any(value.is_meta for value in (*backbone.parameters(), *backbone.buffers())), "a weight came from nowhere"


def _converted(backbone: Backbone, state: Mapping[str, torch.Tensor], path: Path) -> State:
    try:
        return backbone.convert(state)
    except WeightsError as error:
        raise WeightsError(f"{path}: {error}") from None


def _targets(backbone: Backbone) -> State:
    return {key: value for key, value in backbone.state_dict().items() if not key.endswith(IGNORED_SUFFIX)}


def _fits(value: torch.Tensor, target: torch.Tensor) -> bool:
    """A weight may be stored in any floating type; a table of indices, such as Swin's, has the one type it must have."""
    kind = value.is_floating_point() if target.is_floating_point() else value.dtype == target.dtype
    return value.shape == target.shape and kind


def _problems(targets: State, state: State) -> list[str]:
    missing = [key for key in targets if key not in state]
    unexpected = sorted(key for key in state if key not in targets)
    shared = [key for key in targets if key in state]
    unfit = [
        f"{key} is {list(state[key].shape)} {_type(state[key])}, not {list(targets[key].shape)} {_type(targets[key])}"
        for key in shared
        if not _fits(state[key], targets[key])
    ]
    broken = [key for key in shared if state[key].is_floating_point() and not bool(torch.isfinite(state[key]).all())]
    kinds = (("missing", missing), ("unexpected", unexpected), ("of another shape or type", unfit), ("with NaN or Inf", broken))
    found = [f"{len(keys)} {kind}: {_some(keys)}" for kind, keys in kinds if keys]
    return found if shared else [*found, "no entry fits, so these are another network's weights"]


def _extras(backbone: Backbone, state: State, path: Path) -> str:
    """What to do about entries that are published in files of their own, where nothing else is missing."""
    missing = [key for key in _targets(backbone) if key not in state]
    if not missing or set(missing) - set(backbone.extras):
        return ""
    flags = " ".join(f"--{name.replace('_', '-')} FILE" for name in missing)
    return (
        f". {', '.join(missing)} belongs to the weights but is published in a file of its own; put it in once with "
        f"`actioncache weights convert {backbone.info.name} {path} {flags} -o OUT.safetensors` and use OUT.safetensors. "
        + " ".join(f"{name}: {backbone.extras[name]}." for name in missing)
    )


def _type(value: torch.Tensor) -> str:
    return str(value.dtype).removeprefix("torch.")


def _some(names: list[str]) -> str:
    return ", ".join(names[:SHOWN]) + (", ..." if len(names) > SHOWN else "")
