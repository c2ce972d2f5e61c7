"""Look at weights before using them: do they load, what is in them, does the network compute something, and what others computed."""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from extract.backbones import Backbone, BackboneInfo, backbone_info, empty_backbone
from extract.checkpoint import IGNORED_SUFFIX, read_state
from extract.compare import Comparison
from extract.crops import normalise
from extract.precision import exact_arithmetic, prepare
from extract.references import compare_references, run_clip
from extract.weights import find_file, load_backbone
from store.errors import WeightsError

SEED = 0
CLIP = 16  # frames of the trial run, for networks that take any number


@dataclass(frozen=True)
class Check:
    """What was found. ``outputs`` are of a trial run on noise: level -> (width, least, mean, greatest); ``layout`` says how names fit."""

    backbone: str
    source: str
    identity: str
    layout: str
    entries: int
    parameters: int
    left_out: tuple[str, ...]
    outputs: dict[str, tuple[int, float, float, float]]
    comparisons: tuple[Comparison, ...] = ()
    top_classes: dict[str, float] = field(default_factory=dict)  # of the user's input, by number

    @property
    def broken(self) -> list[str]:
        """Levels whose output is not finite."""
        return [level for level, (_, *values) in self.outputs.items() if not np.isfinite(values).all()]

    @property
    def good(self) -> bool:
        """Whether everything that was looked at is as it should be."""
        return not self.broken and all(each.holds for each in self.comparisons)


def check_weights(name: str, source: str | None, reference: Path | None, clip_file: Path | None, device: torch.device) -> Check:
    """Load backbone ``name`` with the weights of ``source`` (see ``load_backbone``) and look at them.

    ``reference`` is a folder laid out as docs/testing.md says; ``clip_file`` a ``.npy`` with an input as the network takes it. Raises
    ``WeightsError`` for weights that do not load.
    """
    info = backbone_info(name)
    clip = None if clip_file is None else read_clip(clip_file, info)
    loaded = load_backbone(name, source)
    backbone = prepare(loaded.backbone, device=device)
    comparisons = tuple(compare_references(backbone, reference, clip, device)) if reference else ()
    tops = {} if clip is None else highest(run_clip(backbone, clip, device))
    own = {key: value for key, value in backbone.state_dict().items() if not key.endswith(IGNORED_SUFFIX)}
    return Check(
        name,
        loaded.source,
        loaded.identity,
        layout(name, source),
        len(own),
        sum(value.numel() for value in backbone.parameters()),
        tuple(level for level in info.dims if level not in backbone.info.dims),
        trial(backbone, device),
        comparisons,
        tops,
    )


def layout(name: str, source: str | None) -> str:
    """How the names in a file become the network's own, in words."""
    path = find_file(backbone_info(name), source)
    if path is None:
        return "made here"
    state = {key: value for key, value in read_state(path.read_bytes(), path).items() if not key.endswith(IGNORED_SUFFIX)}
    converted = empty_backbone(name).convert(state)
    kept = [key for key in state if key in converted]
    if len(kept) == len(state):
        return "the network's own names"
    old, new = sorted(set(state) - set(converted)), sorted(set(converted) - set(state))
    return f"another's names: {len(old)} of {len(state)} were changed or left out, such as {old[0]}" + (f" -> {new[0]}" if new else "")


def trial(backbone: Backbone, device: torch.device) -> dict[str, tuple[int, float, float, float]]:
    """Width and least, mean and greatest value of each level on seeded noise."""
    info = backbone.info
    length = min(info.clip_length, max(info.shortest_clip, CLIP)) if info.shortest_clip else info.clip_length
    generator = torch.Generator().manual_seed(SEED)
    noise = torch.randint(0, 256, (length, info.channels, info.size, info.size), generator=generator, dtype=torch.uint8)
    frames = normalise(noise, info).movedim(0, 1)[None] if info.clip_length > 1 else normalise(noise, info)
    with torch.inference_mode(), exact_arithmetic():
        features = backbone(frames.to(device), tuple(info.dims))
    return {level: (values.shape[1], float(values.min()), float(values.mean()), float(values.max())) for level, values in features.items()}


def read_clip(path: Path, info: BackboneInfo) -> torch.Tensor:
    """An input as the network takes it, normalised: ``.npy`` [T, H, W, C] or [1, T, H, W, C] -> float32 [1, C, T, H, W].

    Of a frame-wise network [H, W, C] or [1, H, W, C] -> [1, C, H, W]. Raises ``WeightsError`` with the reason for anything else.
    """
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise WeightsError(f"{path} cannot be read as a .npy file of numbers: {error}") from None
    axes = 4 if info.clip_length > 1 else 3
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiu":
        raise WeightsError(f"{path} holds no numbers in one array; save one clip with numpy.save")
    array = array[0] if array.ndim == axes + 1 and len(array) == 1 else array
    if array.ndim != axes or array.shape[-1] != info.channels:
        wanted = "[T, H, W, C]" if axes == 4 else "[H, W, C]"
        raise WeightsError(f"{path} is {list(array.shape)}; {info.name} takes one input {wanted} with C = {info.channels}")
    return torch.from_numpy(array.astype(np.float32)).movedim(-1, 0)[None].contiguous()


def highest(logits: np.ndarray, count: int = 5) -> dict[str, float]:
    """The classes with the highest scores, by number."""
    return {str(number): float(logits[number]) for number in np.argsort(-logits)[:count]}


def check_plain(check: Check) -> dict[str, Any]:
    """A check in JSON's types, which have no NaN: null instead."""
    plain: dict[str, Any] = json.loads(json.dumps({**asdict(check), "good": check.good}), parse_constant=lambda _: None)
    return plain


def check_text(check: Check) -> Iterator[str]:
    """A check as printed, line by line."""
    yield check.backbone
    yield f"    weights    {check.source}"
    yield f"    identity   {check.identity}"
    yield f"    layout     {check.layout}"
    yield f"    entries    {check.entries}, {check.parameters:,} parameters"
    if check.left_out:
        yield f"    left out   {', '.join(check.left_out)}: the weights have none that fits"
    yield "    on noise   " + "\n               ".join(
        f"{level:12} {width:5} wide, from {least:.4g} to {greatest:.4g}, mean {mean:.4g}"
        for level, (width, least, mean, greatest) in check.outputs.items()
    )
    if check.top_classes:
        yield "    your input " + ", ".join(f"class {number}: {score:.4f}" for number, score in check.top_classes.items())
    for comparison in check.comparisons:
        yield comparison.text()
    if check.broken:
        yield f"NOT FINITE: {', '.join(check.broken)}"
    if not check.comparisons:
        yield f"compared with nothing: no published outputs of {check.backbone} were found; give their folder with --reference"
