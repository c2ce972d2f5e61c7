"""Where the videos of a bulk read are, worked out from the index alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from store.arrays import Arrays, mapped
from store.errors import DamagedShardError, MissingFeaturesError
from store.layout import Level, digest_prefix, encode_id
from store.shard import ADVICE

if TYPE_CHECKING:
    from store.features import FeatureStore
    from store.shard_structure import Structure

SHOWN = 5  # ids that an error names before it counts the rest


@dataclass(frozen=True, eq=False)
class Plan:
    """The places of a list of videos at one moment; made anew, as a whole, when shards have been merged, so threads see one or the other.

    ``shards``: those that hold them. Of each video, int64 [V]: ``shard`` (number in ``shards``), ``position`` in it, ``first`` row and
    ``counts`` of rows. Its digest begins with ``prefixes[ends[v] : ends[v + 1]]``, which its id is part of; no Python object a video.
    """

    path: Path
    level: Level
    encoded_level: bytes
    shards: "list[tuple[Path, Structure]]"
    shard: np.ndarray
    position: np.ndarray
    first: np.ndarray
    counts: np.ndarray
    prefixes: bytes
    ends: np.ndarray

    @classmethod
    def make(cls, store: "FeatureStore", level: Level, ids: Sequence[str]) -> "Plan":
        """Find the videos; ``MissingFeaturesError`` for those that are not there, ``FileNotFoundError`` when a shard has just gone."""
        if isinstance(ids, str):  # its letters would be taken for ids
            raise MissingFeaturesError(f"ids is the text {ids!r}; give a list of ids")
        found, shard, position = store.places(ids)
        shards = [(one.path, one.structure) for one in found]
        firsts, counts = np.empty_like(position), np.empty_like(position)
        by_shard = np.argsort(shard, kind="stable")
        edges = np.searchsorted(shard[by_shard], np.arange(len(shards) + 1))
        for number, (path, structure) in enumerate(shards):
            chosen = by_shard[edges[number] : edges[number + 1]]
            arrays = mapped(path, structure)
            first, rows = arrays.first[position[chosen]], arrays.num_rows[position[chosen]]
            if ((rows < 1) | (rows > structure.total_rows) | (first < 0) | (first > structure.total_rows - rows)).any():
                raise DamagedShardError(f"{path}: the index has changed since the shard was opened; {ADVICE}")
            firsts[chosen], counts[chosen] = first, rows
        encoded = level.encoded()
        prefixes = [digest_prefix(encode_id(name), encoded, rows) for name, rows in zip(ids, counts.tolist(), strict=True)]
        ends = np.cumsum([0, *map(len, prefixes)], dtype=np.int64)
        return cls(store.path, level, encoded, shards, shard, position, firsts, counts, b"".join(prefixes), ends)

    def __len__(self) -> int:
        return len(self.counts)

    def arrays(self, shard: int) -> Arrays:
        """The map of one of ``shards``; ``FileNotFoundError`` when it has been merged away."""
        return mapped(*self.shards[shard])

    def encoded_id(self, video: int) -> bytes:
        """UTF-8 of the id at a position of the list."""
        prefix = self.prefixes[self.ends[video] : self.ends[video + 1]]
        return prefix[4 : 4 + int.from_bytes(prefix[:4], "little")]

    def id(self, video: int) -> str:
        """Id of the video at a position of the list."""
        return self.encoded_id(video).decode()

    def damage(self, videos: Sequence[int]) -> DamagedShardError:
        """The error that names these videos and their shards."""
        names = [f"video {self.id(video)!r} of {self.shards[self.shard[video]][0]}" for video in videos[:SHOWN]]
        more = f" and {len(videos) - SHOWN} more" if len(videos) > SHOWN else ""
        return DamagedShardError(
            f"{self.path}, level {self.level.name}: the bytes of {', '.join(names)}{more} are not the ones that were written; {ADVICE}"
        )
