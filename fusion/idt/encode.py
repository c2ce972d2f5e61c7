"""A list's trajectory files to Fisher vectors in stores, each part of the list by a codebook of its own training videos."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from fusion.idt.codebook import Codebook, descriptor, fit_mixture, load_mixture, save_about, save_mixture
from fusion.idt.fisher import FisherSums, normalise
from fusion.idt.parallel import in_parallel
from fusion.idt.parts import Part, parts_of
from fusion.idt.reader import find_file, read_blocks
from fusion.idt.sample import draw, per_video
from fusion.idt.spec import VERSION, FisherSpec
from store.digest import digest, from_dict, to_plain
from store.errors import FeatureError, Interrupted, SpecError, StoreError, TrainingError
from store.features import FeatureStore
from store.files import safe_name, write_text
from store.layout import Features
from store.progress import Progress
from store.videos import VideoList

ENCODING = "encoding.json"
ORIGIN_FILE = "trajectories.json"  # what `idt extract` leaves beside its files
Stopped = Callable[[], bool]


@dataclass(frozen=True)
class EncodeSummary:
    """How encoding ended: done + skipped + failed = the videos of the list's parts. ``empty``: without any trajectory, encoded as zero."""

    path: Path
    stores: tuple[Path, ...]
    done: int
    skipped: int
    failed: dict[str, tuple[str, str]]
    empty: tuple[str, ...]
    trajectories: int


@dataclass(frozen=True)
class Encoded:
    """One video by every codebook: a level a descriptor, float32 [1, 2 K d]; or why there is none."""

    id: str
    features: tuple[Features, ...] = ()
    trajectories: int = 0
    problem: str = ""


def encode_list(
    videos: VideoList,
    root: Path,
    out: Path,
    name: str,
    spec: FisherSpec,
    cross_validate: bool = False,
    origin: str = "",
    jobs: int = 0,
    retry_failed: bool = False,
    stopped: Stopped = lambda: False,
) -> EncodeSummary:
    """Everything that ``actioncache idt encode`` does: sample, fit, encode, below ``out/name``; what is there already is kept.

    Nothing of a part's validation and test videos enters its codebook. A file that cannot be read is recorded as a failure of its video.
    Raises ``Interrupted`` once ``stopped()`` is true.
    """
    folder = out / safe_name(name, "name")
    parts = parts_of(videos, cross_validate)
    made_by = trajectory_origin(root, origin)
    asked = list(dict.fromkeys(video_id for part in parts for video_id in part.ids))
    files, failed = find_files(root, asked)
    samples, unread = sample_videos(parts, files, folder, spec, made_by, jobs, stopped)
    failed |= unread
    codebooks = fit_parts(parts, samples, folder, spec, jobs, stopped)
    stores = [
        FeatureStore.create(folder, part.folder, store_spec(spec, Codebook.load(codebook), made_by))
        for part, codebook in zip(parts, codebooks, strict=True)
    ]
    write_encoding(folder, parts, stores, codebooks, spec)
    encoder = _Encoder(stores, codebooks, {name: path for name, path in files.items() if name not in failed}, spec)
    encoder.run(jobs, retry_failed, stopped)
    failed |= encoder.failed
    return EncodeSummary(
        folder,
        tuple(store.path for store in stores),
        encoder.done,
        len(asked) - encoder.done - len(failed),
        failed,
        tuple(encoder.empty),
        encoder.trajectories,
    )


def trajectory_origin(root: Path, origin: str) -> Any:
    """What identifies the trajectories: the settings that ``idt extract`` left, or the user's words."""
    file = root / ORIGIN_FILE
    if not root.is_dir():
        raise SpecError(
            f"there is no folder of trajectories {root}; write them with `actioncache idt extract`, or give the folder of yours"
        )
    if file.is_file() and not origin:
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except ValueError as error:
            raise StoreError(f"{file} cannot be read ({error}); say what the trajectories are with --origin") from None
    if not origin:
        raise SpecError(f'{root} has no {ORIGIN_FILE}, so say what made these files: --origin "improved trajectories, release 2013"')
    return origin


def find_files(root: Path, ids: Sequence[str]) -> tuple[dict[str, Path], dict[str, tuple[str, str]]]:
    """The file of every video, and why a video has none. A video without is looked for again each time, so this is not recorded."""
    files: dict[str, Path] = {}
    failed: dict[str, tuple[str, str]] = {}
    for video_id in ids:
        try:
            files[video_id] = find_file(root, video_id)
        except FeatureError as error:
            failed[video_id] = ("find", str(error))
    if not files:
        raise StoreError(f"none of the {len(ids)} videos has a trajectory file: {next(iter(failed.values()))[1]}")
    return files, failed


