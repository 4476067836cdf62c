"""Run steps side by side, each when what it needs is there, the longest chains first."""

from __future__ import annotations

import gc
import multiprocessing
import os
import re
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager, redirect_stderr, redirect_stdout

from tqdm.auto import tqdm

from mfpo.experiments.step import Step
from mfpo.experiments.store import Store

_DIGEST = re.compile(r" \(?[0-9a-f]{16}\)?")


def run_steps(
    steps: Sequence[Step],
    store: Store,
    *,
    num_workers: int | None = None,
    devices: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Make the results of steps and of all they need; what is there already costs nothing.

    Each worker is a process with one thread, since small models gain nothing from a second one, or with one
    of the devices; where there are more workers, they share devices. A step that fails, or whose worker is
    killed, takes down those that need it, and no others.

    Args:
        steps: What is wanted.
        store: Where results go.
        num_workers: Processes; one for each device, or else for each core, when None.
        devices: Names of the GPUs, as ``CUDA_VISIBLE_DEVICES`` takes them.
        labels: What steps are called in the progress, by digest; their own names where there is none.

    Returns:
        What went wrong, by the digest of the step; empty when all is done.
    """
    todo = missing_steps(steps, store)
    if not todo:
        return {}
    queue = _Queue(todo)
    workers = min(num_workers or len(devices) or usable_cores(), len(todo))
    with _environment(devices), _workers(workers, devices) as free, _progress(todo) as bar:
        running: dict[Future[None], tuple[Step, _Worker]] = {}
        while True:
            while free and (step := queue.next()) is not None:
                worker = free.pop()
                running[worker.submit(store, step)] = step, worker
            if not running:
                return queue.failures
            bar.show([(labels or {}).get(step.digest, step.name) for step, _ in running.values()])
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                step, worker = running.pop(future)
                _settle(future, step, queue, store)
                free.append(worker)
                bar.advance(step.cost)


def usable_cores() -> int:
    """Cores that this process may use, which are fewer than the machine's in many containers."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


class _Queue:
    """Steps that wait, given out by the cost of the longest chain that hangs on them.

    Args:
        todo: The steps by digest.
    """

    def __init__(self, todo: Mapping[str, Step]) -> None:
        self.waiting = dict(todo)
        self.unfinished = set(todo)
        self.failures: dict[str, str] = {}
        users: dict[str, list[Step]] = {}
        for step in todo.values():
            for needed in step.needs:
                users.setdefault(needed.digest, []).append(step)
        self.chain: dict[str, float] = {}

        def chain(step: Step) -> float:
            if step.digest not in self.chain:
                longest = max((chain(user) for user in users.get(step.digest, ())), default=0.0)
                self.chain[step.digest] = step.cost + longest
            return self.chain[step.digest]

        for step in todo.values():
            chain(step)

    def next(self) -> Step | None:
        """The next step that can start; None if there is none now."""
        ready = [
            step
            for step in self.waiting.values()
            if not any(needed.digest in self.unfinished for needed in step.needs)
        ]
        if not ready:
            return None
        step = max(ready, key=lambda step: (self.chain[step.digest], step.digest))
        del self.waiting[step.digest]
        return step

    def finish(self, step: Step) -> None:
        """A step is done."""
        self.unfinished.discard(step.digest)

    def fail(self, step: Step, reason: str) -> None:
        """A step failed: those that need it will not start."""
        self.failures[step.digest] = f"{step.name}: {reason}"
        for user in list(self.waiting.values()):
            needs = any(needed.digest == step.digest for needed in user.needs)
            # One that needs the step in two ways has gone with the first of them.
            if needs and self.waiting.pop(user.digest, None) is not None:
                self.fail(user, f"needs {step.name}")


def _settle(future: Future[None], step: Step, queue: _Queue, store: Store) -> None:
    try:
        future.result()
        queue.finish(step)
    except BrokenProcessPool:
        queue.fail(step, f"its process was killed; the machine may lack memory (see {store.log(step)})")
    except Exception as error:
        queue.fail(step, f"{' '.join(str(error).split())} (see {store.log(step)})")


def _make(store: Store, step: Step) -> None:
    """In a worker: make a step's result; what it prints goes to its log."""
    path = store.log(step)
    path.parent.mkdir(parents=True, exist_ok=True)
    problem = ""
    with path.open("w", encoding="utf-8") as log, redirect_stdout(log), redirect_stderr(log):
        try:
            store.make(step)
        except Exception as error:
            traceback.print_exc()
            problem = f"{type(error).__name__}: {error}"
    _free_memory()
    if problem:
        # Not every exception can be pickled on its way to the parent, and one keeps the step's objects alive.
        raise RuntimeError(problem)


def _free_memory() -> None:
    """Let the next step have the memory of this one: a trainer and its model refer to each other."""
    gc.collect()
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()


class _Worker:
    """A process that makes steps, one after another; a new one takes its place when it dies.

    Args:
        device: What it sees of the GPUs; None where there are none.
    """

    def __init__(self, device: str | None) -> None:
        self.device = device
        self.pool = self._start()

    def submit(self, store: Store, step: Step) -> Future[None]:
        """Begin a step."""
        try:
            return self.pool.submit(_make, store, step)
        except BrokenProcessPool:
            self.pool = self._start()
            return self.pool.submit(_make, store, step)

    def _start(self) -> ProcessPoolExecutor:
        context = multiprocessing.get_context("spawn")
        initial = (os.getpid(), self.device)
        return ProcessPoolExecutor(1, mp_context=context, initializer=_start_worker, initargs=initial)


@contextmanager
def _workers(count: int, devices: Sequence[str]) -> Iterator[list[_Worker]]:
    """Workers that are killed when the block ends in an exception, and die with this process."""
    before = multiprocessing.active_children()
    workers = [_Worker(devices[index % len(devices)] if devices else None) for index in range(count)]
    try:
        yield workers.copy()
    except BaseException:
        for child in multiprocessing.active_children():
            if child not in before:
                child.kill()
        raise
    finally:
        for worker in workers:
            worker.pool.shutdown(cancel_futures=True)


def _start_worker(parent: int, device: str | None) -> None:
    """See the device only, and end when the parent is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_die_with, args=(parent,), daemon=True).start()
    if device is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = device


def _die_with(parent: int) -> None:
    """End this process soon after its parent, even if that was killed and could tell nobody."""
    while os.getppid() == parent:
        time.sleep(0.5)
    os._exit(1)


@contextmanager
def _environment(devices: Sequence[str]) -> Iterator[None]:
    """What libraries of the workers read when they are imported: no bars and, without devices, one thread."""
    wanted = {"TQDM_DISABLE": "1", "TRANSFORMERS_VERBOSITY": "error"}
    if not devices:
        wanted |= {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


class _Bar:
    """Progress by cost, so that the time left means something."""

    def __init__(self, bar: tqdm, total: float, count: int) -> None:
        self.bar, self.total, self.count, self.finished = bar, total, count, 0

    def show(self, names: Sequence[str]) -> None:
        """What is running; digests are for messages and folders."""
        self._count()
        self.bar.set_postfix_str(", ".join(_DIGEST.sub("", name) for name in names)[:60])

    def advance(self, cost: float) -> None:
        """A step ended."""
        self.finished += 1
        self._count()
        # Added up in another order, the costs may come to a little more than their total.
        self.bar.update(min(cost, self.total - self.bar.n))

    def _count(self) -> None:
        self.bar.set_description(f"{self.finished}/{self.count} steps", refresh=False)


@contextmanager
def _progress(todo: Mapping[str, Step]) -> Iterator[_Bar]:
    total = sum(step.cost for step in todo.values())
    layout = "{desc}{percentage:3.0f}%|{bar:20}| {elapsed}, {remaining} left{postfix}"
    with tqdm(total=total, bar_format=layout, file=sys.stderr) as bar:
        yield _Bar(bar, total, len(todo))


def missing_steps(steps: Iterable[Step], store: Store) -> dict[str, Step]:
    """Steps whose results are not there, with what they need, by digest."""
    found: dict[str, Step] = {}

    def add(step: Step) -> None:
        if step.digest not in found and not store.done(step):
            for needed in step.needs:
                add(needed)
            found[step.digest] = step

    for step in steps:
        add(step)
    return found
