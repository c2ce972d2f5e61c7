"""Features of other videos by the spec of a store: every setting as it was, the weights found by their SHA-256."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from extract.backbones import BackboneInfo, backbone_info, is_private
from extract.device import resolve_device
from extract.downloads import cached_path, promised_digits, recorded_digits
from extract.flow_files import check_root
from extract.prepare import prepare_spec
from extract.run import extract_features
from extract.spec import FLOW_FILES, FeatureSpec, RunOptions
from extract.weights import PUBLISHED, RANDOM
from store.digest import digest, from_dict, to_plain
from store.errors import SpecError, SpecMismatchError, WeightsError
from store.features import FeatureStore
from store.files import sha256_file
from store.spec_file import difference
from store.videos import VideoList


def extract_again(
    videos: VideoList,
    spec: Mapping[str, Any],
    files: Sequence[Path],
    folder: Path,
    name: str,
    device: str = "auto",
    flow_weights: str = "",
    flow_root: str = "",
    allowed: Sequence[str] = (),
    stopped: Callable[[], bool] = lambda: False,
) -> tuple[Path, dict[str, tuple[str, str]]]:
    """Extract ``videos`` into a store below ``folder`` by ``spec``, that of another store; its path, and id -> (stage, reason) of failures.

    ``files``: weights to look among; published ones are found (and downloaded) without. ``allowed``: networks of the user's own, by name,
    whose code may be run; ``spec`` may be somebody else's, so none is run without. Raises ``SpecError`` for features that were not
    extracted here and for other code, ``WeightsError`` where no weights are the ones, ``SpecMismatchError`` where this version would make
    other features.
    """
    try:
        wanted = from_dict(FeatureSpec, spec)
    except SpecError as error:
        raise SpecError(
            f"features {name} were not made by `actioncache extract` of this version, so those of other videos cannot be made like them "
            f"({error}); make them as those were made, and give the store with --features"
        ) from None
    if is_private(wanted.backbone) and wanted.backbone not in allowed:
        raise SpecError(
            f"features {name} were made by the network {wanted.backbone!r}, so making others like them runs the code that has this name "
            f"here; if that is what you want, add --allow-backbone {wanted.backbone}"
        )
    if wanted.flow.method == FLOW_FILES and flow_root:
        check_root(Path(flow_root), wanted.flow)
    source = find_weights(backbone_info(wanted.backbone), wanted.weights, files)
    resolved, backbone = prepare_spec(None, spec, source, resolve_device(device), flow_weights)
    if digest(to_plain(resolved)) != digest(spec):
        raise SpecMismatchError(f"this version of actioncache would not make features like {name}: {difference(to_plain(resolved), spec)}")
    store = FeatureStore.create(folder, name, spec)
    options = RunOptions(device=device, flow_weights=flow_weights, flow_root=flow_root)
    return store.path, extract_features(videos, resolved, store, backbone, options, stopped=stopped).failed


def find_weights(info: BackboneInfo, identity: str, files: Sequence[Path]) -> str:
    """What to load to get the weights ``identity`` (sha256:... or random:seed:...): one of ``files``, published ones, or a seed."""
    kind, _, detail = identity.partition("+")[0].partition(":")
    if kind == RANDOM:
        return f"{RANDOM}:{detail.partition(':')[0]}"
    found = {sha256_file(file): file for file in files}
    if detail in found:
        return str(found[detail])
    for name, published in info.published.items():
        path = cached_path(published.url)
        digits = (published.sha256 or promised_digits(path.name) or recorded_digits(path)).lower()
        if digits and detail.startswith(digits):
            return f"{PUBLISHED}:{name}"
    given = "".join(f"\n  {file} has the SHA-256 {digits}" for digits, file in found.items())
    raise WeightsError(f"the features were made by weights of {info.name} with the SHA-256 {detail}; give their file with --weights{given}")
