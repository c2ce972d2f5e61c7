"""What is learned from features before the head: Z-normalisation and PCA, fitted on training features and saved with the run."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np

from store.errors import TrainingError
from temporal.sequences import Sequences
from temporal.spec import SequenceSpec

ROWS_AT_ONCE = 16384  # rows a chunk when applying, to bound the memory


@dataclass(frozen=True)
class Projection:
    """y = ((x - mean) / scale) @ components.T + offset, each part optional (None: left out); float32.

    mean, scale [D]: Z-norm; components [d, D], offset [d]: PCA.
    """

    mean: np.ndarray | None = None
    scale: np.ndarray | None = None
    components: np.ndarray | None = None
    offset: np.ndarray | None = None

    @property
    def empty(self) -> bool:
        """Whether rows stay as they are."""
        return self.mean is None and self.components is None

    def apply(self, rows: np.ndarray) -> np.ndarray:
        """Rows [R, D] -> float32 [R, d]."""
        if self.empty:
            return rows
        width = rows.shape[1] if self.components is None else len(self.components)
        result = np.empty((len(rows), width), dtype=np.float32)
        for start in range(0, len(rows), ROWS_AT_ONCE):
            part = rows[start : start + ROWS_AT_ONCE]
            if self.mean is not None and self.scale is not None:
                part = (part - self.mean) / self.scale
            if self.components is not None and self.offset is not None:
                part = part @ self.components.T + self.offset
            result[start : start + ROWS_AT_ONCE] = part
        return result

    def to_bytes(self) -> bytes:
        """As an npz file without pickled objects."""
        parts = {name: value for name, value in vars(self).items() if value is not None}
        buffer = BytesIO()
        np.savez(buffer, **parts)
        return buffer.getvalue()

    @classmethod
    def from_bytes(cls, data: bytes) -> "Projection":
        """What ``to_bytes`` wrote."""
        with np.load(BytesIO(data), allow_pickle=False) as file:
            return cls(**{name: file[name] for name in file.files})


def projection_for(training: Sequences, spec: SequenceSpec, seed: int = 0) -> Projection:
    """``fit_projection`` on the rows of ``training``, which are gathered only where there is something to fit."""
    if not spec.znorm and spec.projection == "none":
        return Projection()
    return fit_projection(training.own_rows(), spec, seed)


def fit_projection(rows: np.ndarray, spec: SequenceSpec, seed: int = 0) -> Projection:
    """Fit what ``spec`` asks for on training rows [R, D] and on nothing else.

    Z-norm comes first; a feature that is constant in training is only centred. Raises TrainingError where PCA cannot give ``spec.width``.
    """
    mean = scale = components = offset = None
    if spec.znorm:
        mean = rows.mean(axis=0, dtype=np.float64).astype(np.float32)
        deviation = rows.std(axis=0, dtype=np.float64).astype(np.float32)
        scale = np.where(deviation > 0, deviation, np.float32(1))
        rows = (rows - mean) / scale
    if spec.projection == "pca":
        components, offset = _fit_pca(rows, spec.width, seed)
    return Projection(mean, scale, components, offset)


def _fit_pca(rows: np.ndarray, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    largest = min(rows.shape)
    if width > largest:
        raise TrainingError(
            f"PCA to width {width} needs at least as many training clips and features; here are {rows.shape[0]} clips of width "
            f"{rows.shape[1]}, so sequence.width can be at most {largest}"
        )
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if rows.shape[0] >= rows.shape[1] else "full"
    pca = PCA(n_components=width, svd_solver=solver, random_state=seed).fit(rows)
    components = np.ascontiguousarray(pca.components_, dtype=np.float32)
    offset = -(pca.mean_.astype(np.float64) @ components.T.astype(np.float64))
    return components, offset.astype(np.float32)
