"""Any accepted layout of weights -> one safetensors file with the network's own names, complete with what is published beside it."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors.torch

from extract.backbones import Backbone, BackboneInfo, backbone_info, empty_backbone
from extract.backbones.cross_modality import from_rgb
from extract.checkpoint import IGNORED_SUFFIX, State, fit_state, read_state
from extract.extras import read_extra
from extract.weights import load_backbone
from store.errors import SpecError, WeightsError
from store.files import write_bytes

SUFFIX = ".safetensors"
NOTE = "actioncache"  # the one key of the file's metadata: several would be written in any order, and the file's SHA-256 with them


@dataclass(frozen=True)
class Converted:
    """A file that was written."""

    path: Path
    identity: str  # of the new file
    source_sha256: str
    entries: int
    left_out: tuple[str, ...]  # levels that the weights have nothing for


def convert_weights(
    name: str, file: Path, output: Path, extras: Mapping[str, Path], cross_modality: bool = False, overwrite: bool = False
) -> Converted:
    """Write the weights in ``file`` for backbone ``name`` to ``output``, float32, with a note of where they are from.

    ``extras`` are files of arrays that belong to the weights (``Backbone.extras``); ``cross_modality`` starts a flow network from RGB
    weights. The same input gives the same bytes. Raises ``WeightsError`` for weights that do not fit and ``SpecError`` for an output that
    is there already.
    """
    info = backbone_info(name)
    _check_output(file, output, overwrite)
    data = _bytes(file)
    backbone, state = empty_backbone(name), read_state(data, file)
    if cross_modality:
        state = from_rgb(backbone, state)
    if extras:
        state = _with_extras(backbone, state, extras)
    fit_state(backbone, state, (), file)
    own = {key: value.contiguous().clone() for key, value in backbone.state_dict().items() if not key.endswith(IGNORED_SUFFIX)}
    digest = hashlib.sha256(data).hexdigest()
    note = _note(name, file, digest, {key: hashlib.sha256(_bytes(path)).hexdigest() for key, path in extras.items()}, cross_modality)
    write_bytes(output, safetensors.torch.save(own, {NOTE: note}))
    loaded = load_backbone(name, str(output))  # and so it is proved to be of use
    return Converted(output, loaded.identity, digest, len(own), _left_out(info, loaded.backbone.info))


def _with_extras(backbone: Backbone, state: State, extras: Mapping[str, Path]) -> State:
    arrays = {key: read_extra(path) for key, path in extras.items()}
    try:
        return backbone.add_extras(backbone.convert(state), arrays)
    except WeightsError as error:
        raise WeightsError(f"{', '.join(f'{key} from {path}' for key, path in extras.items())}: {error}") from None


def _check_output(file: Path, output: Path, overwrite: bool) -> None:
    if output.suffix != SUFFIX:
        raise SpecError(f"{output} does not end in {SUFFIX}; converted weights are written in that format")
    if output.exists() and (not overwrite or output.samefile(file)):
        raise SpecError(f"{output} is there already; give another name, or --overwrite to replace it (never the file that is converted)")


def _note(name: str, file: Path, digest: str, extras: Mapping[str, str], cross_modality: bool) -> str:
    """What the file is, as JSON; without time or place, so that the same conversion gives the same bytes."""
    note = {"backbone": name, "source": file.name, "source_sha256": digest, "extras_sha256": dict(extras), "cross_modality": cross_modality}
    return json.dumps(note, sort_keys=True)


def _left_out(asked: BackboneInfo, found: BackboneInfo) -> tuple[str, ...]:
    return tuple(level for level in asked.dims if level not in found.dims)


def _bytes(path: Path) -> bytes:
    if not path.is_file():
        raise WeightsError(f"there is no file {path}")
    return path.read_bytes()
