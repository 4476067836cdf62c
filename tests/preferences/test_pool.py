"""A pool of workers keeps the order, replaces the dead, grows under load and ends when it should."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Any

import pytest

from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.pipeline import open_loaded_engine
from mfpo.preferences.pool import ATTEMPTS, DeathOfWorkerError, WorkerDied, WorkerPool
from mfpo.preferences.worker import Task


class Scripted:
    """A worker of this process: ``die`` always takes it down, ``wait`` holds it until the gate opens."""

    started: Counter[int]
    gate: threading.Event

    def __init__(self, place: int) -> None:
        self.place, self.alive = place, True
        type(self).started[place] += 1

    def wait_until_ready(self) -> None:
        pass

    def do(self, task: Task, item: Any) -> Any:
        assert self.alive
        if item == "die":
            self.alive = False
            raise DeathOfWorkerError
        if item == "wait":
            assert self.gate.wait(10)
        if item == "mistake":
            raise UserError("a mistake")
        return item, self.place

    def close(self) -> None:
        self.alive = False


@pytest.fixture
def worker() -> type[Scripted]:
    return type("Fresh", (Scripted,), {"started": Counter(), "gate": threading.Event()})


def test_results_come_in_order_and_a_deadly_item_costs_only_itself(worker: type[Scripted]) -> None:
    with WorkerPool(worker, 2, 2, 8) as pool:
        results = list(pool.map("search", [1, "die", 2, 3, 4]))
    assert [result[0] for result in results if not isinstance(result, WorkerDied)] == [1, 2, 3, 4]
    assert isinstance(results[1], WorkerDied)
    # Two to begin with, and one for each that the item took down.
    assert worker.started.total() == 2 + ATTEMPTS


def test_the_pool_grows_while_items_wait_and_not_beyond_its_limit(worker: type[Scripted]) -> None:
    with WorkerPool(worker, 1, 3, 8) as pool:
        assert [place for _, place in pool.map("search", [0])] == [0]
        assert set(worker.started) == {0}
        results = pool.map("search", ["wait"] * 6)
        worker.gate.set()
        assert len(list(results)) == 6
    assert set(worker.started) <= {0, 1, 2}


def test_all_places_of_a_grown_pool_work(worker: type[Scripted]) -> None:
    with WorkerPool(worker, 1, 3, 8) as pool:
        results = pool.map("search", ["wait"] * 3)
        while len(worker.started) < 3:
            threading.Event().wait(0.01)
        worker.gate.set()
        assert {place for _, place in results} == {0, 1, 2}


def test_a_mistake_of_the_users_ends_the_build_and_the_pool(worker: type[Scripted]) -> None:
    with pytest.raises(UserError, match="a mistake"), WorkerPool(worker, 1, 1, 8) as pool:
        list(pool.map("search", ["mistake", 1]))


def test_a_region_model_that_takes_every_worker_down_ends_the_build(
    worker: type[Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The result of a worker that died was taken for the fingerprint of the model."""

    class Overloaded(worker):  # type: ignore[misc,valid-type]
        def do(self, task: Task, item: Any) -> Any:
            raise DeathOfWorkerError

    monkeypatch.setattr(
        "mfpo.preferences.pipeline.open_engine", lambda config: WorkerPool(Overloaded, 1, 1, 8)
    )
    config = BuildConfig(regions="owlv2-sam", num_workers=2)
    with (
        pytest.raises(UserError, match="a worker died 3 times while it loaded the region model") as caught,
        open_loaded_engine(config),
    ):
        pytest.fail("there is no model")
    assert caught.value.where == "--regions owlv2-sam, --num_workers 2"
    assert "fewer --num_workers" in caught.value.fix


def test_workers_that_never_begin_end_the_build(worker: type[Scripted]) -> None:
    class Stillborn(worker):  # type: ignore[misc,valid-type]
        def wait_until_ready(self) -> None:
            raise DeathOfWorkerError("no module named mfpo")

    with pytest.raises(UserError, match="no module named mfpo"), WorkerPool(Stillborn, 2, 2, 8) as pool:
        list(pool.map("search", [1, 2, 3]))
    assert Stillborn.started.total() <= 2 * ATTEMPTS
