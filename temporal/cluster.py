"""Where settings are trained: processes of this machine or the workers of a Dask cluster, through joblib, or those of a Ray cluster.

Ray is used directly: joblib's backend for it gives no result before all are there, wants all workers at once, and hides GPUs. No torch.
"""

import contextlib
import logging
import signal
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal, get_args

from store.errors import SpecError

Backend = Literal["loky", "dask", "ray"]
BACKENDS: tuple[str, ...] = get_args(Backend)
RAY_TASKS = 1000  # given to Ray at once: each takes its list of videos along
STOP_SECONDS = 60  # that trainings on Ray may take to save their state once they are to stop
WORKERS_SECONDS = 120  # that a Dask cluster may take until its first worker is there: a batch job starts both at once, from a slow disk


@contextlib.contextmanager
def cluster(backend: Literal["loky", "dask"], scheduler: str) -> Iterator[None]:
    """joblib uses ``backend`` inside; SpecError where its package or its scheduler is not there."""
    from joblib import parallel_config

    if backend == "loky":
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    with _connect_dask(scheduler) as client:
        _wait_for_workers(client, scheduler)
        with parallel_config(backend="dask"):
            yield


def in_ray(
    address: str, jobs: int, gpus: int, function: Callable[..., Any], calls: Sequence[tuple[Any, ...]], stopped: Callable[[], bool]
) -> Iterator[tuple[int, Any, str]]:
    """Call ``function`` on a Ray cluster, at most ``jobs`` at once, each on one processor and ``gpus``; no ``address``: this machine.

    Yields (position in ``calls``, result, "") as they end, or (position, None, why) of a call whose worker was lost. Once ``stopped()``,
    which calls under way must see for themselves, nothing is begun, and calls that no worker has taken after a while are left.
    """
    with _connect_ray(address):
        import ray

        if gpus and not ray.cluster_resources().get("GPU"):
            raise SpecError("the Ray cluster has no GPU; add a node that has one, or use --device cpu")
        task = ray.remote(num_cpus=1, num_gpus=gpus, max_retries=1)(function)
        waiting = deque(enumerate(calls))
        under_way: dict[Any, int] = {}
        silent = 0
        while (waiting or under_way) and silent < STOP_SECONDS:
            if stopped():
                waiting.clear()
            while waiting and len(under_way) < min(jobs, RAY_TASKS):
                position, arguments = waiting.popleft()
                under_way[task.remote(*arguments)] = position
            if not under_way:
                return
            done, _ = ray.wait(list(under_way), num_returns=1, timeout=1)
            silent = 0 if done or not stopped() else silent + 1
            if not done:
                continue
            (ended,) = done
            position = under_way.pop(ended)
            try:
                result = ray.get(ended)
            except ray.exceptions.RayTaskError as error:  # also where a worker has not this package
                raise SpecError(f"a worker of the Ray cluster cannot train: {str(error).strip().splitlines()[-1]}") from None
            except ray.exceptions.RayError as error:
                yield position, None, f"{type(error).__name__}: {str(error).strip().splitlines()[0]}"
            else:
                yield position, result, ""


def _wait_for_workers(client: Any, address: str) -> None:
    try:
        client.wait_for_workers(1, timeout=WORKERS_SECONDS)
    except TimeoutError:
        raise SpecError(
            f"the Dask scheduler at {address} has had no worker for {WORKERS_SECONDS} seconds; start some with "
            f"`dask worker {address} --nthreads 1`, which say why where they cannot reach it"
        ) from None


def _connect_dask(address: str) -> Any:
    try:
        from dask.distributed import Client
    except ImportError:
        raise SpecError("backend dask needs the package distributed; install it with: pip install 'actioncache[dask]'") from None
    if not address:
        raise SpecError("backend dask needs the address of a scheduler: --scheduler tcp://HOST:8786 (started with `dask scheduler`)")
    try:
        return Client(address, timeout="20s", set_as_default=True)
    except (OSError, ValueError, TimeoutError) as error:
        raise SpecError(f"no Dask scheduler answers at {address}: {error}; start one with `dask scheduler` and workers with it") from None


def _connect_ray(address: str) -> Any:
    try:
        import ray
    except ImportError:
        raise SpecError("backend ray needs the package ray; install it with: pip install 'actioncache[ray]'") from None
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    try:
        _answers(address)
        connection = ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
        for number, handler in handlers.items():  # Ray's own would end the process at SIGTERM, with the trainings' state unsaved
            if callable(handler) and threading.current_thread() is threading.main_thread():
                signal.signal(number, handler)
        return connection
    except (OSError, ValueError, RuntimeError) as error:
        raise SpecError(f"no Ray cluster answers at {address or 'this machine'}: {error}; start one with `ray start --head`") from None


def _answers(address: str) -> None:
    """``OSError`` where nothing listens at HOST:PORT; Ray itself tries for many minutes."""
    host, _, port = address.rpartition("://")[2].rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=20).close()
