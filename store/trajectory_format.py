"""Trajectory files, which stage one writes and fusion reads: the columns of a row, and which file belongs to a video.

The columns are those that the programs of Wang et al. print: ``improved`` (2013, 436 columns) and ``dense`` (2011, 433), the same but for
three columns of position that only the former has. Text, one trajectory a line, fields apart by tabs or spaces, plain or gzip; or ``.npy``,
float32 [n, 436] or [n, 433], which holds the same numbers in less room and is read many times as fast.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from types import MappingProxyType

from store.errors import ListError
from store.exchange.naming import path_problem
from store.list_folders import VIDEO_SUFFIXES

LENGTH = 15  # steps of a trajectory
DESCRIPTORS: Mapping[str, int] = MappingProxyType({"trajectory": 2 * LENGTH, "hog": 96, "hof": 108, "mbhx": 96, "mbhy": 96})
"""Width of each descriptor, in the order of the columns: HOG and MBH have 8 bins, HOF has 9, each in 2 x 2 x 3 cells."""
HEADER = ("frame", "mean_x", "mean_y", "deviation_x", "deviation_y", "length", "scale", "x_pos", "y_pos", "t_pos")
"""Last frame (from 0); mean and standard deviation of the points and length of the path in pixels of the video, scale; mean position and
middle frame as shares of width, height and number of frames. The last three are in improved files only."""
DENSE_HEADER = 7
SUFFIXES = (".npy", ".txt.gz", ".txt", ".gz")
TEXT_SUFFIXES = SUFFIXES[1:]


@dataclass(frozen=True)
class Columns:
    """Where things are in a row: ``count`` columns in all, ``header`` before the descriptors."""

    name: str
    header: int

    @property
    def count(self) -> int:
        """Columns of a row."""
        return self.header + sum(DESCRIPTORS.values())

    def descriptor(self, name: str) -> slice:
        """The columns of one of ``DESCRIPTORS``."""
        names = list(DESCRIPTORS)
        first = self.header + sum(DESCRIPTORS[before] for before in names[: names.index(name)])
        return slice(first, first + DESCRIPTORS[name])


IMPROVED, DENSE = Columns("improved", len(HEADER)), Columns("dense", DENSE_HEADER)
BY_COUNT: Mapping[int, Columns] = MappingProxyType({columns.count: columns for columns in (IMPROVED, DENSE)})


def trajectory_path(root: Path, video_id: str, suffix: str) -> Path:
    """Where a video's trajectories are written, its whole id and ``suffix`` below ``root``; ``ListError`` for an id that is no path."""
    if problem := path_problem(video_id):
        raise ListError(f"video id {video_id[:80]!r} {problem}, so no trajectory file can belong to it; change the id")
    return root / f"{video_id}{suffix}"


def candidates(root: Path, video_id: str) -> list[Path]:
    """Files that may hold the trajectories of a video: its id, or its id without a video's suffix, and one of ``SUFFIXES``."""
    path = PurePosixPath(video_id)
    names = [video_id] + ([str(path.with_suffix(""))] if path.suffix.lower() in VIDEO_SUFFIXES else [])
    return [trajectory_path(root, name, suffix) for name in names for suffix in SUFFIXES]
