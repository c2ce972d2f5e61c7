"""Is a wrong feature ever returned without an error? Random damage to whole shard files, read one by one and in bulk, verified, repaired.

What must come of each damage is worked out from the byte positions of the arrays alone, so that `verify --deep` and `repair` are held
against something that is not their own answer.
"""

import argparse
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from figures import report

from store.errors import DamagedShardError, MissingFeaturesError
from store.features import Features, FeatureStore
from store.shard_structure import Place
from store.testing import SPEC, Videos, same, sample

LAYOUTS: dict[str, tuple[int, int, dict[str, tuple[str, tuple[int, ...]]]]] = {  # videos, most rows of one, levels
    "one level": (40, 30, {"avgpool": ("float16", (1024,))}),
    "three levels": (60, 12, {"low": ("float16", (256,)), "mid.1": ("float32", (128,)), "crops": ("float16", (10, 64))}),
    "maps": (20, 8, {"conv5": ("float16", (64, 7, 7))}),
    "numbers": (1500, 3, {"score": ("float32", ())}),
}
KINDS = ("bit", "bit", "bit", "bit", "bits", "cut", "cut", "noise", "zeros", "insert")


@dataclass(frozen=True)
class Damage:
    """What was done to a file: the byte ranges that changed, and from where on nothing is where it was (the file's size if nowhere)."""

    kind: str
    ranges: tuple[tuple[int, int], ...]
    moved: int


