"""Batches of padded samples, gathered by index from features in memory or on the device, or read from a store a batch ahead."""

import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np

from temporal.maps import MapRows
from temporal.projection import Projection
from temporal.sampling import sample_lengths, step_rows
from temporal.sequences import Sequences
from temporal.spec import SequenceSpec

if TYPE_CHECKING:
    import torch

MAPS_AT_ONCE = 128 << 20  # bytes of maps (float32) in a batch that is only scored; two such are in memory


@dataclass(frozen=True)
class Batch:
    """Padded samples: x [B, T, D] (or maps [B, T, C, H, W]) float32 with 0 at and after each length, lengths [B].

    ``labels`` int64 [B] (-1: none) and ``ids``: of each sample's video.
    """

    x: "torch.Tensor"
    lengths: "torch.Tensor"
    labels: "torch.Tensor"
    ids: tuple[str, ...]


class Samples(Protocol):
    """A part of a list as S samples of V videos on one device; ``PaddedSequences`` and ``StoredSequences`` are such.

    A batch of ``in_order`` or ``batches`` lasts until the next is asked for, which may take its memory; one of ``batch`` is its own.
    ``ids`` [V]; ``owners`` int64 [S], the position of each sample's video, ascending; ``video_labels`` int64 [V].
    """

    ids: tuple[str, ...]
    owners: np.ndarray
    video_labels: np.ndarray

    def __len__(self) -> int:
        """S."""

    @property
    def width(self) -> int:
        """Feature width D, or channels C of maps."""

    @property
    def device(self) -> "torch.device":
        """Where batches are."""

    def batch(self, chosen: np.ndarray) -> Batch:
        """The samples at positions ``chosen`` int64 [B], padded to the longest of them."""

    def in_order(self, order: np.ndarray, size: int) -> Iterator[Batch]:
        """The samples at positions ``order``, ``size`` at a time."""

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most ``size`` at a time."""


def padded(sequences: Sequences, projection: Projection, spec: SequenceSpec, device: str) -> Samples:
    """Project and sample a whole part onto the device; what is neither projected nor moved is shared, and maps stay on the disk."""
    if isinstance(sequences.rows, MapRows):
        return StoredSequences(sequences, spec, device)
    if projection.empty and device == "cpu":
        return PaddedSequences(sequences, sequences.rows, spec, device)
    from temporal.size import check_rows

    compact = sequences.compact()
    rows = projection.apply(compact.held_rows())
    check_rows(rows.nbytes, device)
    return PaddedSequences(compact, rows, spec, device)


class _Indexed:
    """What both kinds have: where each sample's rows are.

    Which of them its steps take is computed a batch at a time: for all samples, padded to the longest, it could be more than the features.
    """

    def __init__(self, sequences: Sequences, spec: SequenceSpec, device: str) -> None:
        import torch

        self.ids = sequences.ids
        self.owners = sequences.owners
        self.video_labels = np.array(sequences.labels)
        self.spec, self.starts, self.counts = spec, sequences.starts, sequences.counts
        host_lengths = sample_lengths(self.counts, spec)
        self.longest = int(host_lengths.max())
        self.ragged = bool((host_lengths < self.longest).any())
        self.lengths = torch.from_numpy(host_lengths).to(device)
        self.labels = torch.from_numpy(self.video_labels[self.owners]).to(device)

    def __len__(self) -> int:
        return len(self.owners)

    @property
    def device(self) -> "torch.device":
        """Where batches are."""
        return self.labels.device

    def rows_of(self, chosen: np.ndarray) -> np.ndarray:
        """The row of every step of a batch, int64 [B, T]."""
        return step_rows(self.starts[chosen], self.counts[chosen], self.spec)[0]

    def finish(self, x: "torch.Tensor", chosen: np.ndarray) -> Batch:
        """Features [B, T, ...] of the steps, as stored, to a batch."""
        import torch

        at = torch.from_numpy(chosen).to(self.device)
        lengths = self.lengths[at]
        x = x.float()
        if self.ragged:
            after = torch.arange(x.shape[1], device=self.device) >= lengths[:, None]
            x = x.masked_fill_(after.view(*after.shape, *(1,) * (x.ndim - 2)), 0)
        return Batch(x, lengths, self.labels[at], tuple(self.ids[owner] for owner in self.owners[chosen]))


class PaddedSequences(_Indexed):
    """A whole part on one device: the rows once, in their own type, and for each sample the rows of its steps."""

    def __init__(self, sequences: Sequences, rows: np.ndarray, spec: SequenceSpec, device: str = "cpu") -> None:
        """``rows`` float16 or float32 [R, d]: the rows of ``sequences`` after projection; on a CPU they are shared, not copied."""
        import torch

        super().__init__(sequences, spec, device)
        with warnings.catch_warnings():  # rows that other processes share are mapped read-only, and nothing here writes to them
            warnings.filterwarnings("ignore", "The given NumPy array is not writable")
            self.rows = torch.from_numpy(rows).to(device)
        self._rooms: dict[torch.dtype, torch.Tensor] = {}

    @property
    def width(self) -> int:
        """Feature width D."""
        return int(self.rows.shape[1])

    def batch(self, chosen: np.ndarray) -> Batch:
        """The samples at positions ``chosen`` int64 [B], padded to the longest of them."""
        index = self._rows_of(chosen)
        return self.finish(self.rows.index_select(0, index.flatten()).view(*index.shape, -1), chosen)

    def in_order(self, order: np.ndarray, size: int) -> Iterator[Batch]:
        """The samples at positions ``order``, ``size`` at a time."""
        for start in range(0, len(order), size):
            chosen = order[start : start + size]
            yield self._again(chosen) if self.device.type == "cpu" else self.batch(chosen)

    def _rows_of(self, chosen: np.ndarray) -> "torch.Tensor":
        import torch

        return torch.from_numpy(self.rows_of(chosen)).to(self.device)

    def _again(self, chosen: np.ndarray) -> Batch:
        """``batch`` in the memory of the one before: fresh pages for each would take longer than gathering and casting."""
        import torch

        index = self._rows_of(chosen)
        stored = torch.index_select(self.rows, 0, index.flatten(), out=self._room(self.rows.dtype, index.numel()))
        x = stored if stored.dtype == torch.float32 else self._room(torch.float32, index.numel()).copy_(stored)
        return self.finish(x.view(*index.shape, -1), chosen)

    def _room(self, dtype: "torch.dtype", rows: int) -> "torch.Tensor":
        """Memory for so many rows; that of the batch before where it is large enough."""
        import torch

        if dtype not in self._rooms or len(self._rooms[dtype]) < rows:
            with torch.inference_mode(False):  # what is made inside could not be trained on later
                self._rooms[dtype] = torch.empty(rows, self.width, dtype=dtype, device=self.device)
        return self._rooms[dtype][:rows]

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, ``size`` at a time."""
        return self.in_order(np.arange(len(self)), size)


