"""Memory that two processes share to hand blocks of frames over: without a name, so nothing is left behind when either is killed.

A file of ``memfd_create`` belongs to no folder, so the size of a container's ``/dev/shm`` does not bound it, and its pages are used only
once they are written.
"""

import mmap
import os
from collections.abc import Sequence
from multiprocessing import reduction
from typing import Any

import numpy as np

SLOTS = 3  # of one worker: one being read, one waiting, one being filled
SLOT_BYTES = 32 << 20  # a block of 8 MB and one frame of 4K


class Slots:
    """``SLOTS`` pieces of ``SLOT_BYTES``; picklable to a process that is being started, which then shares them."""

    def __init__(self, fd: int) -> None:
        """Use ``new``."""
        self._fd = fd
        self._memory = mmap.mmap(fd, SLOTS * SLOT_BYTES)

    @classmethod
    def new(cls) -> "Slots | None":
        """Fresh slots; None where the system has no such memory, or grants none; everything then goes through the pipe.

        Only Linux has it, a sandbox may forbid it, and a limit of file sizes (``ulimit -f``) counts it as a file.
        """
        if not hasattr(os, "memfd_create"):
            return None
        try:
            fd = os.memfd_create("actioncache-frames")
        except OSError:
            return None
        try:
            os.ftruncate(fd, SLOTS * SLOT_BYTES)
        except OSError:
            os.close(fd)
            return None
        try:
            return cls(fd)
        except OSError:  # no address space left (ulimit -v); what was begun closes its file
            return None

    def view(self, slot: int, shape: Sequence[int]) -> np.ndarray:
        """The first bytes of a slot as a uint8 array of ``shape``, shared, not copied."""
        count = int(np.prod(shape))
        return np.frombuffer(self._memory, np.uint8, count, slot * SLOT_BYTES).reshape(shape)

    def __reduce__(self) -> tuple[Any, ...]:
        return _received, (reduction.DupFd(self._fd),)

    def __del__(self) -> None:
        os.close(self._fd)  # the mapping lives on while a view needs it


def _received(handle: Any) -> Slots:
    return Slots(handle.detach())
