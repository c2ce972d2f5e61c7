"""From encodings to SVMs and decision values: what ``actioncache idt train`` and ``idt score`` do.

<run>/spec.json       identity, accuracy, SHA-256 of the files; written last: a folder without it is not finished
      svm.npz         the SVMs (of a cross-validation: in folds/fold-00, ...)
      scores.npz      decision values of the test videos, of all folds together
      validation.npz  decision values of the videos of the split val, where there are any
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from fusion.idt.codebook import Codebook
from fusion.idt.encode import ENCODING
from fusion.idt.parallel import in_parallel
from fusion.idt.parts import Part, parts_of
from fusion.idt.spec import SvmSpec
from fusion.idt.svm import Svm, check_classes, chosen_levels, combine, fit_class, gram
from store.digest import canonical_json, digest, to_plain
from store.errors import Interrupted, SpecMismatchError, StoreError, TrainingError
from store.features import FeatureStore
from store.files import PARTIAL_SUFFIX, safe_name, write_text
from store.progress import Progress
from store.run_files import DIGESTS, FOLDS, SPEC, check_beside, check_files, digests_of, recorded_files
from store.scores import ScoreTable
from store.videos import VideoList

MACHINES, SCORES, VALIDATION = "svm.npz", "scores.npz", "validation.npz"


@dataclass(frozen=True)
class TrainSummary:
    """Where the run is, its score table (none without test videos), top-1 accuracy where there are labels, videos without features."""

    path: Path
    scores: Path | None
    top1: float | None
    videos: int
    missing: tuple[str, ...]


@dataclass(frozen=True)
class _Job:
    """One part with its store."""

    part: Part
    store: FeatureStore
    folder: Path
    identity: dict[str, Any]


def train_list(
    videos: VideoList,
    encoding: Path,
    out: Path,
    name: str,
    spec: SvmSpec,
    allow_missing: bool = False,
    jobs: int = 0,
    stopped: Callable[[], bool] = lambda: False,
) -> TrainSummary:
    """Train the SVMs of every part of an encoding, score its validation and test videos, join the parts' scores.

    Refuses an encoding whose codebook saw a video that the list tests on. Parts that are there are kept. ``StoreError`` where videos have
    no features, unless ``allow_missing``; ``Interrupted`` once ``stopped()`` is true.
    """
    path = out / safe_name(name, "run name")
    entries = read_encoding(encoding)
    parts = match_parts(videos, entries)
    stores = [FeatureStore.open(encoding / entry["store"]) for entry in entries]
    for part, entry in zip(parts, entries, strict=True):
        check_unseen(part, Codebook.load(encoding / entry["codebook"]).train_ids)
    missing = tuple(dict.fromkeys(name for part, store in zip(parts, stores, strict=True) for name in store.missing(part.ids)))
    if missing and not allow_missing:
        raise StoreError(
            f"{len(missing)} of the videos have no Fisher vectors ({', '.join(missing[:5])}); encode them, or leave them out with "
            "--allow-missing (then their scores are missing, too)"
        )
    folded = len(parts) > 1 or parts[0].name != "split"
    labels = {video.id: video.label for video in videos}
    jobs_of_parts = [
        _Job(
            part,
            store,
            path / FOLDS / part.folder if folded else path,
            {"spec": to_plain(spec), "store": store.digest, "list": digest([[each, labels[each]] for each in part.ids]), "part": part.name}
            | {"classes": list(videos.classes), "missing": [each for each in part.ids if each in missing]},
        )
        for part, store in zip(parts, stores, strict=True)
    ]
    with Progress("svm", len(parts) * len(videos.classes), "classes") as progress:
        for job in jobs_of_parts:
            _train_part(job, videos, spec, jobs, stopped, progress)
    return _join(path, jobs_of_parts, missing, folded)


def read_encoding(folder: Path) -> list[dict[str, str]]:
    """What ``write_encoding`` wrote, a part each: name, store, digest, codebook; ``StoreError`` for a folder without it."""
    file = folder / ENCODING
    if not file.is_file():
        raise StoreError(f"{folder} has no {ENCODING}; give the folder that `actioncache idt encode` printed")
    try:
        entries = json.loads(file.read_text(encoding="utf-8"))["parts"]
        return [{key: safe_relative(str(entry[key])) for key in ("store", "codebook")} | {"name": str(entry["name"])} for entry in entries]
    except (ValueError, KeyError, TypeError) as error:
        raise StoreError(f"{file} cannot be read ({error}); encode again") from None


def safe_relative(text: str) -> str:
    """A relative path of plain names, so that an encoding can be moved and cannot point elsewhere."""
    for component in text.split("/"):
        safe_name(component, "path in an encoding")
    return text


def match_parts(videos: VideoList, entries: Sequence[dict[str, str]]) -> list[Part]:
    """The list's parts in the order of the encoding's; ``SpecMismatchError`` where it was made from another list."""
    folded = [entry["name"] for entry in entries] != ["split"]
    parts = {part.name: part for part in parts_of(videos, folded)}
    if set(parts) != {entry["name"] for entry in entries}:
        raise SpecMismatchError(
            f"the list has the parts {sorted(parts)}, the encoding {[entry['name'] for entry in entries]}; encode this list"
        )
    return [parts[entry["name"]] for entry in entries]


def check_unseen(part: Part, seen: Sequence[str]) -> None:
    """Raise ``TrainingError`` if the codebook was fitted to a video that the part validates or tests on."""
    leaked = sorted(set(seen) & {*part.validation, *part.test})
    if leaked:
        raise TrainingError(
            f"{part.name}: the codebook was fitted to {len(leaked)} videos that this list validates or tests on ({', '.join(leaked[:5])}); "
            "encode with this list"
        )


def _train_part(job: _Job, videos: VideoList, spec: SvmSpec, jobs: int, stopped: Callable[[], bool], progress: Progress) -> None:
    if _is_there(job):
        progress.advance(len(videos.classes))
        return
    train = [name for name in job.part.train if name in job.store]
    labels = videos.subset(train).labels()
    check_classes(labels, videos.classes, job.part.name)
    levels = chosen_levels(job.store, spec)
    products = gram(job.store, train, levels)
    pieces = [(position, products, labels == position, spec.c) for position in range(len(videos.classes))]
    found: dict[int, tuple[np.ndarray, float]] = {}
    for position, coefficients, intercept in in_parallel(_fit, pieces, jobs if len(train) > 500 else 1, stopped):
        found[position] = coefficients, intercept
        progress.advance()
    if len(found) < len(pieces):
        raise Interrupted(f"interrupted in {job.part.name}; parts that are done are kept, run the command again")
    ordered = [found[position] for position in range(len(pieces))]
    coefficients = np.stack([each for each, _ in ordered])
    machines = Svm(
        videos.classes,
        combine(job.store, train, levels, coefficients),
        np.array([intercept for _, intercept in ordered]),
        job.store.digest,
        tuple(train),
    )
    machines.save(job.folder / MACHINES)
    for file, ids in ((VALIDATION, job.part.validation), (SCORES, job.part.test)):
        table = score_videos(machines, job.store, videos, ids, {"run": job.folder.name, "part": job.part.name})
        if table is not None:
            table.save(job.folder / file)
    _write_spec(
        job.folder, job.identity, {"videos": {"train": len(train)}, "features": {"name": job.store.name, "digest": job.store.digest}}
    )


def _fit(position: int, products: np.ndarray, positive: np.ndarray, c: float) -> tuple[int, np.ndarray, float]:
    return position, *fit_class(products, positive, c)


def score_videos(machines: Svm, store: FeatureStore, videos: VideoList, ids: Sequence[str], source: dict[str, Any]) -> ScoreTable | None:
    """Decision values of those of ``ids`` that the store has, labels where all have one; None for no video."""
    present = [name for name in ids if name in store]
    if not present:
        return None
    chosen = videos.subset(present)
    place = {name: position for position, name in enumerate(machines.classes)}
    known = all(video.label in place for video in chosen)
    labels = np.array([place[str(video.label)] for video in chosen], np.int64) if known else None
    about = {"kind": "IDT Fisher vectors, linear SVM", "features": [{"name": store.name, "digest": store.digest}], **source}
    return machines.score(store, present, labels, about)


def _is_there(job: _Job) -> bool:
    file = job.folder / SPEC
    if not file.is_file():
        held = [path for path in job.folder.iterdir() if PARTIAL_SUFFIX not in path.name] if job.folder.is_dir() else []
        if held and not (job.folder / MACHINES).is_file():
            raise StoreError(f"{job.folder} holds other things; choose another --name or remove it")
        return False
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
        before, files = data["identity"], recorded_files(data, file)
    except (ValueError, KeyError, TypeError):
        raise StoreError(f"{file} cannot be read; choose another --name or remove {job.folder}") from None
    if canonical_json(before) != canonical_json(job.identity):
        differing = [key for key in job.identity if canonical_json(before.get(key)) != canonical_json(job.identity[key])]
        raise SpecMismatchError(
            f"{job.folder} was trained with other settings, videos or features ({', '.join(differing)} differ); choose another --name or "
            "remove it"
        )
    if files is not None:
        check_files(job.folder, files)
    return True


def _join(path: Path, jobs: Sequence[_Job], missing: tuple[str, ...], folded: bool) -> TrainSummary:
    files = [job.folder / SCORES for job in jobs if (job.folder / SCORES).is_file()]
    if folded:
        table = ScoreTable.concat([ScoreTable.load(file) for file in files])
        table = ScoreTable(table.ids, table.classes, table.values, table.kind, table.labels, {"run": path.name, **table.source})
        (path / SPEC).unlink(missing_ok=True)  # of the run before, whose digest of the scores is not that of the new ones
        table.save(path / SCORES)
        result = {"top1": top1(table), "folds": {job.part.name: job.folder.name for job in jobs}, "videos": {"test": len(table)}}
        _write_spec(path, {"folds": [job.identity for job in jobs]}, result)
    elif files:
        table = ScoreTable.load(files[0])
    else:
        return TrainSummary(path, None, None, 0, missing)
    return TrainSummary(path, path / SCORES, top1(table), len(table), missing)


def _write_spec(folder: Path, identity: dict[str, Any], result: dict[str, Any]) -> None:
    data = {"identity": identity, "result": result, DIGESTS: digests_of(folder, identity, result, (MACHINES, SCORES, VALIDATION))}
    write_text(folder / SPEC, json.dumps(data, indent=2, ensure_ascii=False) + "\n")


def top1(table: ScoreTable) -> float | None:
    """Share of the videos whose highest value is their class's; None without labels."""
    return None if table.labels is None else float((table.values.argmax(1) == table.labels).mean())


