"""The engine ``ray``: a pool of Ray actors, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.pool import DeathOfWorkerError, WorkerPool
from mfpo.preferences.worker import Task, Worker

WINDOW_ROWS = 4096
"""Rows worked on together: work enough for many GPUs while the last picture of a window is waited for."""
PATIENCE = 30.0
"""Seconds of waiting after which it is asked whether Ray is still there, since Ray itself does not say."""


@contextmanager
def ray_pool(config: BuildConfig, workers: int) -> Iterator[WorkerPool]:
    """A pool of actors, each of which loads the model once and takes pictures by the names of their files.

    What goes through Ray are names (encoded bytes for images that lie inside a data file), keywords and run
    lengths, never pixels. The files must be at the same place on all machines. A running cluster is used
    where ``RAY_ADDRESS`` names one, else Ray is started here for the time of the build. Ray's actors are used
    directly and not through Ray Data, whose jobs would load the model again for each window of rows, and
    would give a picture that takes its worker down to new ones without end.

    Args:
        config: The settings; the pool grows to ``max_workers`` while pictures wait.
        workers: Actors from the beginning.

    Raises:
        UserError: Ray is not installed, or cannot be started.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError(
            f"Ray cannot be imported: {error}", where="--engine ray", fix="pip install 'mfpo[ray]'"
        ) from None
    most = max(workers, config.max_workers or workers)
    started = not ray.is_initialized()
    if started:
        _start_ray(ray, most)
    try:
        # Ray lets no actor outlive this, so that a build that ends badly leaves none behind.
        with _Actors(ray, replace(config, num_workers=workers)).pool(workers, most) as pool:
            yield pool
    finally:
        if started:
            ray.shutdown()


def _start_ray(ray: Any, workers: int) -> None:
    here = os.environ.get("RAY_ADDRESS") is None
    try:
        ray.init(
            # Without a name Ray would join any cluster of this machine, one that is going down too.
            address="local" if here else None,
            num_cpus=max(os.cpu_count() or 1, workers) if here else None,
            include_dashboard=False if here else None,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except Exception as error:  # Ray raises bare Exception where a part of it does not come up
        raise UserError(
            f"Ray cannot be started: {error}",
            where="--engine ray",
            fix="look at RAY_ADDRESS, or use --engine local",
        ) from None


class _Actors:
    """Starts actors that have what the settings need."""

    def __init__(self, ray: Any, config: BuildConfig) -> None:
        self._ray, self._config = ray, config
        has_gpus = ray.cluster_resources().get("GPU", 0) > 0
        on_gpu = config.backend != "annotations" and config.device != "cpu" and has_gpus
        self._kind = ray.remote(
            num_gpus=1 if on_gpu else 0, num_cpus=0 if on_gpu else 1, max_restarts=0, max_task_retries=0
        )(_Host)

    def pool(self, least: int, most: int) -> WorkerPool:
        return WorkerPool(lambda _place: self._start(), least, most, WINDOW_ROWS)

    def _start(self) -> _Actor:
        return _Actor(self._ray, self._kind.remote(self._config))


class _Actor:
    """An actor, seen from here."""

    def __init__(self, ray: Any, handle: Any) -> None:
        self._ray, self._handle = ray, handle

    def wait_until_ready(self) -> None:
        """Wait until Ray has found a place for it."""
        self._get(self._handle.ready.remote())

    def do(self, task: Task, item: Any) -> Any:
        """See [`mfpo.preferences.pool.PoolWorker`]."""
        result = self._get(self._handle.do.remote(task, item))
        if isinstance(result, UserError):
            raise result
        return result

    def _get(self, promise: Any) -> Any:
        errors = self._ray.exceptions
        try:
            while True:
                try:
                    return self._ray.get(promise, timeout=PATIENCE)
                except errors.GetTimeoutError:
                    _check_alive(self._ray)
        except (errors.RayActorError, errors.WorkerCrashedError, errors.OutOfMemoryError) as error:
            raise DeathOfWorkerError(str(error)) from None

    def close(self) -> None:
        """See [`mfpo.preferences.pool.PoolWorker`]."""
        self._ray.kill(self._handle)


def _check_alive(ray: Any) -> None:
    """Raise where the daemon of this machine is gone: a new actor would then be waited for for ever.

    With its global control store gone Ray ends this process by itself, after a minute and with exit code 1.
    """
    here = ray.get_runtime_context().get_node_id()
    if not any(node["NodeID"] == here and node["Alive"] for node in ray.nodes()):
        raise UserError(
            "Ray's daemon on this machine has ended",
            where="--engine ray",
            fix="look at the memory that is free; the same command goes on with what is finished",
        )


class _Host:
    """A worker inside an actor; a mistake of the user's is a result, since Ray would wrap it."""

    def __init__(self, config: BuildConfig) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self._worker = Worker(config)

    def ready(self) -> None:
        """Answer, which an actor can do once it runs."""

    def do(self, task: Task, item: Any) -> Any:
        try:
            return self._worker.do(task, item)
        except UserError as error:
            return error
