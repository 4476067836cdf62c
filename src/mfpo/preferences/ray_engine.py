"""The engine ``ray``: Ray Data with a pool of actors, on this machine or on a cluster."""

from __future__ import annotations

import logging
import os
import pickle
import queue
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.engine import num_workers
from mfpo.preferences.worker import Task, Worker

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

ITEMS_A_BLOCK = 32
"""Pictures that an actor takes at once; so much is lost at most with an actor."""

Columns = dict[str, "NDArray[np.object_]"]


class RayEngine:
    """A pool of actors that load the model once a window and take pictures by the names of their files.

    What goes through Ray's object store are names (encoded bytes for images that lie inside a data file),
    keywords and run lengths, never pixels. An actor that dies is started again and its work repeated, by Ray.
    The files must be at the same place on all machines. A running cluster is used where ``RAY_ADDRESS`` names
    one, else Ray is started here for the time of the build.

    Args:
        config: The settings; the pool has ``num_workers`` actors and may grow to ``max_workers``.

    Raises:
        UserError: Ray is not installed, or cannot be started.
    """

    # Each window is one Ray Data job, which starts its actors anew.
    window_rows = 4096
    reads_files = True

    def __init__(self, config: BuildConfig) -> None:
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise UserError(
                f"Ray cannot be imported: {error}", where="--engine ray", fix="pip install 'mfpo[ray]'"
            ) from None
        self._config = replace(config, num_workers=num_workers(config))
        self._ray = ray
        self._started = not ray.is_initialized()
        self._jobs = ThreadPoolExecutor(1)

    def __enter__(self) -> RayEngine:
        if self._started:
            here = os.environ.get("RAY_ADDRESS") is None
            try:
                self._ray.init(
                    # Without a name Ray would join any cluster of this machine, one that is going down too.
                    address="local" if here else None,
                    num_cpus=max(os.cpu_count() or 1, self._most() + 1) if here else None,
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
        context = self._ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.execution_options.preserve_order = True
        return self

    def __exit__(self, *_: object) -> None:
        self._jobs.shutdown(cancel_futures=True)
        if self._started:
            self._ray.shutdown()

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """See [`mfpo.preferences.engine.Engine.map`]; the work begins at once, one window after the other."""
        if task == "describe":
            # Asked once, before there is a window; the answer is the same everywhere.
            worker = Worker(self._config)
            return iter([worker.do(task, item) for item in items])
        if not items:
            return iter(())
        results: queue.SimpleQueue[Any] = queue.SimpleQueue()
        job = self._jobs.submit(self._run, task, items, results)
        return self._results(job, results, len(items))

    @staticmethod
    def _results(job: Future[None], results: queue.SimpleQueue[Any], count: int) -> Iterator[Any]:
        """The results as they come, which is in order."""
        for _ in range(count):
            result = results.get()
            if isinstance(result, UserError):
                raise result
            if isinstance(result, _Failed):
                job.result()
            yield result

    def _run(self, task: Task, items: Sequence[Any], results: queue.SimpleQueue[Any]) -> None:
        """One Ray Data job; what it gives is put into the queue, and a mark where it fails."""
        try:
            for row in self._worked(task, items).iter_rows():
                results.put(pickle.loads(row["result"]))  # noqa: S301  (made by our own actors)
        except BaseException:
            results.put(_Failed())
            raise

    def _worked(self, task: Task, items: Sequence[Any]) -> Any:
        """The dataset of the results, not computed yet."""
        data, config = self._ray.data, self._config
        on_gpu = config.backend != "annotations" and config.device != "cpu" and self._has_gpus()
        rows = data.from_items(
            [{"item": pickle.dumps(item)} for item in items],
            override_num_blocks=-(-len(items) // ITEMS_A_BLOCK),
        )
        return rows.map_batches(
            _Actor,
            fn_constructor_args=(config, task),
            batch_size=None,
            compute=data.ActorPoolStrategy(min_size=config.num_workers or 1, max_size=self._most()),
            num_gpus=1 if on_gpu else 0,
            num_cpus=0 if on_gpu else 1,
        )

    def _most(self) -> int:
        least = self._config.num_workers or 1
        return max(least, self._config.max_workers or least)

    def _has_gpus(self) -> bool:
        return self._ray.cluster_resources().get("GPU", 0) > 0


class _Failed:
    """Stands where results end because Ray gave up."""


class _Actor:
    """A worker among Ray's actors; a mistake of the user's is a result, since Ray would wrap it."""

    def __init__(self, config: BuildConfig, task: Task) -> None:
        os.environ["OMP_NUM_THREADS"] = "1"
        self._worker, self._task = Worker(config), task

    def __call__(self, batch: Columns) -> Columns:
        import numpy as np

        results = np.empty(len(batch["item"]), dtype=object)
        for index, item in enumerate(batch["item"]):
            try:
                result = self._worker.do(self._task, pickle.loads(item))  # noqa: S301  (made by our own driver)
            except UserError as error:
                result = error
            results[index] = pickle.dumps(result)
        return {"result": results}
