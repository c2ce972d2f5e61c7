"""A run on disk: every file name of it, written complete or not at all.

    <name>/spec.json            identity (settings, features, list, classes, parts), results, versions, SHA-256 of files below
           weights.safetensors  the head
           projection.npz       Z-norm and PCA of the training features
           videos.json          ids of the videos it was trained on, and of its validation part
           metrics.jsonl        one line an epoch
           curves.png           losses and accuracies over the epochs
           scores.npz           ScoreTable of the test part (raw class scores), where there is one
           validation.npz       ScoreTable of the validation part, from the head before any refit
           tensorboard/         the metrics for TensorBoard, where asked for

A cross-validation holds a run a fold in ``folds/`` and, once all are done, spec.json, curves.png and the scores.npz of all folds (a
video's validation scores differ from fold to fold, so those stay in the folds). Several seeds are runs or cross-validations
``seed-<n>/`` beside a summary.json.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

from store.digest import canonical_json, digest, from_dict
from store.errors import SpecMismatchError, StoreError
from store.files import PARTIAL_SUFFIX, safe_name, write_bytes, write_text
from store.run_files import DIGESTS, FOLDS, SPEC, check_files, digests_of, recorded_files, train_again
from store.scores import ScoreTable
from temporal.curves import curves_png
from temporal.events import EVENTS
from temporal.projection import Projection
from temporal.run_spec import misfit, not_a_run, spec_problem
from temporal.spec import RunSpec
from temporal.workplace import METRICS, WORK_FILES, Workplace, tidy

if TYPE_CHECKING:
    from torch import nn

    from temporal.epochs import Epoch

WEIGHTS = "weights.safetensors"
PROJECTION = "projection.npz"
VIDEOS = "videos.json"
CURVES = "curves.png"
SCORES = "scores.npz"
VALIDATION = "validation.npz"
SUMMARY = "summary.json"

RUN_ENTRIES = frozenset({SPEC, WEIGHTS, PROJECTION, VIDEOS, METRICS, CURVES, SCORES, VALIDATION, FOLDS, EVENTS, *WORK_FILES})
CHECKED = (WEIGHTS, PROJECTION, VIDEOS, METRICS, SCORES, VALIDATION)  # what commands read of a finished run
RECORDED_PACKAGES = ("actioncache", "torch", "numpy", "scikit-learn")


@dataclass(frozen=True)
class Run:
    """A complete run folder, opened for reading; ``digests``: SHA-256 of its files by name, None where its version recorded none."""

    path: Path
    identity: dict[str, Any]
    result: dict[str, Any]
    digests: dict[str, str] | None = None

    @classmethod
    def open(cls, path: Path) -> "Run":
        """Open ``path``; StoreError where there is no complete run."""
        file = path / SPEC
        if not file.is_file():
            raise StoreError(f"{path} is no run: it has no {SPEC}{_runs_inside(path)}")
        try:
            data = json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            raise StoreError(f"{file} is damaged ({error}); {train_again(path)}") from None
        if problem := not_a_run(data):
            raise StoreError(f"{path} is no run: {problem}")
        if problem := spec_problem(data):
            raise StoreError(f"{file} is damaged: {problem}; {train_again(path)}")
        return cls(path, data["identity"], data["result"], recorded_files(data, file))

    def check(self) -> None:
        """StoreError where a file that later commands read is missing or is not what the run wrote, of folds, too."""
        if self.digests is None:
            written = [WEIGHTS, PROJECTION, METRICS] if self.result["kind"] == "run" else []
            written += [SCORES] if self.result["videos"].get("test") else []
            if lost := [name for name in written if not (self.path / name).is_file()]:
                raise StoreError(f"the run {self.path} is incomplete: it has no {', '.join(lost)}; {train_again(self.path)}")
        else:
            check_files(self.path, self.digests)
        for fold in self.folds() if self.digests is not None or (self.path / FOLDS).is_dir() else ():
            fold.check()

    @property
    def unchecked(self) -> bool:
        """Whether it has files that nothing can be checked by."""
        return self.digests is None or any(fold.unchecked for fold in self.folds())

    def folds(self) -> "list[Run]":
        """The runs of a cross-validation."""
        names = [safe_name(fold["folder"], "folder of a fold") for fold in self.result.get("folds", {}).values()]
        return [Run.open(self.path / FOLDS / name) for name in names]

    @property
    def name(self) -> str:
        """Folder name."""
        return self.path.name

    @property
    def spec(self) -> RunSpec:
        """The resolved settings."""
        return from_dict(RunSpec, self.identity["spec"])

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names in the order of the scores."""
        return tuple(self.identity["classes"])

    @property
    def features(self) -> list[dict[str, str]]:
        """``name``, ``digest`` and ``level`` of each store it was trained on."""
        return list(self.identity["features"])

    @property
    def feature_specs(self) -> list[dict[str, Any]]:
        """The spec of each store it was trained on, from which features of other videos can be made."""
        return list(self.result["feature_specs"])

    @property
    def digest(self) -> str:
        """Digest of the identity."""
        return digest(self.identity)

    def history(self) -> "list[Epoch]":
        """One record an epoch."""
        return [json.loads(line) for line in self.read(METRICS).splitlines()]

    def has(self, name: str) -> bool:
        """Whether the run wrote a file of this name."""
        return (self.path / name).is_file() if self.digests is None else name in self.digests

    def read(self, name: str) -> str:
        """The text of a file that the run wrote."""
        self._check(name)
        return (self.path / name).read_text(encoding="utf-8")

    def scores(self) -> ScoreTable:
        """Raw class scores of the test part."""
        return self._table(SCORES, "test")

    def validation_scores(self) -> ScoreTable:
        """Raw class scores of the validation part: what weights of a fusion may be learned from."""
        return self._table(VALIDATION, "validation")

    def head(self, device: str = "cpu") -> "tuple[nn.Module, Projection]":
        """The trained head in evaluation mode and the projection before it."""
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        from temporal.heads import build_head
        from temporal.numerics import seeded

        if (self.path / FOLDS).is_dir():
            raise StoreError(f"{self.path} is a cross-validation and has no single head; its runs are in {self.path / FOLDS}")
        self._check(WEIGHTS, PROJECTION)
        with seeded(0):
            head = build_head(replace(self.spec.head, weights=""), int(self.result["input_width"]), len(self.classes))
        try:
            state = load_file(str(self.path / WEIGHTS))
            if problem := misfit(head, state):
                raise ValueError(f"the weights do not fit its head {self.spec.head.name}: {problem}")
            head.load_state_dict(state)
            projection = Projection.from_bytes((self.path / PROJECTION).read_bytes())
        except (OSError, SafetensorError, RuntimeError, ValueError, KeyError, BadZipFile) as error:
            raise StoreError(f"run {self.path} is incomplete or damaged ({error}); {train_again(self.path)}") from None
        return head.to(device).eval(), projection

    def _table(self, file: str, part: str) -> ScoreTable:
        if not self.has(file):
            raise StoreError(f"run {self.path} has no scores of a {part} part: its list had none")
        return ScoreTable.load(self.path / file)  # which looks at the digest

    def _check(self, *names: str) -> None:
        if self.digests is not None:
            check_files(self.path, self.digests, names)


