"""Set damaged shards aside and keep every good video in them, so that the next extract redoes exactly the rest."""

from dataclasses import dataclass, field
from pathlib import Path

from store.cut_shard import open_cut
from store.errors import DamagedShardError, FeatureError, OtherLevelsError, SpecMismatchError, StoreError
from store.features import FeatureStore
from store.files import fsync_folder
from store.layout import Features
from store.rewrite import Part, SourceGoneError, remove_partials, write_successor
from store.shard import Shard
from store.shard_writer import Entry, refused
from store.verify import Problem

DAMAGED_FOLDER = "damaged"


@dataclass(frozen=True)
class Repair:
    """What a repair did.

    ``set_aside``: shard files moved to the folder ``damaged``. ``rescued``: good videos of theirs, published anew. ``lost``: ids known
    to have been in them and not in the store any more. ``left``: problems that are not for repair to solve (no permission, a failing
    disk, a newer format, good shards whose levels are not those of the first one: which of them belong here, only people know).
    ``partials``: left-overs of dead writers, removed.
    """

    set_aside: tuple[str, ...]
    rescued: int
    lost: tuple[str, ...]
    left: tuple[Problem, ...]
    partials: int


def repair(store: FeatureStore) -> Repair:
    """Set aside every shard with damage, after the good videos in it have been published anew.

    Of two different versions of a video the one that is read stays. Nothing is deleted but partial files of dead writers.
    Raises ``StoreError`` when the folder refuses; a shard is only moved once its good videos are safe.
    """
    fresh = FeatureStore(store.path, store.spec)
    work = _Work(fresh)
    for shard in fresh.shards:
        work.usable(shard)
    for name, error in sorted(fresh.damaged.items()):
        work.unusable(name, error)
    partials = remove_partials(store.path)
    store.refresh()
    return Repair(tuple(work.set_aside), work.rescued, tuple(sorted(work.lost - set(store.ids()))), tuple(work.left), partials)


@dataclass
class _Sorted:
    """The videos of one shard: those to keep, and the ids of those that are not what was written."""

    good: dict[str, int] = field(default_factory=dict)  # id -> position in the shard
    bad: list[str] = field(default_factory=list)


class _Work:
    """Goes through the shards in the order in which they are read, remembering the version of each video that counts."""

    def __init__(self, store: FeatureStore) -> None:
        self.store = store
        self.set_aside: list[str] = []
        self.left: list[Problem] = []
        self.lost: set[str] = set()
        self.rescued = 0
        self._versions: dict[str, tuple[bytes, ...]] = {}

    def usable(self, shard: Shard) -> None:
        """A shard with a good index: replaced only if one of its videos is bad."""
        found = self._sort(shard)
        if found and found.bad:
            self._replace(shard, found)

    def unusable(self, name: str, error: StoreError) -> None:
        """A shard that could not be opened: replaced by what can be rescued, where that is a sensible thing to do."""
        path = self.store.path / "shards" / name
        if isinstance(error, SpecMismatchError) and not isinstance(error, OtherLevelsError):
            self._move(path)
            return
        if not isinstance(error, DamagedShardError):
            self.left.append(Problem(name, "", str(error)))
            return
        try:
            shard = self._open(path)
        except DamagedShardError:
            self._move(path)
        except StoreError as second:
            self.left.append(Problem(name, "", str(second)))
        except FileNotFoundError:
            return
        except OSError as reason:  # no room for what open_cut needs
            raise refused(path.parent, reason, f"{path.name} is as it was") from reason
        else:
            found = self._sort(shard)
            if found:
                self._replace(shard, found)

    def _open(self, path: Path) -> Shard:
        """The shard without its index being checked; if it was cut short, what is left of it."""
        try:
            return Shard.open_unchecked(path, self.store.digest)
        except DamagedShardError:
            cut = open_cut(path, self.store.digest)
            if not cut:
                raise
            return cut

    def _sort(self, shard: Shard) -> _Sorted | None:
        """None if the shard is to be left alone: gone, or on a disk that does not answer."""
        found = _Sorted()
        try:
            for position, (video_id, features) in enumerate(shard.read_each()):
                if isinstance(features, DamagedShardError):
                    found.bad.append(video_id)
                elif isinstance(features, StoreError):
                    self.left.append(Problem(shard.name, video_id, str(features)))
                    return None
                else:
                    self._sort_one(video_id, position, features, found)
        except FileNotFoundError:
            return None
        except DamagedShardError:  # changed since it was opened
            found.bad.extend(shard.ids)
        except StoreError as error:
            self.left.append(Problem(shard.name, "", str(error)))
            return None
        return found

    def _sort_one(self, video_id: str, position: int, features: Features, found: _Sorted) -> None:
        try:
            entry = Entry.of(video_id, features)
        except FeatureError:
            found.bad.append(video_id)
            return
        digests = tuple(entry.digests[name] for name in sorted(entry.digests))
        if self._versions.setdefault(video_id, digests) == digests:
            found.good[video_id] = position
        else:
            found.bad.append(video_id)

    def _replace(self, shard: Shard, found: _Sorted) -> None:
        if found.good:
            try:
                write_successor(shard.path, self.store.digest, [Part(shard, list(found.good.values()))])
            except SourceGoneError:  # another repair was faster
                return
        self.rescued += len(found.good)
        self.lost |= set(found.bad)
        self._move(shard.path)

    def _move(self, path: Path) -> None:
        folder = self.store.path / DAMAGED_FOLDER
        try:
            folder.mkdir(exist_ok=True)
            path.replace(folder / path.name)
        except FileNotFoundError:  # another repair was faster
            return
        except OSError as error:
            raise refused(folder, error, f"{path.name} stays where it is") from error
        fsync_folder(folder)
        fsync_folder(path.parent)
        self.set_aside.append(path.name)
