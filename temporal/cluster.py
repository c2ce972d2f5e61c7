"""Where settings are trained: processes of this machine, or the workers of a Dask or Ray cluster, all through joblib. No torch."""

import contextlib
import logging
from collections.abc import Iterator
from typing import Any, Literal, get_args

from store.errors import SpecError

Backend = Literal["loky", "dask", "ray"]
BACKENDS: tuple[str, ...] = get_args(Backend)
WORKERS_SECONDS = 120  # that a Dask cluster may take until its first worker is there: a batch job starts both at once, from a slow disk


@contextlib.contextmanager
def cluster(backend: Backend, scheduler: str) -> Iterator[None]:
    """joblib uses ``backend`` inside; SpecError where its package or its scheduler is not there."""
    from joblib import parallel_config

    if backend == "loky":
        with parallel_config(backend="loky", inner_max_num_threads=1):
            yield
        return
    if backend == "ray":
        with _connect_ray(scheduler), parallel_config(backend="ray"):
            yield
        return
    with _connect_dask(scheduler) as client:
        _wait_for_workers(client, scheduler)
        with parallel_config(backend="dask"):
            yield


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
        from ray.util.joblib import register_ray
    except ImportError:
        raise SpecError("backend ray needs the package ray; install it with: pip install 'actioncache[ray]'") from None
    register_ray()
    try:
        return ray.init(address=address or None, log_to_driver=False, logging_level=logging.ERROR, include_dashboard=False)
    except (ConnectionError, ValueError) as error:
        raise SpecError(f"no Ray cluster answers at {address}: {error}; start one with `ray start --head`") from None