def _runs_inside(path: Path) -> str:
    """What may have been meant: runs in the folder."""
    for kind in ("seed", "split"):
        if found := sorted(path.glob(f"{kind}-*")):
            return f"; it is a folder of {len(found)} {kind}s, give one of them, e.g. {found[0]}"
    if (path / FOLDS).is_dir():
        return "; it is a cross-validation that is not finished, run its command again"
    if (path / "sweep.json").is_file():
        return f"; it is a sweep, give one of its runs, which {path / 'sweep.csv'} names"
    return ""


def existing(path: Path, identity: Mapping[str, Any], force: bool) -> Run | None:
    """The complete run at ``path`` if it is the one asked for; None if it must be trained; SpecMismatchError if another is there."""
    if force or not path.exists():
        return None
    run = Run.open(path)
    if canonical_json(run.identity) != canonical_json(identity):
        raise SpecMismatchError(
            f"run {path} was made from other settings ({difference(run.identity, identity)}); choose another --name, remove that folder, "
            "or have train-head replace it with --force"
        )
    run.check()
    tidy(path)
    return run


def check_replaceable(path: Path) -> None:
    """StoreError unless ``path`` is absent, empty, or a run or cross-validation (finished or not) that holds nothing else."""
    if not path.exists():
        return
    entries = {entry.name for entry in path.iterdir() if PARTIAL_SUFFIX not in entry.name} if path.is_dir() else {path.name}
    if strange := sorted(entries - RUN_ENTRIES):
        shown = ", ".join(strange[:4]) + (", ..." if len(strange) > 4 else "")
        raise StoreError(
            f"{path} is not replaced, for it is no run or more than a run (it holds {shown}); choose another --name or remove it"
        )
    if entries and not entries & {SPEC, FOLDS}:
        raise StoreError(f"{path} is not replaced, for it is no run: it has no {SPEC}; choose another --name or remove it")


