"""Weights of the networks: a file, a published one, or seeded random only when asked for by name; each with its identity."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

import torch

from extract.backbones import Backbone, BackboneInfo, Published, backbone_builder, backbone_info, empty_backbone, resolve_levels
from extract.backbones.private import check_promises
from extract.checkpoint import fit_state, read_state
from extract.downloads import checked_bytes, fetch
from store.errors import WeightsError

PUBLISHED, RANDOM = "published", "random"


@dataclass(frozen=True)
class LoadedBackbone:
    """A network with its weights (float32, CPU, as loaded; see ``extract.precision.prepare``)."""

    backbone: Backbone
    identity: str  # sha256:<64 hex> of the file's bytes, or random:<seed>:<12 hex of the SHA-256 of the weights>; see _identity
    source: str  # where they came from, in words, for reports


def load_backbone(name: str, source: str | None, levels: tuple[str, ...] = ()) -> LoadedBackbone:
    """Build backbone ``name`` with the weights of ``source``.

    ``source`` is a path (safetensors, or a state dict saved by ``torch.save``), ``published`` or ``published:NAME`` (downloaded once, see
    ``extract.downloads``), or ``random:SEED``. An empty or unknown one raises ``WeightsError`` with the choices: weights are never random
    by accident. ``levels`` are the levels wanted; a file may lack what only other levels need.
    """
    loaded = _load(name, source, resolve_levels(backbone_info(name), levels))
    if loaded.backbone.info.code:
        check_promises(loaded.backbone, resolve_levels(loaded.backbone.info, levels))
    return loaded


def _load(name: str, source: str | None, wanted: tuple[str, ...]) -> LoadedBackbone:
    info = backbone_info(name)
    kind, _, detail = (source or "").partition(":")
    if kind == RANDOM:
        return _random(name, detail, info)
    path = find_file(info, source)
    assert path is not None
    try:
        data = checked_bytes(path, find_published(info, detail).sha256) if kind == PUBLISHED else path.read_bytes()
        return _from_file(name, path, data, wanted)
    except OSError as error:
        raise WeightsError(f"{path} cannot be read: {error.strerror}; check its permissions") from None


def find_file(info: BackboneInfo, source: str | None) -> Path | None:
    """The file that ``source`` means, downloaded if it is a published one that is not here; none for random weights.

    Raises ``WeightsError`` with the choices where there is none.
    """
    source = source or ""
    kind, _, detail = source.partition(":")
    if kind == RANDOM:
        return None
    if kind == PUBLISHED:
        published = find_published(info, detail)
        return fetch(published.url, published.sha256)
    path = Path(source).expanduser()
    if not source or not path.is_file():
        problem = f"there is no file {source}" if source else "no weights were given"
        raise WeightsError(f"{problem} for backbone {info.name}; choose {weights_choices(info)}")
    return path


def weights_choices(info: BackboneInfo) -> str:
    """What can be given as the weights of a backbone, in words."""
    choices = ["a .safetensors or .pth file"]
    if info.published:
        default, *others = info.published
        more = "".join(f", {PUBLISHED}:{name}" for name in others)
        choices.append(f"{PUBLISHED} (= {PUBLISHED}:{default}){more} (downloaded)")
    choices.append(f"{RANDOM}:SEED such as {RANDOM}:0 (weights that have learned nothing)")
    return ", or ".join(choices)


def find_published(info: BackboneInfo, name: str = "") -> Published:
    """The published weights called ``name``, or the usual ones; ``WeightsError`` with the choices if there are none such."""
    if not info.published:
        raise WeightsError(f"nobody published weights for backbone {info.name}; choose {weights_choices(info)}")
    name = name or next(iter(info.published))
    if name not in info.published:
        raise WeightsError(f"backbone {info.name} has no published weights {name!r}; choose {weights_choices(info)}")
    return info.published[name]


def _from_file(name: str, path: Path, data: bytes, levels: tuple[str, ...]) -> LoadedBackbone:
    """The identity is of the very bytes that are loaded, whatever happens to the file meanwhile."""
    backbone = empty_backbone(name)
    fit_state(backbone, read_state(data, path), levels, path)
    return LoadedBackbone(backbone.eval(), _identity(f"sha256:{hashlib.sha256(data).hexdigest()}", backbone.info), str(path))


def _random(name: str, seed_text: str, info: BackboneInfo) -> LoadedBackbone:
    if not (seed_text.isascii() and seed_text.isdigit() and int(seed_text) < 2**63):
        raise WeightsError(f"weights {RANDOM}:{seed_text} need a seed from 0 to 2^63 - 1; choose {weights_choices(info)}")
    seed = int(seed_text)
    with torch.random.fork_rng(devices=[]), torch.device("cpu"):
        torch.default_generator.manual_seed(seed)
        backbone = backbone_builder(name)()
    backbone.initialise(seed)
    identity = _identity(f"{RANDOM}:{seed}:{state_digest(backbone)[:12]}", backbone.info)
    return LoadedBackbone(backbone.eval(), identity, f"random weights of seed {seed}, which have learned nothing")


def _identity(weights: str, info: BackboneInfo) -> str:
    """Identity of weights together with code that is not ours: the same file in another network of the same name is another thing."""
    return f"{weights}+{info.code}" if info.code else weights


def state_digest(backbone: Backbone) -> str:
    """SHA-256 over the names, types, shapes and bytes of all weights; tells apart what different versions of torch make of one seed."""
    total = hashlib.sha256()
    for key, value in sorted(backbone.state_dict().items()):
        total.update(f"{key} {value.dtype} {list(value.shape)}\n".encode())
        total.update(value.detach().cpu().contiguous().numpy().tobytes())
    return total.hexdigest()
