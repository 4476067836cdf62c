"""A pool of workers outside this process: replaced when they die, more of them when all are busy."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from types import TracebackType
from typing import Any, Protocol

from mfpo.errors import UserError
from mfpo.preferences.worker import Task

ATTEMPTS = 3
"""Workers that one item may cost before it is given up."""
SECONDS_BEFORE_NOTICE = 60.0
"""Time without any worker after which it is said that the build is waiting for one."""

logger = logging.getLogger(__name__)


class WorkerDied:
    """Result of an item that took its worker down at every attempt."""


class DeathOfWorkerError(Exception):
    """A worker is gone, and what it was working on with it."""


class PoolWorker(Protocol):
    """A worker in another process, of this machine or of another."""

    def wait_until_ready(self) -> None:
        """Return when it can work.

        Raises:
            DeathOfWorkerError: It died before.
        """
        ...

    def do(self, task: Task, item: Any) -> Any:
        """The result of one item.

        Raises:
            DeathOfWorkerError: The worker died.
            UserError: The worker cannot be set up, or its backend breaks its contract.
        """
        ...

    def close(self) -> None:
        """End it; what it is working on is lost."""
        ...


class WorkerPool:
    """An engine whose workers live as long as the pool does, so that each loads its model once.

    A worker that dies (killed, out of memory, a crash in native code) is replaced, and what it was working on
    is done again; see [`ATTEMPTS`].

    Args:
        start: Starts a worker for a place of the pool, numbered from 0, without waiting until it is ready.
        least: Workers from the beginning.
        most: Workers at most; one is added when an item waits and none is free.
        window_rows: See [`mfpo.preferences.engine.Engine`].
    """

    reads_files = True

    def __init__(self, start: Callable[[int], PoolWorker], least: int, most: int, window_rows: int) -> None:
        self.window_rows = window_rows
        self._start, self._most = start, most
        self._idle: queue.SimpleQueue[tuple[int, PoolWorker] | BaseException] = queue.SimpleQueue()
        self._workers: dict[int, PoolWorker | None] = {}
        self._items_at_work = 0
        self._lock = threading.Lock()
        self._closed = self._any_ready = False
        self._threads = ThreadPoolExecutor(most)
        for _place in range(least):
            self._grow()

    def __enter__(self) -> WorkerPool:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._threads.shutdown(wait=kind is None, cancel_futures=True)
        with self._lock:
            self._closed = True
            workers = list(self._workers.values())
        for worker in workers:
            if worker is not None:
                worker.close()
        self._idle.put(DeathOfWorkerError("the pool is closed"))
        self._threads.shutdown()

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """See [`mfpo.preferences.engine.Engine.map`]; the work begins at once."""
        results: list[Future[Any]] = [self._threads.submit(self._run, task, item) for item in items]
        return (result.result() for result in results)

    def _run(self, task: Task, item: Any) -> Any:
        """One item by the next free worker; there are as many workers as such items, as far as allowed."""
        with self._lock:
            self._items_at_work += 1
            short = self._items_at_work > len(self._workers)
        if short:
            self._grow()
        try:
            return self._attempt(task, item)
        finally:
            with self._lock:
                self._items_at_work -= 1

    def _attempt(self, task: Task, item: Any) -> Any:
        for _attempt in range(ATTEMPTS):
            place, worker = self._take()
            try:
                result = worker.do(task, item)
            except DeathOfWorkerError:
                worker.close()
                self._bring_up(place)
                continue
            except BaseException:
                self._idle.put((place, worker))
                raise
            self._idle.put((place, worker))
            return result
        return WorkerDied()

    def _take(self) -> tuple[int, PoolWorker]:
        """The next free worker."""
        while True:
            try:
                return self._checked(self._idle.get(timeout=SECONDS_BEFORE_NOTICE))
            except queue.Empty:
                if not self._any_ready:
                    logger.warning("still waiting for a first worker; has the cluster room for one?")

    def _grow(self) -> None:
        with self._lock:
            place = len(self._workers)
            if place >= self._most:
                return
            self._workers[place] = None
        self._bring_up(place)

    def _checked(self, entry: tuple[int, PoolWorker] | BaseException) -> tuple[int, PoolWorker]:
        if isinstance(entry, BaseException):
            self._idle.put(entry)  # the others that wait are to see it too
            raise entry
        return entry

    def _bring_up(self, place: int) -> None:
        """Have a worker started at a place; it becomes free when it is ready, which may be never."""
        threading.Thread(target=self._start_at, args=(place,), daemon=True).start()

    def _start_at(self, place: int) -> None:
        try:
            worker = self._started(place)
        except BaseException as error:
            self._idle.put(error)
            return
        self._any_ready = True
        self._idle.put((place, worker))

    def _started(self, place: int) -> PoolWorker:
        """A worker that is ready.

        Raises:
            UserError: It died at every attempt.
            DeathOfWorkerError: The pool is closed.
        """
        for attempt in range(1, ATTEMPTS + 1):
            with self._lock:
                if self._closed:
                    break
                worker = self._workers[place] = self._start(place)
            try:
                worker.wait_until_ready()
                return worker
            except DeathOfWorkerError as error:
                worker.close()
                if attempt == ATTEMPTS:
                    raise UserError(
                        f"a worker died {ATTEMPTS} times before it could begin: {error}",
                        where=f"worker {place}",
                        fix="mfpo and the packages of the backend must be installed where workers run",
                    ) from None
        raise DeathOfWorkerError("the pool is closed")
