"""What is published for each network, where from, and what of it is here."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from extract.backbones import BackboneInfo, Published, backbone_info, describe_backbones
from extract.downloads import cached_path, promised_digits, record_path

UNKNOWN = "not stated"


@dataclass(frozen=True)
class Listed:
    """One published file of one network."""

    backbone: str
    name: str
    url: str
    bytes: int  # 0: not stated; rounded where the publisher rounds it
    licence: str
    about: str
    sha256: str  # what its publisher states, all 64 digits or the first ones; empty: nothing, and the first use records it
    path: Path  # where it is, or will be
    here: bool
    recorded: str  # SHA-256 recorded at its first use here; empty: not used yet

    @property
    def digest_text(self) -> str:
        """What is known of the file's SHA-256, in words."""
        if self.sha256:
            return f"{self.sha256} (stated by its publisher{'' if len(self.sha256) == 64 else ', the first digits'})"
        return f"{self.recorded} (recorded at first use)" if self.recorded else "not stated; recorded at first use"


def list_weights(name: str | None = None) -> list[Listed]:
    """The published files of one backbone, or of all."""
    infos: Iterable[BackboneInfo] = [backbone_info(name)] if name else describe_backbones()
    return [_listed(info.name, each, published) for info in infos for each, published in info.published.items()]


def _listed(backbone: str, name: str, published: Published) -> Listed:
    path = cached_path(published.url)
    record = record_path(path)
    recorded = record.read_text(encoding="utf-8").split()[:1] if record.is_file() else []
    return Listed(
        backbone,
        name,
        published.url,
        published.bytes,
        published.licence,
        published.about,
        published.sha256 or promised_digits(path.name),
        path,
        path.is_file(),
        "".join(recorded),
    )


def list_text(files: list[Listed]) -> Iterator[str]:
    """The list as printed, line by line."""
    before = ""
    for file in files:
        if file.backbone != before:
            before = file.backbone
            yield before
        size = f"{file.bytes / 1e6:.1f} MB" if file.bytes else f"size {UNKNOWN}"
        yield f"    {file.name}  {size}  licence: {file.licence or UNKNOWN}"
        yield f"        {file.about or UNKNOWN}"
        yield f"        from     {file.url}"
        yield f"        SHA-256  {file.digest_text}"
        yield f"        here     {file.path if file.here else f'no; it goes to {file.path}'}"