def difference(old: Mapping[str, Any], new: Mapping[str, Any], where: str = "", limit: int = 4) -> str:
    """In words, where two identities differ: ``spec.head.hidden 128, now 256``."""
    found = list(_differences(old, new, where))
    return "; ".join(found[:limit]) + (f" and {len(found) - limit} more" if len(found) > limit else "")


def _differences(old: Any, new: Any, where: str) -> Iterator[str]:
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        for key in sorted({*old, *new}):
            yield from _differences(old.get(key), new.get(key), f"{where}.{key}" if where else str(key))
    elif canonical_json(old) != canonical_json(new):
        short = [text if len(text) <= 40 else text[:37] + "..." for text in (canonical_json(old), canonical_json(new))]
        yield f"{where} {short[0]}, now {short[1]}"


def write_run(
    place: Workplace,
    identity: Mapping[str, Any],
    result: Mapping[str, Any],
    state: "Mapping[str, Any]",
    projection: Projection,
    history: "Sequence[Epoch]",
    tables: Mapping[str, ScoreTable],
    videos: Mapping[str, Sequence[str]],
    curves: bool = True,
) -> Run:
    """Complete a run in its workplace and publish it; ``state``: the head's tensors; ``tables``: file name -> scores.

    ``videos``: ids, "trained_on" and "validation", see ``temporal.seen``.
    """
    from safetensors.torch import save

    write_bytes(place.path / WEIGHTS, save({name: tensor.detach().cpu().contiguous() for name, tensor in state.items()}))
    write_bytes(place.path / PROJECTION, projection.to_bytes())
    write_text(place.path / VIDEOS, json.dumps({part: list(ids) for part, ids in videos.items()}, ensure_ascii=False) + "\n")
    write_text(place.path / METRICS, "".join(json.dumps(record) + "\n" for record in history))
    if curves:
        write_bytes(place.path / CURVES, curves_png({place.final.name: history}))
    for name, table in tables.items():
        table.save(place.path / name)
    write_text(place.path / SPEC, spec_text(place.path, identity, result))
    place.publish()
    return Run.open(place.final)


def spec_text(folder: Path, identity: Mapping[str, Any], result: Mapping[str, Any], names: Sequence[str] = CHECKED) -> str:
    """The text of spec.json, with the digests of those of ``names`` that are in ``folder`` already."""
    versions = {package: version(package) for package in RECORDED_PACKAGES if _installed(package)}
    data = {"identity": identity, "result": result, "versions": versions, DIGESTS: digests_of(folder, identity, result, names)}
    return json.dumps(data, indent=2, ensure_ascii=False) + "\n"


def _installed(package: str) -> bool:
    from importlib.metadata import PackageNotFoundError

    try:
        version(package)
    except PackageNotFoundError:  # run from a checkout
        return False
    return True
