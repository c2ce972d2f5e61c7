"""Many independent pieces of work over processes, by joblib; they end when they are asked to."""

import os
import signal
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import Any, TypeVar

from store.errors import PipelineError

T = TypeVar("T")


def job_count(asked: int, pieces: int) -> int:
    """Processes to start: one a processor for 0, never more than pieces."""
    processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, min(asked or processors, pieces))


def in_parallel(
    work: Callable[..., T], pieces: Sequence[tuple[Any, ...]], jobs: int, stopped: Callable[[], bool] = lambda: False
) -> Iterator[T]:
    """Yield ``work(*piece)`` of every piece as it is done, in any order; ends early once ``stopped()`` is true.

    ``jobs`` processes with the processors divided among them, 0 for one a processor; one piece, or one job, is done in this process.
    """
    jobs = job_count(jobs, len(pieces))
    if jobs == 1:
        for piece in pieces:
            if stopped():
                return
            yield work(*piece)
        return
    from joblib import Parallel, delayed
    from joblib.externals.loky.process_executor import TerminatedWorkerError

    results = Parallel(n_jobs=jobs, return_as="generator_unordered")(delayed(_undisturbed)(work, piece) for piece in pieces)
    try:
        with warnings.catch_warnings(), closing(results):
            warnings.filterwarnings("ignore", message=".*have been cancelled", category=UserWarning)  # that is what stopping means
            for result in results:
                yield result
                if stopped():
                    return
    except TerminatedWorkerError as error:
        raise PipelineError(f"a worker process died (often: out of memory; then use fewer --jobs): {str(error)[:200]}") from None


def _undisturbed(work: Callable[..., T], piece: tuple[Any, ...]) -> T:
    """Ctrl-C reaches the whole group; the main process decides what happens."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    return work(*piece)
