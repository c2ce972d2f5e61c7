"""Replace shards by new ones without ever having a video in none: what repair and compaction share. Rows go from file to file in pieces."""

import re
import secrets
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from store.arrays import Arrays, read_file
from store.errors import DamagedShardError, StoreError
from store.files import PARTIAL_AGE_SECONDS, PARTIAL_SUFFIX
from store.shard import Shard
from store.shard_image import LEVELS
from store.shard_writer import Contents, refused, write_contents

PIECE_BYTES = 4 << 20
_OUR_NAME = re.compile(r"(.+-\d{6,})-[0-9a-f]{8}\.h5")


class SourceGoneError(Exception):
    """A shard that was to be rewritten is not there any more: another compaction or repair was faster."""


@dataclass(frozen=True)
class Part:
    """Some videos of a shard, by their positions in it."""

    shard: Shard
    positions: Sequence[int]


def successor(path: Path) -> Path:
    """A new name for a shard that takes over from ``path``, sorted where that was."""
    match = _OUR_NAME.fullmatch(path.name)
    prefix = match[1] if match else f"{path.stem[:100]}-000000"
    return path.with_name(f"{prefix}-{secrets.token_hex(4)}.h5")


def write_successor(path: Path, spec_digest: str, parts: Sequence[Part]) -> Shard:
    """Publish the videos of ``parts`` (at least one, each once, good) under a new name in the place of ``path``.

    Memory holds their index and a few megabytes of their rows. Each video of the new file is compared with its digests before the file gets
    its name. Raises ``StoreError`` when the disk refuses and ``SourceGoneError``; nothing has changed then.
    """
    try:
        return write_contents(successor(path), spec_digest, contents(parts), deep=True)
    except DamagedShardError as error:
        raise StoreError(f"{path} could not be rewritten, its copy differs from what was written ({error}); nothing has changed") from error
    except OSError as error:
        raise refused(path.parent, error, f"{path.name} is as it was") from error


def contents(parts: Sequence[Part]) -> Contents:
    """The videos of ``parts`` as the contents of a new shard, with the digests that they have."""
    levels = {level.name: level for level in parts[0].shard.levels}
    ids: list[bytes] = []
    num_rows: list[np.ndarray] = []
    digests: dict[str, list[np.ndarray]] = {name: [] for name in levels}
    for part in parts:
        ids += [part.shard.ids[position].encode() for position in part.positions]
        with _source(part.shard) as arrays:
            num_rows.append(arrays.num_rows[part.positions])
            for name in levels:
                digests[name].append(arrays.digests[name][part.positions])
    joined = {name: np.concatenate(found) for name, found in digests.items()}
    return Contents(ids, levels, np.concatenate(num_rows), joined, lambda path: _rows(parts, path))


def _rows(parts: Sequence[Part], path: str) -> Iterator[np.ndarray]:
    for part in parts:
        with _source(part.shard) as arrays:
            held = {"frames": arrays.frames, "times": arrays.times, **{LEVELS + name: array for name, array in arrays.values.items()}}[path]
            piece = max(1, PIECE_BYTES // held.row_bytes)
            first, count = arrays.first[part.positions], arrays.num_rows[part.positions]
            for start, end in _runs(first, count):
                for low in range(start, end, piece):
                    yield held[low : min(end, low + piece)]


def _runs(first: np.ndarray, count: np.ndarray) -> Iterator[tuple[int, int]]:
    """Ranges of rows of videos that follow one another, as few as possible."""
    cuts = np.flatnonzero(first[1:] != (first + count)[:-1]) + 1
    lows, highs = [0, *cuts], [*cuts - 1, len(first) - 1]
    return zip(first[lows].tolist(), (first + count)[highs].tolist(), strict=True)


@contextmanager
def _source(shard: Shard) -> Iterator[Arrays]:
    try:
        with read_file(shard.path, shard.structure) as arrays:
            yield arrays
    except FileNotFoundError:
        raise SourceGoneError(str(shard.path)) from None


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
