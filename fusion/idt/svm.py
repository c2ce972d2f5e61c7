"""Linear SVMs, one class against the rest, on the Fisher vectors of a store; fitted from the videos' products with one another."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.idt.spec import SvmSpec
from store.errors import StoreError, TrainingError
from store.features import FeatureStore
from store.files import atomic_path
from store.npz import read_npz
from store.scores import ScoreTable

FORMAT = "actioncache-svm-1"
BATCH = 256  # videos whose vectors are in memory at once; 256 of 256 Gaussians are 112 MB


@dataclass(frozen=True, eq=False)
class Svm:
    """``weights`` {level: float32 [C, D]} and ``intercepts`` float64 [C] of classes; ``store``: digest of the features' spec."""

    classes: tuple[str, ...]
    weights: dict[str, np.ndarray]
    intercepts: np.ndarray
    store: str
    train_ids: tuple[str, ...]

    def save(self, path: Path) -> None:
        """Write an ``.npz`` file, whole or not at all."""
        about = {"format": FORMAT, "classes": list(self.classes), "store": self.store, "train_ids": list(self.train_ids)}
        arrays = {f"weights.{level}": weights for level, weights in self.weights.items()}
        with atomic_path(path) as aside, aside.open("wb") as file:
            np.savez(file, allow_pickle=False, about=np.array(json.dumps(about)), intercepts=self.intercepts, **arrays)

    @classmethod
    def load(cls, path: Path) -> "Svm":
        """Read what ``save`` wrote; ``StoreError`` for anything else."""
        arrays = read_npz(path, StoreError)
        try:
            about = json.loads(str(arrays.pop("about")))
            if about["format"] != FORMAT:
                raise ValueError(f"its format is {about['format']!r}")
            intercepts = arrays.pop("intercepts")
            weights = {name.removeprefix("weights."): array for name, array in arrays.items()}
            classes = tuple(map(str, about["classes"]))
            if intercepts.shape != (len(classes),) or any(array.ndim != 2 or len(array) != len(classes) for array in weights.values()):
                raise ValueError("its shapes do not fit its classes")
            return cls(classes, weights, intercepts, str(about["store"]), tuple(map(str, about["train_ids"])))
        except (KeyError, ValueError, TypeError, RecursionError) as error:
            raise StoreError(f"{path} holds no SVMs ({error}); train them again") from None

    def score(self, store: FeatureStore, ids: Sequence[str], labels: np.ndarray | None, source: dict[str, object]) -> ScoreTable:
        """Decision values w_c . x + b_c of videos of the store that the SVMs were trained on; ``StoreError`` for another store."""
        if store.digest != self.store:
            raise StoreError(
                f"{store.path} holds features of another codebook or other settings (digest {store.digest[:12]}) than the SVMs were "
                f"trained on ({self.store[:12]}); give the store of `idt train`"
            )
        values = np.tile(self.intercepts, (len(ids), 1))
        for level, weights in self.weights.items():
            for rows, vectors in batches(store, ids, level):
                values[rows] += vectors @ weights.T
        return ScoreTable(tuple(ids), self.classes, values, "decision_values", labels, source)


def batches(store: FeatureStore, ids: Sequence[str], level: str) -> Iterator[tuple[slice, np.ndarray]]:
    """Vectors float32 [n, D] of one level, some videos at a time, and which of ``ids`` they are."""
    for start in range(0, len(ids), BATCH):
        rows = slice(start, min(start + BATCH, len(ids)))
        yield rows, store.read_rows(ids[rows], level, dtype="float32").values


def gram(store: FeatureStore, ids: Sequence[str], levels: Sequence[str]) -> np.ndarray:
    """Products of all pairs of videos, summed over the levels: float64 [n, n]; the vectors of two batches are in memory at once."""
    products = np.zeros((len(ids), len(ids)))
    for level in levels:
        for rows, vectors in batches(store, ids, level):
            for columns, others in batches(store, ids[: rows.stop], level):
                products[rows, columns] += vectors @ others.T
    for start in range(0, len(ids), BATCH):  # block by block: the positions of all pairs would be as large as the products
        rows = slice(start, start + BATCH)
        products[: rows.start, rows] = products[rows, : rows.start].T
        within = products[rows, rows]
        products[rows, rows] = np.tril(within) + np.tril(within, -1).T
    return products


def fit_class(products: np.ndarray, positive: np.ndarray, c: float) -> tuple[np.ndarray, float]:
    """One class against the rest: coefficients float64 [n] of the training videos (w = sum of a_i x_i) and the intercept."""
    from sklearn.svm import SVC

    machine = SVC(C=c, kernel="precomputed").fit(products, positive.astype(np.int64))
    coefficients = np.zeros(len(products))
    coefficients[machine.support_] = machine.dual_coef_[0]
    return coefficients, float(machine.intercept_[0])


def combine(store: FeatureStore, ids: Sequence[str], levels: Sequence[str], coefficients: np.ndarray) -> dict[str, np.ndarray]:
    """Weights float32 [C, D] of each level from coefficients [C, n] of the training videos."""
    weights = {}
    for level in levels:
        total: np.ndarray | float = 0.0
        for rows, vectors in batches(store, ids, level):
            total = total + coefficients[:, rows] @ vectors
        weights[level] = np.asarray(total, np.float32)
    return weights


def check_classes(labels: np.ndarray, classes: Sequence[str], part: str) -> None:
    """Raise ``TrainingError`` for a class that no training video shows, or where there is only one class."""
    absent = [name for position, name in enumerate(classes) if not (labels == position).any()]
    if absent:
        raise TrainingError(f"{part}: no training video is of {', '.join(absent[:5])}; every class needs one, or must leave the list")
    if len(classes) < 2:
        raise TrainingError(f"{part}: all videos are of one class, {classes[0]!r}; a classifier needs two")


def chosen_levels(store: FeatureStore, spec: SvmSpec) -> tuple[str, ...]:
    """The descriptors that are used; ``TrainingError`` for ones that the store lacks."""
    levels = spec.descriptors or store.levels
    if lacking := [name for name in levels if name not in store.levels]:
        raise TrainingError(f"{store.path} has no {', '.join(lacking)}; it holds {', '.join(store.levels)}")
    return tuple(levels)
