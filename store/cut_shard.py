"""What a shard that was cut short (an interrupted copy, a disk that lost its end) still holds: the videos that lie before the cut."""

import dataclasses
import os
import secrets
import shutil
from contextlib import suppress
from pathlib import Path

from store.files import PARTIAL_SUFFIX
from store.shard import Shard

MAX_BYTES = 8 << 30  # a superblock that claims more is damaged, not cut
_HEAD_BYTES = 36
_END_OF_FILE = slice(28, 36)  # of HDF5's superblocks 2 and 3 with 8-byte offsets: the size that the file had when it was written


def open_cut(path: Path, spec_digest: str) -> Shard | None:
    """A shard over the bytes that are left, of which ``Shard.read_each`` tells the good videos; None if it is not merely cut.

    HDF5 opens no file that is shorter than it was, so a copy beside it, filled up with zeros (which take no room), tells where
    everything lies; that is removed again. Raises what ``Shard.open_unchecked`` raises, and ``OSError`` when there is no room for the copy.
    """
    size, whole = path.stat().st_size, claimed_bytes(path)
    if whole is None or not size < whole <= MAX_BYTES:
        return None
    aside = path.with_name(f".{path.name}.{secrets.token_hex(4)}{PARTIAL_SUFFIX}")
    try:
        shutil.copyfile(path, aside)
        os.truncate(aside, whole)
        shard = Shard.open_unchecked(aside, spec_digest)
    finally:
        with suppress(OSError):
            aside.unlink(missing_ok=True)
    return dataclasses.replace(shard, path=path, structure=dataclasses.replace(shard.structure, size=size))


def claimed_bytes(path: Path) -> int | None:
    """The size that an HDF5 file says it has, None if it does not say so in a way that format.md asks for."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(b"\x89HDF\r\n\x1a\n") or head[8] not in (2, 3) or head[9] != 8:
        return None
    return int.from_bytes(head[_END_OF_FILE], "little")