def score_list(videos: VideoList, machines: Path, features: Path, allow_missing: bool = False) -> ScoreTable:
    """Everything that ``actioncache idt score`` does; ``StoreError`` where videos have no features, unless ``allow_missing``."""
    if not machines.is_file() and (folds := sorted((machines.parent / FOLDS).glob(f"*/{MACHINES}"))):
        raise StoreError(
            f"{machines.parent} is a cross-validation, whose SVMs are those of its {len(folds)} folds; give one of them, e.g. --run "
            f"{folds[0].parent} ({machines.parent / SPEC} says which group each leaves out)"
        )
    check_beside(machines)
    store, svm = FeatureStore.open(features), Svm.load(machines)
    missing = store.missing(videos.ids)
    if missing and not allow_missing:
        raise StoreError(
            f"{len(missing)} of {len(videos)} videos have no Fisher vectors in {features} ({', '.join(missing[:5])}); encode them, or "
            "leave them out with --allow-missing"
        )
    seen = len(set(svm.train_ids) & set(videos.ids))
    table = score_videos(svm, store, videos, videos.ids, {"run": machines.parent.name, "of": f"a list, {seen} of it trained on"})
    if table is None:
        raise StoreError(f"none of the {len(videos)} videos has Fisher vectors in {features}; encode them")
    return table
