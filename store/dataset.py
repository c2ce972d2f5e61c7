"""A ``torch.utils.data.Dataset`` over a feature store, for training loops of one's own."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch.utils.data import Dataset

from store.bulk import RowReader
from store.bulk_copy import cast
from store.errors import FeatureError

if TYPE_CHECKING:
    from store.features import FeatureStore

Item = tuple[torch.Tensor, int, int]  # features, label, position in the list
Batch = tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]


class FeatureDataset(Dataset[Item]):
    """One level of a list of videos; item n is (features [N, ...] of the n-th video, its label, n).

    Reads straight from the mapped shards, so nothing is loaded before it is needed, and any number of ``DataLoader`` workers (fork or
    spawn) share one copy in the page cache. Where a whole split fits in memory, ``FeatureStore.read_rows`` once is faster still.
    """

    def __init__(
        self,
        store: "FeatureStore",
        ids: Sequence[str],
        labels: Sequence[int] | None = None,
        level: str | None = None,
        dtype: str = "float32",
        check: bool = True,
    ) -> None:
        """``labels`` int, one an id (default: -1 everywhere); ``dtype`` "float16" or "float32" of the features; ``check``: their digests.

        Raises ``MissingFeaturesError`` for videos that the store lacks, ``FeatureError`` for labels or a type that do not fit.
        """
        if labels is not None and len(labels) != len(ids):
            raise FeatureError(f"{len(ids)} ids but {len(labels)} labels")
        numbers = np.full(len(ids), -1) if labels is None else np.asarray(labels)
        if numbers.ndim != 1 or (numbers.size and numbers.dtype.kind not in "iu"):
            raise FeatureError(f"labels are {numbers.dtype} {list(numbers.shape)}; they must be whole numbers, one a video")
        if dtype not in ("float16", "float32"):
            raise FeatureError(f"features cannot be read as {dtype}; choose float16 or float32")
        self.reader = RowReader(store, ids, level)
        self.labels = numbers.astype(np.int64)
        self.dtype, self.check = dtype, check

    def __len__(self) -> int:
        return len(self.reader)

    def id(self, number: int) -> str:
        """Id of the video at a position."""
        return self.reader.id(number)

    def __getitem__(self, number: int) -> Item:
        if not 0 <= number < len(self):
            raise IndexError(f"video {number} of {len(self)}")
        rows = self.reader.one(number, self.check)
        if rows.dtype != self.dtype:
            rows, found = np.empty(rows.shape, self.dtype), rows
            cast(found, rows)
        return torch.from_numpy(rows), int(self.labels[number]), number

    def __getitems__(self, numbers: Sequence[int]) -> list[Item]:
        """Many items by one read; ``DataLoader`` uses it."""
        rows = self.reader.read(numbers, dtype=self.dtype, check=self.check, threads=1)  # a worker is one of many already
        values = rows.tensor()
        spans = zip(rows.starts.tolist(), rows.counts.tolist(), numbers, strict=True)
        return [(values[start : start + count], int(self.labels[number]), int(number)) for start, count, number in spans]


def pad(items: Sequence[Item]) -> Batch:
    """``collate_fn``: (x [B, T, ...] with zeros at and after each length, lengths [B], labels [B], positions [B]), the latter int64."""
    lengths = torch.tensor([len(features) for features, _, _ in items])
    x = torch.nn.utils.rnn.pad_sequence([features for features, _, _ in items], batch_first=True)
    return x, lengths, torch.tensor([label for _, label, _ in items]), torch.tensor([number for _, _, number in items])
