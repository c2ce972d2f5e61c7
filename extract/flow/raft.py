"""RAFT (Teed and Deng 2020), torchvision's implementation: a network, so it needs weights. torch is imported when one is built."""

import functools
import hashlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from importlib.metadata import version as installed_version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from extract.flow import FLOWS
from store.errors import FeatureError, SpecError, WeightsError
from store.failures import file_state

if TYPE_CHECKING:
    import torch

    from extract.backbones import Published

NAMES = ("raft_small", "raft_large")
SMALLEST_SIDE, STRIDE = 128, 8  # pixels; the network correlates features at an eighth, a sixteenth, ... of the size
BATCH_PIXELS = 1 << 20  # of images on a device; RAFT takes some 4 kB of memory for each
SHOWN = 3  # keys listed of each kind of problem


class Raft:
    """RAFT with its weights. Images are extended by their border on all sides, as by its authors, to multiples of 8 pixels and to 128."""

    colour = True

    def __init__(self, network: "torch.nn.Module", updates: int, version: str) -> None:
        self._network, self._updates, self.version = network, updates, version
        self._at_once: dict[tuple[int, int, torch.device], int] = {}

    def __call__(self, first: np.ndarray, second: np.ndarray) -> np.ndarray:
        """Motion from ``first`` to ``second``, see ``FlowMethod``: RGB uint8 [H, W, 3]. On one thread, for decode workers."""
        import torch

        pair = [torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None] for image in (first, second)]
        return np.ascontiguousarray(self.batch(*pair)[0].permute(1, 2, 0).numpy())

    def batch(self, first: "torch.Tensor", second: "torch.Tensor") -> "torch.Tensor":
        """Motion from each image of ``first`` to that of ``second``: float32 [B, 2, H, W] on their device, (x, y) in pixels.

        Both are RGB uint8 [B, 3, H, W]. The network moves to their device. A pair's flow does not depend on what is beside it: on a
        processor pairs are computed one by one on one thread, elsewhere in batches of ``pairs_at_once``, the last one filled up, where the
        place in a batch makes no difference, and else one by one.
        """
        import torch

        if first.shape != second.shape or first.ndim != 4 or first.shape[1] != 3 or {first.dtype, second.dtype} != {torch.uint8}:
            given = " and ".join(f"{image.dtype} {list(image.shape)}" for image in (first, second))
            raise FeatureError(f"RAFT takes two batches of RGB images, uint8 [B, 3, H, W] of one size, not {given}")
        height, width = first.shape[2:]
        size = self.pairs_at_once(height, width, first.device)
        with one_thread() if first.device.type == "cpu" else nullcontext():
            parts = [self._batch(first[begin : begin + size], second[begin : begin + size], size) for begin in range(0, len(first), size)]
        return torch.cat(parts)

    def pairs_at_once(self, height: int, width: int, device: "torch.device") -> int:
        """See ``extract.flow_device.DeviceMethod``."""
        key = (height, width, device)
        if key not in self._at_once:
            most = 1 if device.type == "cpu" else max(1, BATCH_PIXELS // (height * width))
            self._at_once[key] = most if most == 1 or self._rows_agree(most, height, width, device) else 1
        return self._at_once[key]

    def _rows_agree(self, count: int, height: int, width: int, device: "torch.device") -> bool:
        """Whether a pair's flow is the same to the last bit wherever in a batch it stands."""
        import torch

        noise = torch.randint(0, 256, (2, 3, height, width), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)).to(device)
        first, second = (image.expand(count, -1, -1, -1) for image in noise)
        flow = self._batch(first, second, count)
        return bool((flow == flow[:1]).all())

    def _batch(self, first: "torch.Tensor", second: "torch.Tensor", size: int) -> "torch.Tensor":
        """Flow of at most ``size`` pairs, which are filled up with black ones."""
        import torch

        from extract.precision import exact_arithmetic

        count, (height, width) = len(first), first.shape[2:]
        if count < size:
            black = first.new_zeros(size - count, 3, height, width)
            first, second = (torch.cat([images, black]) for images in (first, second))
        first, second = (images.contiguous() for images in (first, second))  # one layout, one result
        pads = padding(height, width)
        with torch.inference_mode(), exact_arithmetic():
            images = [torch.nn.functional.pad((image.float() / 255 - 0.5) / 0.5, pads, mode="replicate") for image in (first, second)]
            flow = self._network.to(first.device)(*images, num_flow_updates=self._updates)[-1]
        left, _, top, _ = pads
        return flow[:count, :, top : top + height, left : left + width].float()


