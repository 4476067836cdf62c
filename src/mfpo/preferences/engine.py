"""Where pictures are worked on: this process, N processes of this machine, or a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing.connection import wait
from typing import Any, Protocol

from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.worker import Task, Worker

ATTEMPTS = 3
"""Processes that one item may cost before it is given up."""


class WorkerDied:
    """Result of an item that took its process down at every attempt."""


class Engine(Protocol):
    """Works on many items at once; results come in the order of the items, whoever made them."""

    window_rows: int
    """Rows whose pictures are worked on together; two such windows are in memory at once."""
    reads_files: bool
    """Whether the workers get the names of files instead of their content."""

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """The result of each item, or [`WorkerDied`]; work may begin at once.

        Raises:
            UserError: The worker cannot be set up, or its backend breaks its contract.
        """
        ...


@contextmanager
def open_engine(config: BuildConfig) -> Iterator[Engine]:
    """The engine that the settings name.

    Raises:
        UserError: Ray is asked for and not installed.
    """
    if config.engine == "ray":
        from mfpo.preferences.ray_engine import RayEngine

        with RayEngine(config) as ray_engine:
            yield ray_engine
    elif num_workers(config) == 1:
        yield InProcess(config)
    else:
        with LocalEngine(config, num_workers(config)) as engine:
            yield engine


def num_workers(config: BuildConfig) -> int:
    """How many workers the settings ask for; where they say nothing, one for each GPU a model can use."""
    if config.num_workers is not None:
        return config.num_workers
    return max(1, len(_devices(config)))


class InProcess:
    """The engine of one worker: this process, when a result is asked for."""

    window_rows = 16
    reads_files = False

    def __init__(self, config: BuildConfig) -> None:
        self._worker = Worker(config)

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """See [`Engine.map`]."""
        return (self._worker.do(task, item) for item in items)


@dataclass(frozen=True, slots=True)
class _Process:
    """A worker process, and where it computes."""

    executor: ProcessPoolExecutor
    config: BuildConfig


class LocalEngine:
    """Worker processes of this machine, on its GPUs in turn.

    A process that dies (killed, out of memory, a crash in native code) is replaced, and what it was working
    on is done again; see [`ATTEMPTS`].

    Args:
        config: The settings.
        workers: How many processes.
    """

    reads_files = True

    def __init__(self, config: BuildConfig, workers: int) -> None:
        self.window_rows = max(64, 16 * workers)
        devices = _devices(config) or [config.device]
        self._idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._threads = ThreadPoolExecutor(workers)
        for index in range(workers):
            self._idle.put(_start(replace(config, device=devices[index % len(devices)])))
        self._workers = workers

    def __enter__(self) -> LocalEngine:
        return self

    def __exit__(self, *_: object) -> None:
        self._threads.shutdown(cancel_futures=True)
        for _index in range(self._workers):
            self._idle.get().executor.shutdown(cancel_futures=True)

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """See [`Engine.map`]; the work begins at once."""
        results: list[Future[Any]] = [self._threads.submit(self._run, task, item) for item in items]
        return (result.result() for result in results)

    def _run(self, task: Task, item: Any) -> Any:
        """One item in the next free process."""
        for _attempt in range(ATTEMPTS):
            process = self._idle.get()
            try:
                return process.executor.submit(_do, task, item).result()
            except BrokenProcessPool:
                process.executor.shutdown(wait=False)
                process = _start(process.config)
            finally:
                self._idle.put(process)
        return WorkerDied()


def _start(config: BuildConfig) -> _Process:
    # Not forked: this process has threads (BLAS, Arrow, tokenizers) that a fork would leave behind locked.
    executor = ProcessPoolExecutor(
        1, mp_context=multiprocessing.get_context("spawn"), initializer=_set_up, initargs=(config,)
    )
    return _Process(executor, config)


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


def _devices(config: BuildConfig) -> list[str]:
    """The GPUs that workers can share out among them."""
    if config.backend == "annotations" or config.device not in ("auto", "cuda"):
        return []
    import torch

    count = torch.cuda.device_count() if torch.cuda.is_available() else 0
    if config.device == "cuda" and not count:
        raise UserError(
            "there is no CUDA device here",
            where="--device cuda",
            fix="use --device cpu, or look at `mfpo doctor`",
        )
    return [f"cuda:{index}" for index in range(count)]
