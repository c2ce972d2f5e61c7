"""What is learned from features before the head: Z-normalisation and PCA, fitted on training features and saved with the run."""

from dataclasses import dataclass
from io import BytesIO

import numpy as np

from store.errors import TrainingError
from temporal.sequences import Sequences
from temporal.spec import SequenceSpec

ROWS_AT_ONCE = 16384  # rows a chunk when applying, to bound the memory
SUMMED_AT_ONCE = 1024  # rows a chunk when summing in float64, so that it stays in the cache


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
            part = _float32(rows[start : start + ROWS_AT_ONCE])
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
    needed = spec.znorm or spec.projection != "none"
    return fit_projection(training.own_rows(), spec, seed) if needed else Projection()


def fit_projection(rows: np.ndarray, spec: SequenceSpec, seed: int = 0) -> Projection:
    """Fit what ``spec`` asks for on training rows, float16 or float32 [R, D], and on nothing else.

    Z-norm comes first; a feature that is constant in training is only centred. PCA takes one float32 copy of the rows, nothing else is as
    large. Raises TrainingError where PCA cannot give ``spec.width``.
    """
    if spec.projection == "none" and not spec.znorm:
        return Projection()
    if spec.projection == "pca":
        check_width(rows.shape, spec.width)
    mean, deviation = moments(rows)
    scale = np.where(deviation > 0, deviation, np.float32(1)) if spec.znorm else None
    if spec.projection == "none":
        return Projection(mean, scale)
    components, offset = _fit_pca(_centred(rows, mean, scale), spec.width, seed)
    if spec.znorm:
        return Projection(mean, scale, components, offset)
    return Projection(components=components, offset=offset - (components.astype(np.float64) @ mean).astype(np.float32))


def moments(rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and (population) standard deviation of each feature, float32 [D]; sums in float64, of differences to the first row."""
    import torch

    shift = torch.from_numpy(np.array(rows[:1])).double()
    total, squares = torch.zeros_like(shift), torch.zeros_like(shift)
    for start in range(0, len(rows), SUMMED_AT_ONCE):
        part = torch.from_numpy(rows[start : start + SUMMED_AT_ONCE]).double() - shift
        total += part.sum(0)
        squares += part.square_().sum(0)
    mean = total / len(rows)
    variance = (squares / len(rows) - mean.square()).clamp_(min=0)
    return (mean + shift)[0].float().numpy(), variance[0].sqrt().float().numpy()


def _centred(rows: np.ndarray, mean: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    """(x - mean) / scale as a new float32 array; what is centred already loses nothing when a covariance is summed in float32."""
    result = np.empty(rows.shape, dtype=np.float32)
    for start in range(0, len(rows), ROWS_AT_ONCE):
        part = result[start : start + ROWS_AT_ONCE]
        np.subtract(_float32(rows[start : start + ROWS_AT_ONCE]), mean, out=part)
        if scale is not None:
            part /= scale
    return result


def _float32(rows: np.ndarray) -> np.ndarray:
    """torch casts float16 many times faster than numpy, to the same bits."""
    if rows.dtype == np.float32:
        return rows
    import torch

    return torch.from_numpy(np.ascontiguousarray(rows)).float().numpy()


def check_width(shape: tuple[int, ...], width: int) -> None:
    """TrainingError where PCA of training rows of ``shape`` [R, D] cannot give ``width`` components."""
    if width > min(shape):
        raise TrainingError(
            f"PCA to width {width} needs at least as many training clips and features; here are {shape[0]} clips of width {shape[1]}, so "
            f"sequence.width can be at most {min(shape)}"
        )


def _fit_pca(rows: np.ndarray, width: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Components [d, D] and offset [d] of centred rows."""
    from sklearn.decomposition import PCA

    solver = "covariance_eigh" if rows.shape[0] >= rows.shape[1] else "full"
    pca = PCA(n_components=width, svd_solver=solver, random_state=seed, copy=False).fit(rows)
    components = np.ascontiguousarray(pca.components_, dtype=np.float32)
    offset = -(pca.mean_.astype(np.float64) @ components.T.astype(np.float64))
    return components, offset.astype(np.float32)
