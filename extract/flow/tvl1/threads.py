"""Pairs shared among threads."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor


def share(pairs: int, threads: int, work: Callable[[Iterator[int]], None]) -> None:
    """Call ``work`` in ``threads`` threads, or here if one is enough; each takes the next of 0, ..., ``pairs`` - 1 until none is left.

    An error or an interrupt ends all once they have done the pair they are at.
    """
    left = iter(range(pairs))
    threads = min(threads, pairs)
    if threads <= 1:
        work(left)
        return
    with ThreadPoolExecutor(threads) as pool:
        try:
            for worker in [pool.submit(work, left) for _ in range(threads)]:
                worker.result()
        finally:
            for _ in left:
                pass