@dataclass(frozen=True)
class Case:
    """An undamaged shard: its videos, its bytes, and for every byte of an array the videos that it belongs to."""

    name: str
    store: FeatureStore
    videos: Videos
    data: bytes
    arrays: tuple[tuple[str, Place, np.ndarray], ...]  # name, place, for each row of the array the video's number

    @classmethod
    def make(cls, folder: Path, name: str, videos: Videos) -> "Case":
        """Write the videos as one shard."""
        store = FeatureStore.create(folder, "damage", SPEC)
        with store.writer() as writer:
            for video_id, features in videos.items():
                writer.add(video_id, features)
        (shard,) = store.shards
        held, numbers = shard.structure, np.arange(len(videos))
        owners = np.repeat(numbers, [len(features) for features in videos.values()])
        arrays = [("id", held.id, numbers), ("first", held.first, numbers), ("rows", held.rows, numbers)]
        arrays += [(f"digests/{level}", place, numbers) for level, place in held.digests.items()]
        arrays += [("frames", held.frames, owners), ("times", held.times, owners)]
        arrays += [(f"levels/{level}", place, owners) for level, place in held.values.items()]
        return cls(name, store, videos, shard.path.read_bytes(), tuple(arrays))

    def owners(self, start: int, end: int) -> tuple[set[int], int]:
        """Numbers of the videos with a byte in [start, end), and how many of these bytes are in no array (HDF5's own, or gaps)."""
        found: set[int] = set()
        outside = end - start
        for _, place, owners in self.arrays:
            size = int(np.prod(place.shape)) * np.dtype(place.dtype).itemsize
            low, high = max(start, place.offset), min(end, place.offset + size)
            if low < high:
                row = size // len(owners)
                found |= set(owners[(low - place.offset) // row : (high - 1 - place.offset) // row + 1].tolist())
                outside -= high - low
        return found, outside


def cases(folder: Path, rng: np.random.Generator) -> Iterator[Case]:
    """Shards of several sizes, levels and types, 60 kB to 2.5 MB."""
    for number, (name, (count, most, levels)) in enumerate(LAYOUTS.items()):
        videos = {f"class {n % 7}/v_{n:04}.avi": _features(rng, most, levels) for n in range(count)}
        yield Case.make(folder / str(number), name, videos)
    yield Case.make(folder / "awkward", "awkward ids", sample("three levels", 30))


def _features(rng: np.random.Generator, most: int, levels: dict[str, tuple[str, tuple[int, ...]]]) -> Features:
    rows = int(rng.integers(1, most + 1))
    frames = (np.arange(rows) * 16)[:, None] + np.array([0, 16])
    return Features(
        {name: rng.standard_normal((rows, *shape)).astype(dtype) for name, (dtype, shape) in levels.items()}, frames, frames / 25
    )


def damaged(case: Case, rng: np.random.Generator) -> tuple[bytes, Damage]:
    """The shard's bytes after one random accident; half of them where no feature's values are (index, digests, times, HDF5's own)."""
    data, size = bytearray(case.data), len(case.data)
    values = min(place.offset for name, place, _ in case.arrays if name.startswith("levels/"))
    kind, at = str(rng.choice(KINDS)), int(rng.integers(values if rng.random() < 0.5 else size))
    if kind == "bit":
        data[at] ^= 1 << int(rng.integers(8))
        return bytes(data), Damage(kind, ((at, at + 1),), size)
    if kind == "bits":
        places = sorted({at, *rng.integers(size, size=7).tolist()})
        for place in places:
            data[place] ^= 1 << int(rng.integers(8))
        return bytes(data), Damage(kind, tuple((place, place + 1) for place in places), size)
    if kind == "cut":
        return bytes(data[:at]), Damage(kind, ((at, size),), at)
    if kind == "insert":
        return bytes(data[:at] + rng.bytes(1) + data[at:]), Damage(kind, ((at, size),), at)
    run = bytes(512) if kind == "zeros" else rng.bytes(64)
    changed = data[:at] + run[: size - at] + data[at + len(run) :]
    differ = np.flatnonzero(np.frombuffer(changed, np.uint8) != np.frombuffer(case.data, np.uint8)).tolist()
    return bytes(changed), Damage(kind, tuple((place, place + 1) for place in differ), size)


class Attack:
    """Damages shards and counts what goes wrong."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng = rng
        self.counts: Counter[str] = Counter()

    def run(self, strike: Callable[[Case], None], case: Case) -> None:
        """Strike, count whatever error comes out of it, and put the shard back."""
        path = case.store.shards[0].path
        try:
            strike(case)
        except Exception:
            traceback.print_exc()
            self.counts["errors of other kinds"] += 1
        for file in (*path.parent.iterdir(), *(case.store.path / "damaged").glob("*")):
            file.unlink()
        path.write_bytes(case.data)

    def strike(self, case: Case) -> None:
        """Damage a case's shard once and look at the store in every way."""
        data, damage = damaged(case, self.rng)
        path = case.store.shards[0].path
        path.unlink()  # a new file: shards are never changed under a map
        path.write_bytes(data)
        hit: set[int] = set()
        outside = 0
        for start, end in damage.ranges:
            owners, others = case.owners(start, end)
            hit, outside = hit | owners, outside + others
        ids = list(case.videos)
        broken = {ids[number] for number in hit}
        self.counts["damages"] += 1
        self.counts[f"damages: {damage.kind}"] += 1
        good = self._read(case)
        self._read_in_bulk(case, good)
        self._verify(case, good, broken)
        self._repair(case, good, broken, exact=damage.kind != "insert" and not (outside and damage.kind != "cut"))

    def strike_mapped(self, case: Case) -> None:
        """Damage the file in place while a store that was opened before has it mapped."""
        store = FeatureStore.open(case.store.path)
        ids, level = list(case.videos), str(self.rng.choice(store.levels))
        reader = store.reader(ids, level)
        assert same(store.get(ids[0]), case.videos[ids[0]])
        data, _ = damaged(case, self.rng)
        path = store.shards[0].path
        with path.open("r+b") as file:
            file.write(data)
            file.truncate()
        self.counts["damages under a map"] += 1
        for video_id, features in case.videos.items():
            try:
                self.counts["wrong features from get"] += not same(store.get(video_id), features)
            except DamagedShardError:
                continue
        for make in (lambda: reader, lambda: store.reader(ids, level)):
            try:
                rows = make().read(spans=True)
                self.counts["wrong features from read_rows"] += not all(
                    self._same(rows, number, case.videos[name], level) for number, name in enumerate(ids)
                )
            except DamagedShardError:
                continue

    def _read(self, case: Case) -> set[str]:
        """Read every video by itself; returns those that are right."""
        store, good = FeatureStore.open(case.store.path), set()
        for video_id, features in case.videos.items():
            try:
                right = same(store.get(video_id), features)
            except (DamagedShardError, MissingFeaturesError):
                continue
            self.counts["wrong features from get"] += not right
            good |= {video_id} if right else set()
        return good

    def _read_in_bulk(self, case: Case, good: set[str]) -> None:
        """Read each level of all videos, of those that are right one by one, and of a few at random, in both orders and types."""
        store = FeatureStore.open(case.store.path)
        here = [video_id for video_id in case.videos if video_id in store]
        some = self.rng.permutation(here)[: max(1, len(here) // 3)].tolist()
        for ids, must_be_right in ((here, False), (some, False), ([name for name in here if name in good], True)):
            for level in store.levels if ids else ():
                order, dtype = self.rng.choice(["ids", "storage"]), self.rng.choice([None, "float32"])
                try:
                    rows = store.read_rows(ids, level, dtype=dtype, order=order, spans=True, threads=int(self.rng.integers(1, 3)))
                except DamagedShardError:
                    self.counts["right videos refused in bulk"] += must_be_right
                    continue
                right = all(self._same(rows, number, case.videos[name], level) for number, name in enumerate(ids))
                self.counts["wrong features from read_rows"] += not right

    @staticmethod
    def _same(rows: object, number: int, features: Features, level: str) -> bool:
        span = slice(rows.starts[number], rows.starts[number] + rows.counts[number])
        pairs = ((rows.of(number), features.values[level].astype(rows.values.dtype)), (rows.frames[span], features.frames))
        return all(found.tobytes() == wanted.tobytes() for found, wanted in (*pairs, (rows.times[span], features.times)))

    def _verify(self, case: Case, good: set[str], broken: set[str]) -> None:
        problems = FeatureStore.open(case.store.path).verify(deep=True)
        self.counts["damage in covered bytes that verify --deep does not tell"] += bool(broken) and not problems
        self.counts["problems told of sound stores"] += bool(problems) and len(good) == len(case.videos)

    def _repair(self, case: Case, good: set[str], broken: set[str], exact: bool) -> None:
        """``exact``: HDF5's own bytes are as they were, so that every video that was not hit has to be kept."""
        store = FeatureStore.open(case.store.path)
        store.repair()
        kept = set(store.ids())
        self.counts["wrong videos kept by repair"] += sum(not same(store.get(name), case.videos[name]) for name in kept)
        self.counts["problems left by repair"] += len(FeatureStore.open(store.path).verify(deep=True))
        self.counts["readable videos lost by repair"] += len(good - kept)
        if exact:
            self.counts["damages of arrays alone"] += 1
            self.counts["undamaged videos lost by repair"] += len(case.videos.keys() - broken - kept)
        elif not kept:
            self.counts["damages of HDF5's own bytes that cost the whole shard"] += 1


BARS = {
    "wrong features from get": "returned without an error",
    "wrong features from read_rows": "returned without an error",
    "right videos refused in bulk": "that get returns",
    "damage in covered bytes that verify --deep does not tell": "damages",
    "problems told of sound stores": "by verify --deep",
    "wrong videos kept by repair": "videos",
    "problems left by repair": "by verify --deep",
    "readable videos lost by repair": "that get returned before",
    "undamaged videos lost by repair": "by the positions of the damaged bytes",
    "errors of other kinds": "than our own",
}


def main() -> None:
    """Print the numbers of faults, for which the bar is none."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--damages", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    rng = np.random.default_rng(arguments.seed)
    attack = Attack(rng)
    with tempfile.TemporaryDirectory() as folder:
        made = list(cases(Path(folder), rng))
        for strike in (attack.strike, attack.strike_mapped):
            for number in range(arguments.damages):
                attack.run(strike, made[number % len(made)])
    for figure, against in BARS.items():
        report(f"{arguments.damages} damaged shards: {figure}", attack.counts[figure], "faults", against, 0, at_least=False)
    for figure in sorted(attack.counts.keys() - BARS.keys()):
        report(f"{arguments.damages} damaged shards: {figure}", attack.counts[figure], "damages", "all damages")


if __name__ == "__main__":
    main()
