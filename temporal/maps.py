"""Feature maps that stay in their store: too large for memory (a split of UCF-101 at 14 x 14 x 1024 is some 70 GB), read row by row."""

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from store.bulk import RowReader


class MapRows:
    """The maps of a list of videos as if they were one array [R, C, H, W], a video's rows after those of the video before it.

    A video's digest is checked when its first row is read; a flipped bit is then an error that names the video.
    """

    def __init__(self, reader: "RowReader") -> None:
        self.reader = reader
        self.ends = np.cumsum(reader.counts)
        self.checked = np.zeros(len(self.ends), dtype=bool)
        self.shape = (int(self.ends[-1]), *reader.level.row_shape)
        self.dtype = np.dtype(reader.level.storage)

    def __len__(self) -> int:
        return self.shape[0]

    def take(self, rows: np.ndarray) -> np.ndarray:
        """The maps at positions ``rows`` int64 [n], as stored, [n, C, H, W]."""
        videos = np.searchsorted(self.ends, rows, side="right")
        values = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for video in np.unique(videos).tolist():
            at = np.flatnonzero(videos == video)
            first = int(self.ends[video]) - int(self.reader.counts[video])
            values[at] = self.reader.one(video, check=not self.checked[video], rows=rows[at] - first)
            self.checked[video] = True
        return values