def sample_videos(
    parts: Sequence[Part], files: Mapping[str, Path], folder: Path, spec: FisherSpec, origin: Any, jobs: int, stopped: Stopped
) -> tuple[FeatureStore, dict[str, tuple[str, str]]]:
    """A store with the sample of every video that any part trains on, and the videos whose files cannot be read."""
    count = per_video(spec.sample, min(len(part.train) for part in parts))
    about = {"kind": "trajectory sample", "version": VERSION, "per_video": count, "seed": spec.seed, "trajectories": origin}
    store = FeatureStore.create(folder, "sample", about)
    todo = [name for name in store.missing(dict.fromkeys(name for part in parts for name in part.train)) if name in files]
    failed: dict[str, tuple[str, str]] = {}
    results = in_parallel(_draw, [(name, files[name], count, spec.seed) for name in todo], jobs, stopped)
    done = 0
    with store.writer() as writer, Progress("sample", len(todo)) as progress:
        for name, features, problem in results:
            done += 1
            if problem:
                failed[name] = ("read", problem)
                writer.fail(name, "read", problem, files[name])
            elif features is not None:
                writer.add(name, features)
            progress.advance()
    _check_left("sample", len(todo) - done)
    return store, failed


def _draw(video_id: str, path: Path, count: int, seed: int) -> tuple[str, Features | None, str]:
    try:
        return video_id, draw(path, video_id, count, seed), ""
    except FeatureError as error:
        return video_id, None, str(error)


def fit_parts(parts: Sequence[Part], samples: FeatureStore, folder: Path, spec: FisherSpec, jobs: int, stopped: Stopped) -> list[Path]:
    """The folder of each part's codebook, fitted unless it is there; each descriptor's mixture is kept as soon as it is done."""
    ids = [training_ids(part, samples) for part in parts]
    places = [codebook_place(part, train, samples, folder, spec) for part, train in zip(parts, ids, strict=True)]
    todo = [
        (samples.path, train, name, spec, place)
        for place, train in zip(places, ids, strict=True)
        for name in spec.descriptors
        if not (place / f"{name}.npz").is_file()
    ]
    done = 0
    with Progress("codebooks", len(todo), "mixtures") as progress:
        for _ in in_parallel(_fit, todo, jobs, stopped):
            done += 1
            progress.advance()
    _check_left("codebooks", len(todo) - done)
    for place, train in zip(places, ids, strict=True):
        save_about(place, spec.descriptors, train)
    return places


def training_ids(part: Part, samples: FeatureStore) -> tuple[str, ...]:
    """A part's training videos that have any trajectory; ``TrainingError`` for none."""
    ids = tuple(name for name in part.train if name in samples)
    if not ids:
        raise TrainingError(f"{part.name}: none of the {len(part.train)} training videos has any trajectory, so there is nothing to fit")
    return ids


def codebook_place(part: Part, ids: Sequence[str], samples: FeatureStore, folder: Path, spec: FisherSpec) -> Path:
    """Where a part's codebook is: its name tells the settings of the fit, the sample and the training videos."""
    settings = {key: value for key, value in to_plain(spec).items() if key not in ("descriptors", "power", "l2", "dtype")}
    identity = digest({"version": VERSION, "settings": settings, "sample": samples.digest, "train": sorted(ids)})
    return folder / "codebooks" / f"{part.folder}-{identity[:12]}"


def _fit(samples: Path, ids: Sequence[str], name: str, spec: FisherSpec, place: Path) -> None:
    from store.trajectory_format import IMPROVED

    values = FeatureStore.open(samples).read_rows(ids, name, dtype="float32").values
    rows = np.zeros((len(values), IMPROVED.count), np.float32) if spec.norm == "rootsift" else None
    if rows is not None:
        rows[:, IMPROVED.descriptor(name)] = values
        values = descriptor(rows, IMPROVED, name, spec.norm)
    save_mixture(place / f"{name}.npz", fit_mixture(values, name, spec))


def store_spec(spec: FisherSpec, codebook: Codebook, origin: Any) -> dict[str, Any]:
    """What the Fisher vectors of a store are: settings, the codebook's numbers, where the trajectories come from."""
    chosen = replace(codebook, mixtures={name: codebook.mixtures[name] for name in spec.descriptors})
    return {"kind": "fisher vectors", "version": VERSION, "fisher": to_plain(spec), "codebook": chosen.digest(), "trajectories": origin}