@contextmanager
def one_thread() -> Iterator[None]:
    """In workers, which are the parallelism, and because the last bits would depend on the number."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def padding(height: int, width: int) -> tuple[int, int, int, int]:
    """Pixels to add at the left, right, top and bottom."""
    wide, high = (max(SMALLEST_SIDE, -(-side // STRIDE) * STRIDE) - side for side in (width, height))
    return wide // 2, wide - wide // 2, high // 2, high - high // 2


class RaftFamily:
    """Builds ``Raft``. The only parameter, ``updates``, is the number of refinements."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.defaults: Mapping[str, float] = {"updates": 12.0}

    @property
    def version(self) -> str:
        """torchvision's version (major and minor) and the network's name; a built method adds the identity of its weights."""
        return f"torchvision-{'.'.join(installed_version('torchvision').split('.')[:2])} {self.name}"

    def __call__(self, params: Mapping[str, float]) -> Raft:
        """Without weights there is no method: ``WeightsError`` with the choices."""
        return self.with_weights(params, "")

    def with_weights(self, params: Mapping[str, float], weights: str) -> Raft:
        """Build the method. Wrong parameters raise ``SpecError``, weights that are missing or do not fit ``WeightsError``."""
        updates = params["updates"]
        if updates < 1 or int(updates) != updates:
            raise SpecError(f"flow.params updates is {updates:g}; it must be a whole number, at least 1")
        network, identity = _load(self, weights, file_state(Path(weights).expanduser()))
        return Raft(network, int(updates), f"{self.version} {identity}")

    def weights_choices(self) -> str:
        """What can be given as weights, in words."""
        default, *others = self.published()
        more = "".join(f", published:{name}" for name in others)
        return f"--flow-weights FILE, published (= published:{default}){more} (downloaded), or random:SEED (has learned nothing)"

    def published(self) -> "dict[str, Published]":
        """torchvision's weights by name, its default first."""
        from torchvision.models import get_model_weights

        from extract.published import from_torchvision

        default = get_model_weights(self.name).DEFAULT.name
        found = from_torchvision(self.name)
        return {default: found[default], **found}

    def source(self, weights: str) -> tuple[bytes, Path]:
        """The bytes of a weights file, downloaded if it is a published one that is not here, and its path."""
        from extract.downloads import checked_bytes, fetch

        kind, _, name = weights.partition(":")
        if kind == "published":
            published = self.published()
            if (name or next(iter(published))) not in published:
                raise WeightsError(f"flow method {self.name} has no published weights {name!r}; give {self.weights_choices()}")
            file = published[name or next(iter(published))]
            path = fetch(file.url, file.sha256)
            return checked_bytes(path, file.sha256), path
        path = Path(weights).expanduser()
        if not weights or not path.is_file():
            problem = f"there is no file {weights}" if weights else f"flow method {self.name} is a network and no weights were given"
            raise WeightsError(f"{problem}; give {self.weights_choices()}")
        try:
            return path.read_bytes(), path
        except OSError as error:
            raise WeightsError(f"{path} cannot be read: {error.strerror}; check its permissions") from None


@functools.lru_cache(maxsize=2)
def _load(family: RaftFamily, weights: str, state: object) -> "tuple[torch.nn.Module, str]":
    """The network and the identity of its weights. Kept from video to video; ``state`` tells when a file has changed."""
    import torch
    from torchvision.models import get_model

    from extract.checkpoint import read_state
    from extract.weights import state_digest

    kind, _, seed = weights.partition(":")
    if kind == "random":
        if not (seed.isascii() and seed.isdigit() and int(seed) < 2**63):
            raise WeightsError(f"flow weights {weights} need a seed from 0 to 2^63 - 1; give {family.weights_choices()}")
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            torch.default_generator.manual_seed(int(seed))
            network = get_model(family.name, weights=None)
        return network.eval(), f"random:{seed}:{state_digest(network)[:12]}"
    data, path = family.source(weights)
    network = get_model(family.name, weights=None)
    _fit(network, read_state(data, path), f"{path} does not fit {family.name}")
    return network.eval(), f"sha256:{hashlib.sha256(data).hexdigest()}"


def _fit(network: Any, state: "Mapping[str, torch.Tensor]", problem: str) -> None:
    own = network.state_dict()
    kinds = {
        "missing": [key for key in own if key not in state and not key.endswith("num_batches_tracked")],
        "unknown": [key for key in state if key not in own],
        "of another shape": [key for key in own if key in state and own[key].shape != state[key].shape],
    }
    found = [f"{len(keys)} {kind} ({', '.join(keys[:SHOWN])}{', ...' * (len(keys) > SHOWN)})" for kind, keys in kinds.items() if keys]
    if found:
        raise WeightsError(f"{problem}: of its entries {'; '.join(found)}. It must be a state dict of torchvision's network of that name")
    bad = [key for key in own if key in state and not state[key].isfinite().all()]
    if bad:
        raise WeightsError(f"{problem}: {bad[0]} has NaN or Inf; the file is damaged")
    network.load_state_dict(state, strict=False)


for _name in NAMES:
    FLOWS.register(_name)(RaftFamily(_name))
