"""The engine ``local`` with more than one worker: processes of this machine, on its GPUs in turn."""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing.connection import wait
from typing import Any

from mfpo.preferences.config import BuildConfig
from mfpo.preferences.pool import DeathOfWorkerError, WorkerPool
from mfpo.preferences.worker import Task, Worker


def local_pool(config: BuildConfig, workers: int, devices: list[str]) -> WorkerPool:
    """A pool of processes.

    Args:
        config: The settings.
        workers: How many processes.
        devices: The GPUs they share out among them; none for the device of the settings.
    """
    places = devices or [config.device]
    return WorkerPool(
        lambda place: _Process(replace(config, device=places[place % len(places)])),
        least=workers,
        most=workers,
        window_rows=max(64, 16 * workers),
    )


class _Process:
    """A worker process."""

    def __init__(self, config: BuildConfig) -> None:
        # Not forked: this process has threads (BLAS, Arrow, tokenizers); a fork would leave their locks shut.
        self._executor = ProcessPoolExecutor(
            1, mp_context=multiprocessing.get_context("spawn"), initializer=_set_up, initargs=(config,)
        )

    def wait_until_ready(self) -> None:
        """It starts with its first item."""

    def do(self, task: Task, item: Any) -> Any:
        """See [`mfpo.preferences.pool.PoolWorker`]."""
        try:
            return self._executor.submit(_do, task, item).result()
        except BrokenProcessPool:
            raise DeathOfWorkerError from None

    def close(self) -> None:
        """See [`mfpo.preferences.pool.PoolWorker`]."""
        self._executor.shutdown(cancel_futures=True)


_WORKER: Worker | None = None


def _set_up(config: BuildConfig) -> None:
    """Make this process a worker that leaves interrupts to its parent and does not outlive it."""
    global _WORKER
    os.environ["OMP_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    _WORKER = Worker(config)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        wait([parent.sentinel])
        os._exit(1)


def _do(task: Task, item: Any) -> Any:
    assert _WORKER is not None, "a process is set up before it works"
    return _WORKER.do(task, item)
