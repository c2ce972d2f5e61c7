"""Replace shards by new ones without ever having a video in none: what repair and compaction share."""

import re
import secrets
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from store.files import PARTIAL_SUFFIX
from store.shard import Shard
from store.shard_writer import Entry, refused, write_shard

PARTIAL_AGE_SECONDS = 3600.0  # a partial file untouched for so long belongs to a writer that is dead
_OUR_NAME = re.compile(r"(.+-\d{6,})-[0-9a-f]{8}\.h5")


def successor(path: Path) -> Path:
    """A new name for a shard that takes over from ``path``, sorted where that was."""
    match = _OUR_NAME.fullmatch(path.name)
    prefix = match[1] if match else f"{path.stem[:100]}-000000"
    return path.with_name(f"{prefix}-{secrets.token_hex(4)}.h5")


def write_successor(path: Path, spec_digest: str, entries: Sequence[Entry]) -> Shard:
    """Publish ``entries`` under a new name in the place of ``path``; ``StoreError`` when the disk refuses, with nothing changed."""
    try:
        return write_shard(successor(path), spec_digest, entries)
    except OSError as error:
        raise refused(path.parent, error, f"{path.name} is as it was") from error


def chunks(entries: Iterable[Entry], max_bytes: int) -> Iterator[list[Entry]]:
    """Cut entries into lists of about ``max_bytes``."""
    chunk: list[Entry] = []
    size = 0
    for entry in entries:
        chunk.append(entry)
        size += entry.bytes
        if size >= max_bytes:
            yield chunk
            chunk, size = [], 0
    if chunk:
        yield chunk


def remove_partials(store: Path, older_than_seconds: float = PARTIAL_AGE_SECONDS) -> int:
    """Delete what dead writers left half-written; returns how many files. A live writer touches its file all the time."""
    removed = 0
    for folder in (store, store / "shards", store / "failures"):
        for file in folder.glob(f".*{PARTIAL_SUFFIX}"):
            with suppress(OSError):  # gone already, or not ours to delete: no harm either way
                if time.time() - file.stat().st_mtime >= older_than_seconds:
                    file.unlink()
                    removed += 1
    return removed
