"""Which shard holds which video: one small number a video, kept up to date as shards come and go."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain

import numpy as np

from store.shard import Shard

_POSITION_BITS = 32
_POSITION = (1 << _POSITION_BITS) - 1


class VideoIndex:
    """Maps ids to shards; of a video in several shards it knows the one in the first by name.

    A place is number << 32 | position: the shard's number in the order of getting known, and the video's position in the shard. So a new
    shard, wherever its name sorts, costs what it holds and not what the store holds. Threads may ask while others call ``updated``.
    """

    def __init__(self, shards: Iterable[Shard] = ()) -> None:
        """``shards`` are ordered by name; the first copy of a video is the one that counts."""
        self.shards = tuple(shards)
        self._numbered: list[Shard] = []  # may name a shard twice, after two threads added it at once; either number is right
        self._places: dict[str, int] = {}
        for shard in self.shards:
            self._add(shard)

    def __len__(self) -> int:
        return len(self._places)

    def __contains__(self, video_id: object) -> bool:
        return video_id in self._places

    def updated(self, shards: Sequence[Shard]) -> "VideoIndex":
        """The index of exactly ``shards``, ordered by name: this one, extended, unless one of its shards is gone."""
        if tuple(shards) == self.shards:
            return self
        known = set(self.shards)
        if not known.issubset(shards):
            return VideoIndex(shards)
        for shard in shards:
            if shard not in known:
                self._add(shard)
        self.shards = tuple(shards)
        return self

    def _add(self, shard: Shard) -> None:
        self._numbered.append(shard)  # before the places, so that a place always has its shard
        number = len(self._numbered) - 1
        while self._numbered[number] is not shard:  # another thread has added one meanwhile
            number -= 1
        first = number << _POSITION_BITS
        if self._places.keys().isdisjoint(shard.ids):
            self._places.update(zip(shard.ids, range(first, first + len(shard.ids)), strict=True))
        else:
            self._add_known(shard, first)

    def find(self, video_id: str) -> tuple[Shard, int] | None:
        """The shard that holds a video, and the video's position in it."""
        place = self._places.get(video_id)
        return None if place is None else (self._numbered[place >> _POSITION_BITS], place & _POSITION)

    def find_all(self, ids: Sequence[str]) -> tuple[list[Shard], np.ndarray, np.ndarray]:
        """The shards that hold ``ids`` (all in the index), and for each id int64 [V] its shard in that list and its position there."""
        places = np.fromiter(map(self._places.__getitem__, ids), np.int64, len(ids))
        used, shard = np.unique(places >> _POSITION_BITS, return_inverse=True)
        return [self._numbered[number] for number in used], shard, places & _POSITION

    def ids(self) -> Iterator[str]:
        """Every video once, by shard and order of writing."""
        if self.is_disjoint():
            return chain.from_iterable(shard.ids for shard in self.shards)
        return (shard.ids[position] for shard in self.shards for position in self._read_from(shard))

    def num_rows(self) -> dict[str, int]:
        """Rows of every video, in the order of ``ids``; ``FileNotFoundError`` when a shard is gone."""
        if self.is_disjoint():
            counts = chain.from_iterable(shard.num_rows().tolist() for shard in self.shards)
            return dict(zip(self.ids(), counts, strict=True))
        rows: dict[str, int] = {}
        for shard in self.shards:
            of_shard = shard.num_rows()
            rows |= {shard.ids[position]: int(of_shard[position]) for position in self._read_from(shard)}
        return rows

    def is_disjoint(self) -> bool:
        """Whether no video is in two shards."""
        return sum(len(shard.ids) for shard in self.shards) == len(self._places)

    def _read_from(self, shard: Shard) -> Iterator[int]:
        """Positions of the videos that are read from this shard and not from another one."""
        for position, video_id in enumerate(shard.ids):
            place = self._places[video_id]
            if place & _POSITION == position and self._numbered[place >> _POSITION_BITS].name == shard.name:
                yield position

    def _add_known(self, shard: Shard, first: int) -> None:
        """Add a shard with videos that other shards have too."""
        for place, video_id in enumerate(shard.ids, first):
            known = self._places.setdefault(video_id, place)
            if known != place and shard.name < self._numbered[known >> _POSITION_BITS].name:
                self._places[video_id] = place