class VectorSamples:
    """The samples of another part as one vector each: what a head makes of their steps before any weight, made once for all epochs."""

    def __init__(self, of: Samples, x: "torch.Tensor") -> None:
        """``x`` float32 [S, D]; batches have x [B, D]."""
        import torch

        self.x = x
        self.ids, self.owners, self.video_labels = of.ids, of.owners, of.video_labels
        self.labels = torch.from_numpy(of.video_labels[of.owners]).to(x.device)
        self.lengths = torch.ones_like(self.labels)

    def __len__(self) -> int:
        return len(self.x)

    @property
    def width(self) -> int:
        """D."""
        return int(self.x.shape[1])

    @property
    def device(self) -> "torch.device":
        """Where batches are."""
        return self.x.device

    def batch(self, chosen: np.ndarray) -> Batch:
        """The samples at positions ``chosen`` int64 [B]."""
        import torch

        at = torch.from_numpy(chosen).to(self.device)
        return Batch(self.x[at], self.lengths[at], self.labels[at], tuple(self.ids[owner] for owner in self.owners[chosen]))

    def in_order(self, order: np.ndarray, size: int) -> Iterator[Batch]:
        """The samples at positions ``order``, ``size`` at a time."""
        return (self.batch(order[start : start + size]) for start in range(0, len(order), size))

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, ``size`` at a time."""
        return self.in_order(np.arange(len(self)), size)


class StoredSequences(_Indexed):
    """A part whose features (maps) stay on the disk: a batch is read from the store while the one before it is worked on."""

    def __init__(self, sequences: Sequences, spec: SequenceSpec, device: str = "cpu") -> None:
        super().__init__(sequences, spec, device)
        assert isinstance(sequences.rows, MapRows), "vectors are held in memory"
        self.maps = sequences.rows

    @property
    def width(self) -> int:
        """Channels C."""
        return self.maps.shape[1]

    def batch(self, chosen: np.ndarray) -> Batch:
        """The samples at positions ``chosen`` int64 [B], padded to the longest of them."""
        return self._on_device(self._read(chosen), chosen)

    def in_order(self, order: np.ndarray, size: int) -> Iterator[Batch]:
        """The samples at positions ``order``, ``size`` at a time."""
        parts = [order[start : start + size] for start in range(0, len(order), size)]
        with ThreadPoolExecutor(1) as ahead:
            waiting = ahead.submit(self._read, parts[0]) if parts else None
            for number, part in enumerate(parts, start=1):
                assert waiting is not None, "a part for every reading"
                read = waiting.result()
                waiting = ahead.submit(self._read, parts[number]) if number < len(parts) else None
                yield self._on_device(read, part)

    def batches(self, size: int) -> Iterator[Batch]:
        """All samples in order, at most ``size`` at a time, fewer where maps are large."""
        of_one = 4 * int(np.prod(self.maps.shape[1:])) * self.longest
        return self.in_order(np.arange(len(self)), max(1, min(size, MAPS_AT_ONCE // of_one)))

    def _read(self, chosen: np.ndarray) -> np.ndarray:
        """Maps of the steps as stored, [B, T, C, H, W]."""
        index = self.rows_of(chosen)
        return self.maps.take(index.ravel()).reshape(*index.shape, *self.maps.shape[1:])

    def _on_device(self, read: np.ndarray, chosen: np.ndarray) -> Batch:
        import torch

        return self.finish(torch.from_numpy(read).to(self.device), chosen)
