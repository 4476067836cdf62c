"""Where pictures are worked on: this process, N processes of this machine, or a Ray cluster."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Protocol

from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.local_engine import local_pool
from mfpo.preferences.worker import Task, Worker


class Engine(Protocol):
    """Works on many items at once; results come in the order of the items, whoever made them."""

    window_rows: int
    """Rows whose pictures are worked on together; two such windows are in memory at once."""
    reads_files: bool
    """Whether the workers get the names of files instead of their content."""

    def map(self, task: Task, items: Sequence[Any]) -> Iterator[Any]:
        """The result of each item, or [`mfpo.preferences.pool.WorkerDied`]; work may begin at once.

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
        from mfpo.preferences.ray_engine import ray_pool

        with ray_pool(config, num_workers(config)) as cluster:
            yield cluster
    elif num_workers(config) == 1:
        yield InProcess(config)
    else:
        with local_pool(config, num_workers(config), _devices(config)) as processes:
            yield processes


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