def write_encoding(
    folder: Path, parts: Sequence[Part], stores: Sequence[FeatureStore], codebooks: Sequence[Path], spec: FisherSpec
) -> None:
    """Write which store and which codebook belong to which part, for ``idt train``."""
    entries = [
        {"name": part.name, "store": store.path.name, "digest": store.digest, "codebook": str(codebook.relative_to(folder))}
        for part, store, codebook in zip(parts, stores, codebooks, strict=True)
    ]
    write_text(folder / ENCODING, json.dumps({"parts": entries, "fisher": to_plain(spec)}, indent=2, ensure_ascii=False) + "\n")


class _Encoder:
    """Encodes what the stores lack: a video is read once for all of them."""

    def __init__(self, stores: Sequence[FeatureStore], codebooks: Sequence[Path], files: Mapping[str, Path], spec: FisherSpec) -> None:
        self._stores, self._codebooks, self._files, self._spec = stores, tuple(codebooks), files, spec
        self.done = self.trajectories = 0
        self.failed: dict[str, tuple[str, str]] = {}
        self.empty: list[str] = []

    def run(self, jobs: int, retry_failed: bool, stopped: Stopped) -> None:
        lacking = dict.fromkeys(name for store in self._stores for name in store.missing(self._files))
        if not retry_failed:
            self._remember(lacking)
        todo = [name for name in lacking if name not in self.failed]
        pieces = [(name, self._files[name], self._codebooks, to_plain(self._spec)) for name in todo]
        finished = 0
        with ExitStack() as stack:
            writers = [stack.enter_context(store.writer()) for store in self._stores]
            progress = stack.enter_context(Progress("encode", len(todo)))
            for encoded in in_parallel(encode_video, pieces, jobs, stopped):
                self._take(encoded, writers)
                finished += 1
                progress.advance(note=f"{self.trajectories} trajectories, {len(self.failed)} failed")
        _check_left("encode", len(todo) - finished)

    def _remember(self, lacking: Iterable[str]) -> None:
        """Failures of earlier runs whose files have not changed since."""
        for failure in (failure for store in self._stores for failure in store.failures().values()):
            if failure.id in self._files and failure.id in lacking and failure.is_current(self._files[failure.id]):
                self.failed[failure.id] = (failure.stage, failure.reason)

    def _take(self, encoded: Encoded, writers: Sequence[Any]) -> None:
        if encoded.problem:
            self.failed[encoded.id] = ("read", encoded.problem)
        for place, (store, writer) in enumerate(zip(self._stores, writers, strict=True)):
            if encoded.id in store:
                continue
            if encoded.problem:
                writer.fail(encoded.id, "read", encoded.problem, self._files[encoded.id])
            else:
                writer.add(encoded.id, encoded.features[place])
        if not encoded.problem:
            self.done += 1
            self.trajectories += encoded.trajectories
            self.empty += [] if encoded.trajectories else [encoded.id]


def encode_video(video_id: str, path: Path, codebooks: Sequence[Path], settings: dict[str, Any]) -> Encoded:
    """Read one file once and encode it by every codebook; runs in a worker."""
    spec = from_dict(FisherSpec, settings)
    sums = [{name: FisherSums(_mixture(codebook / f"{name}.npz")) for name in spec.descriptors} for codebook in codebooks]
    frames = rows_read = 0
    try:
        for columns, rows in read_blocks(path):
            for name in spec.descriptors:
                values = np.ascontiguousarray(descriptor(rows, columns, name, spec.norm))
                for each in sums:
                    each[name].add(values)
            rows_read += len(rows)
            frames = max(frames, int(rows[:, 0].max()) + 1)
    except FeatureError as error:
        return Encoded(video_id, problem=str(error))
    return Encoded(video_id, tuple(_features(each, frames, spec) for each in sums), rows_read)


def _features(sums: Mapping[str, FisherSums], frames: int, spec: FisherSpec) -> Features:
    """One row a level. Trajectory files know frames, not seconds: the times are 0."""
    vectors = {name: normalise(each.vector(), spec.power, spec.l2)[None].astype(spec.dtype) for name, each in sums.items()}
    return Features(vectors, np.array([[0, max(frames, 0)]], np.int64), np.zeros((1, 2)))


@lru_cache(128)
def _mixture(path: Path) -> Any:
    return load_mixture(path)


def _check_left(stage: str, left: int) -> None:
    if left:
        raise Interrupted(f"{stage}: interrupted with {left} left; what is done is kept, run the command again")
