"""Merge small shards into larger ones: new file first, then the old ones go. Any number of readers, writers and compactions at once."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass

from store.errors import StoreError
from store.features import FeatureStore
from store.files import fsync_folder
from store.rewrite import Part, SourceGoneError, remove_partials, write_successor
from store.shard import Shard
from store.shard_writer import refused
from store.verify import conflicts


@dataclass(frozen=True)
class Compaction:
    """What a compaction did: numbers of shards merged, of shards written for them, of left-over partial files removed."""

    merged: int
    written: int
    partials: int


def compact(store: FeatureStore, target_bytes: int) -> Compaction:
    """Merge shards smaller than half of ``target_bytes`` into ones of about ``target_bytes``.

    A file is removed only after all its videos are in a new file written by this very call, so compactions at the same time may do
    work twice and lose nothing. Shards with damage, or with other features of a video than another shard has, are left alone for
    ``repair``.
    """
    fresh = FeatureStore(store.path, store.spec)
    merged = written = 0
    for group in groups(fresh, target_bytes):
        done = _merge(fresh, group)
        merged, written = merged + done, written + (done > 0)
    partials = remove_partials(store.path)
    store.refresh()
    return Compaction(merged, written, partials)


def groups(store: FeatureStore, target_bytes: int) -> Iterator[list[Shard]]:
    """Which shards to merge with one another: neighbours by name, at least two."""
    disputed = {shard.name for _, *both in conflicts(store.shards) for shard in both}
    group: list[Shard] = []
    size = 0
    for shard in store.shards:
        if shard.structure.size * 2 > target_bytes or shard.name in disputed:
            continue
        group.append(shard)
        size += shard.structure.size
        if size >= target_bytes:
            yield group
            group, size = [], 0
    if len(group) > 1:
        yield group


def _merge(store: FeatureStore, group: list[Shard]) -> int:
    """Write one shard with every video of the group, then remove the group; returns how many shards went."""
    whole = [shard for shard in group if _is_whole(shard)]
    if len(whole) < 2:
        return 0
    try:
        write_successor(whole[0].path, store.digest, _each_once(whole))
    except SourceGoneError:
        return 0
    for shard in whole:
        try:
            with suppress(FileNotFoundError):  # another compaction has written the same videos elsewhere
                shard.path.unlink()
        except OSError as error:
            raise refused(shard.path.parent, error, "the merged shard is there, the old ones stay; that does no harm") from error
    fsync_folder(store.path / "shards")
    return len(whole)


def _is_whole(shard: Shard) -> bool:
    """Whether every video of a shard can be read right now and agrees with its digests."""
    try:
        return not any(isinstance(found, StoreError) for _, found in shard.read_each())
    except (FileNotFoundError, StoreError):
        return False


def _each_once(shards: list[Shard]) -> list[Part]:
    """Every video of the shards, from the first that has it; the copies in the others are equal, see ``groups``."""
    seen: set[str] = set()
    parts = []
    for shard in shards:
        parts.append(Part(shard, [position for position, video_id in enumerate(shard.ids) if video_id not in seen]))
        seen.update(shard.ids)
    return [part for part in parts if part.positions]
