"""What is wrong with a store, in words; damage is reported and never raised."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from store.errors import StoreError
from store.features import FeatureStore
from store.index import VideoIndex
from store.shard import Shard
from store.spec_file import read_spec_file


@dataclass(frozen=True)
class Problem:
    """Something wrong in a store: the file, the video (empty when it is the file as a whole), and what it is."""

    shard: str
    id: str
    reason: str

    def __str__(self) -> str:
        return f"{self.shard}{': ' + self.id if self.id else ''}: {self.reason}"


def verify(store: FeatureStore, deep: bool = False) -> list[Problem]:
    """Every problem of a store, read afresh; ``deep`` compares every video with its digests. Damage never raises."""
    try:
        read_spec_file(store.path)
        fresh = FeatureStore(store.path, store.spec)
    except StoreError as error:
        return [Problem(store.path.name, "", str(error))]
    problems = [Problem(name, "", str(error)) for name, error in sorted(fresh.damaged.items())]
    problems += [
        Problem(other.name, video_id, f"other features than the same video has in {first.name}, which is the shard that is read")
        for video_id, first, other in conflicts(fresh.shards)
    ]
    for shard in fresh.shards if deep else ():
        problems += deep_problems(shard)
    return problems


def conflicts(shards: Iterable[Shard]) -> Iterator[tuple[str, Shard, Shard]]:
    """Videos found in two shards with different digests: (id, the shard that is read, the other one)."""
    index = VideoIndex(shards)
    for shard in () if index.is_disjoint() else index.shards:
        for position, video_id in enumerate(shard.ids):
            first, at = index.find(video_id) or (shard, position)
            if first is not shard and _digests(first, at) != _digests(shard, position):
                yield video_id, first, shard


def deep_problems(shard: Shard) -> list[Problem]:
    """The videos of a shard whose bytes disagree with their digests or cannot be read."""
    try:
        return [Problem(shard.name, video_id, str(found)) for video_id, found in shard.read_each() if isinstance(found, StoreError)]
    except FileNotFoundError:  # merged into another shard meanwhile, which checked every video
        return []
    except StoreError as error:
        return [Problem(shard.name, "", str(error))]


def _digests(shard: Shard, position: int) -> tuple[bytes, ...]:
    try:
        return shard.digests(position)
    except (FileNotFoundError, StoreError):  # gone or changed since it was opened: nothing to compare
        return ()
