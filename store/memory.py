"""What the C library does with memory that is freed."""

import ctypes
import os

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # of glibc's malloc.h
KEPT_BYTES = 1 << 30  # larger than what a layer puts out; a network's passes take as much memory at their peak anyway
OLD_MOST_BYTES = 32 << 20


def keep_memory() -> None:
    """Have glibc keep the memory of one pass for the next one; nothing where there is another C library.

    It gives buffers of more than 32 MB back to the system at once, so that every pass has thousands of pages given and cleared anew:
    what it costs prints ``benchmarks/extract_kept_memory.py``. This goes for the whole process, and stays.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None) if os.name == "posix" else None
    if mallopt is not None:
        if not mallopt(M_MMAP_THRESHOLD, KEPT_BYTES):  # glibc before 2.35 takes no more than this, and the next line alone fixes it at less
            mallopt(M_MMAP_THRESHOLD, OLD_MOST_BYTES)
        mallopt(M_TRIM_THRESHOLD, KEPT_BYTES)
