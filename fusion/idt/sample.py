"""A sample of every training video's trajectories, drawn once, whatever parts it is used in."""

import zlib
from pathlib import Path

import numpy as np

from fusion.idt.reader import read_blocks
from store.layout import Features
from store.trajectory_format import DESCRIPTORS


def draw(path: Path, video_id: str, count: int, seed: int) -> Features | None:
    """At most ``count`` trajectories of a file, each as likely as any other, in their order: a level a descriptor; None for an empty file.

    The draw depends on seed and id only. One pass, with ``count`` trajectories and a block in memory.
    """
    generator = np.random.default_rng([seed, zlib.crc32(video_id.encode())])
    rows, keys = np.zeros((0, 0), np.float32), np.zeros(0)
    columns = None
    for found, block in read_blocks(path):
        columns = found
        keys = np.concatenate([keys, generator.random(len(block))])
        rows = np.concatenate([rows, block]) if len(rows) else block
        if len(keys) > count:  # those with the smallest random keys stay
            kept = np.sort(np.argpartition(keys, count)[:count])
            keys, rows = keys[kept], rows[kept]
    if columns is None or not len(rows):
        return None
    values = {name: np.ascontiguousarray(rows[:, columns.descriptor(name)]) for name in DESCRIPTORS}
    ends = rows[:, 0].astype(np.int64).clip(0) + 1
    return Features(values, np.stack([np.zeros_like(ends), ends], 1), np.zeros((len(rows), 2)))


def per_video(sample: int, train_videos: int) -> int:
    """Trajectories to draw from each of so many videos."""
    return -(-sample // max(1, train_videos))
