"""Codebooks: PCA and Gaussian mixture of each descriptor, fitted to a sample of the training videos' trajectories, and their file."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.idt.fisher import SMALLEST_WEIGHT, Mixture, rootsift
from fusion.idt.mixture import fit_gaussians
from fusion.idt.spec import FisherSpec
from store.errors import StoreError, TrainingError
from store.files import atomic_path, safe_name, write_text
from store.npz import read_npz
from store.trajectory_format import Columns

FORMAT = "actioncache-codebook-1"
ABOUT = "codebook.json"
PARTS = ("centre", "axes", "weights", "means", "variances")


@dataclass(frozen=True, eq=False)
class Codebook:
    """A mixture for each descriptor, and the ids of the videos that they were fitted to."""

    mixtures: Mapping[str, Mixture]
    train_ids: tuple[str, ...]

    def digest(self) -> str:
        """SHA-256 of every number, by descriptor: what two equal codebooks have in common."""
        state = hashlib.sha256()
        for name, mixture in sorted(self.mixtures.items()):
            for part in PARTS:
                array = np.ascontiguousarray(getattr(mixture, part), "<f8")
                state.update(f"{name} {part} {array.shape}".encode() + array.tobytes())
        return state.hexdigest()

    @classmethod
    def load(cls, folder: Path) -> "Codebook":
        """Read the mixtures of a codebook's folder, see ``save_mixture`` and ``save_about``; ``StoreError`` for anything else."""
        try:
            about = json.loads((folder / ABOUT).read_text(encoding="utf-8"))
            if about["format"] != FORMAT:
                raise ValueError(f"format {about['format']!r}")
            mixtures = {str(name): load_mixture(folder / f"{safe_name(name)}.npz") for name in about["descriptors"]}
            return cls(mixtures, tuple(map(str, about["train_ids"])))
        except (OSError, KeyError, ValueError, TypeError, RecursionError) as error:
            raise StoreError(f"{folder} is no codebook ({error}); remove it and encode again") from None


def save_about(folder: Path, descriptors: Sequence[str], train_ids: Sequence[str]) -> None:
    """Write last what makes a folder of mixtures a codebook."""
    about = {"format": FORMAT, "descriptors": list(descriptors), "train_ids": list(train_ids)}
    write_text(folder / ABOUT, json.dumps(about, ensure_ascii=False) + "\n")


def save_mixture(path: Path, mixture: Mixture) -> None:
    """Write an ``.npz`` file, whole or not at all."""
    with atomic_path(path) as aside, aside.open("wb") as file:
        np.savez(file, allow_pickle=False, **{part: getattr(mixture, part) for part in PARTS})


def load_mixture(path: Path) -> Mixture:
    """Read what ``save_mixture`` wrote; ``StoreError`` for anything else."""
    arrays = read_npz(path, StoreError)
    shapes = {part: arrays[part].shape for part in PARTS if part in arrays and arrays[part].dtype == np.float64}
    try:
        (count, width), (_, depth) = shapes["means"], shapes["axes"]
    except (KeyError, ValueError):
        raise StoreError(f"{path} is no mixture of a codebook: it holds {shapes}; remove it and encode again") from None
    if shapes != {"centre": (depth,), "axes": (width, depth), "weights": (count,), "means": (count, width), "variances": (count, width)}:
        raise StoreError(f"{path} is no mixture of a codebook: its shapes {shapes} do not fit; remove it and encode again")
    return Mixture(*(arrays[part] for part in PARTS))


def descriptor(rows: np.ndarray, columns: Columns, name: str, norm: str) -> np.ndarray:
    """One descriptor of trajectories: float32 [n, D], a view unless ``norm`` changes it."""
    values = rows[:, columns.descriptor(name)]
    return rootsift(values) if norm == "rootsift" and name != "trajectory" else values  # a trajectory's steps have signs


def fit_mixture(sample: np.ndarray, name: str, spec: FisherSpec) -> Mixture:
    """PCA and mixture of one descriptor's sample, float32 [n, D]; ``TrainingError`` for too few trajectories."""
    from sklearn.decomposition import PCA

    if len(sample) < 2 * spec.components:
        raise TrainingError(
            f"the training videos gave {len(sample)} trajectories for {spec.components} Gaussians of {name}, and at least twice as many "
            "are needed; use fewer --components, a larger --sample or more videos"
        )
    width = sample.shape[1]
    if spec.pca:
        kept = max(1, int(width * spec.pca))
        pca = PCA(kept, svd_solver="covariance_eigh").fit(sample.astype(np.float64))
        centre, axes = pca.mean_, pca.components_
    else:
        centre, axes = sample.mean(0, dtype=np.float64), np.eye(width)
    projected = ((sample - centre.astype(np.float32)) @ axes.T.astype(np.float32)).astype(np.float32)
    floor = spec.floor * float(projected.var(0, dtype=np.float64).mean())
    found = fit_gaussians(projected, spec, max(floor, 1e-12))
    weights = np.maximum(found.weights, SMALLEST_WEIGHT)
    return Mixture(np.asarray(centre, np.float64), np.asarray(axes, np.float64), weights, found.means, found.variances)
