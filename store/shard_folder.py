"""The folder of a store's shards as this process knows it: which can be used, and which cannot and why."""

import os
import time
from pathlib import Path

from store.errors import DamagedShardError, OtherLevelsError, SpecMismatchError, StoreError
from store.shard import Shard

LOOKS = 50


class ShardFolder:
    """Opens each shard once. After ``look``, ``usable`` are the good ones by name and ``damaged`` says what is wrong with the others."""

    def __init__(self, path: Path, spec_digest: str) -> None:
        self.path, self.spec_digest = path, spec_digest
        self.usable: list[Shard] = []
        self.damaged: dict[str, StoreError] = {}
        self._opened: dict[str, Shard] = {}
        self._refused: dict[str, StoreError] = {}

    def look(self) -> None:
        """See what is in the folder now; opens only files not seen before. ``StoreError`` when the folder cannot be read."""
        for attempt in range(LOOKS):
            time.sleep(min(1.0, 0.02 * max(0, attempt - 2)))  # a network disk may list for some seconds what another client has removed
            names = self._list()
            if self._open_new(names) and names == self._list():  # equal lists: nothing was renamed while we looked
                return self._set_apart_other_levels()
        raise StoreError(f"{self.path} changes faster than it can be read")

    def _list(self) -> list[str]:
        try:
            names = os.listdir(self.path)  # noqa: PTH208 - names are all that is needed
        except FileNotFoundError:
            names = []
        except OSError as error:
            raise StoreError(f"{self.path} cannot be read: {error.strerror or error}") from None
        return sorted(name for name in names if name.endswith(".h5") and not name.startswith("."))

    def _open_new(self, names: list[str]) -> bool:
        """Bring ``_opened`` and ``_refused`` in line with the folder; False if a file vanished meanwhile."""
        opened, refused, vanished = dict[str, Shard](), dict[str, StoreError](), False
        for name in names:
            known, trouble = self._opened.get(name), self._refused.get(name)
            if known:
                opened[name] = known
            elif isinstance(trouble, DamagedShardError | SpecMismatchError):  # these do not pass
                refused[name] = trouble
            else:
                vanished |= not self._open(name, opened, refused)
        self._opened, self._refused = opened, refused  # at once, for threads that look at the same time
        return not vanished

    def _open(self, name: str, opened: dict[str, Shard], refused: dict[str, StoreError]) -> bool:
        try:
            opened[name] = Shard.open(self.path / name, self.spec_digest)
        except FileNotFoundError:
            refused[name] = StoreError(f"{self.path / name} is a link to nothing")
            return (self.path / name).is_symlink()
        except StoreError as error:
            refused[name] = error
        return True

    def _set_apart_other_levels(self) -> None:
        """All shards of a store have the levels of the first one by name."""
        shards = [shard for _, shard in sorted(self._opened.items())]
        apart = [shard for shard in shards if shard.levels != shards[0].levels]
        self.usable = [shard for shard in shards if shard.levels == shards[0].levels] if apart else shards
        self.damaged = self._refused | {shard.name: _other_levels(shard, shards[0]) for shard in apart}


def _other_levels(shard: Shard, first: Shard) -> OtherLevelsError:
    ours, theirs = ("; ".join(map(str, one.levels)) for one in (shard, first))
    return OtherLevelsError(
        f"{shard.path} has levels {ours}; the store's first shard {first.name} has {theirs}; move the one that does not belong here away"
    )
