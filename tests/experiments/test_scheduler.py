from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import psutil
import pytest
from slow_steps import Holder, Note

from mfpo.experiments.run import gpus
from mfpo.experiments.scene_steps import SceneLlava
from mfpo.experiments.scheduler import run_steps
from mfpo.experiments.store import Store

PARENT = """
import sys
from pathlib import Path
from slow_steps import Note
from mfpo.experiments.scheduler import run_steps
from mfpo.experiments.store import Store
if __name__ == "__main__":
    run_steps([Note("one", seconds=600), Note("two", seconds=600)], Store(Path(sys.argv[1])), num_workers=2)
"""


def order(folder: Path) -> list[str]:
    path = folder / "notes" / "order.txt"
    lines = path.read_text().splitlines() if path.is_file() else []
    return [line.rsplit(maxsplit=2)[0] for line in lines]


def test_steps_wait_for_what_they_need_and_are_made_once(tmp_path: Path) -> None:
    first = Note("first")
    middle = [Note("left", (first,)), Note("right", (first,))]
    last = Note("last", tuple(middle))
    store = Store(tmp_path)
    assert run_steps([last, *middle], store, num_workers=2) == {}
    made = order(tmp_path)
    assert made[0] == "first" and made[-1] == "last" and sorted(made[1:3]) == ["left", "right"]
    assert run_steps([last], store) == {} and len(order(tmp_path)) == 4
    assert "said by first" in store.log(first).read_text()


def test_the_longest_chain_starts_first(tmp_path: Path) -> None:
    short, start = Note("short", seconds=0.2), Note("start")
    run_steps([short, Note("long", (start,), seconds=1.0)], Store(tmp_path), num_workers=1)
    assert order(tmp_path) == ["start", "long", "short"]


def test_progress_names_what_runs_and_ends_when_all_is_done(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    # Added one by one, in the order in which they end, these costs exceed their total by rounding.
    seconds = [0.3, 0.2, 0.1]
    assert (1 + 0.3) + (1 + 0.2) + (1 + 0.1) > (1 + 0.1) + (1 + 0.2) + (1 + 0.3)
    notes = [Note(f"training {time} (0123456789abcdef)", seconds=time) for time in reversed(seconds)]
    assert run_steps(notes, Store(tmp_path), num_workers=1) == {}
    shown = [line.strip() for line in capfd.readouterr().err.replace("\r", "\n").splitlines() if line.strip()]
    assert shown[-1].startswith("3/3 steps: 100%") and "-00:00" not in shown[-1]
    assert any(line.endswith(", training 0.2") for line in shown)
    assert not any("0123456789abcdef" in line for line in shown)


def test_the_progress_names_steps_as_it_is_told_to(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    step = Note("one")
    run_steps([step], Store(tmp_path), num_workers=1, labels={step.digest: "scenes of an arm"})
    assert "scenes of an arm" in capsys.readouterr().err


def test_a_failure_takes_down_what_needs_it_and_nothing_else(tmp_path: Path) -> None:
    bad = Note("bad", fails=True)
    failures = run_steps([Note("good"), Note("after", (bad,))], Store(tmp_path), num_workers=1)
    assert sorted(order(tmp_path)) == ["bad", "good"]
    assert any("bad: ValueError: as it was told" in reason for reason in failures.values())
    assert any(reason.startswith("after: needs bad") for reason in failures.values())


def test_what_needs_a_failure_in_two_ways_goes_once(tmp_path: Path) -> None:
    bad = Note("bad", fails=True)
    between = Note("between", (bad,))
    failures = run_steps([Note("end", (bad, between)), Note("good")], Store(tmp_path), num_workers=1)
    assert sorted(reason.partition(":")[0] for reason in failures.values()) == ["bad", "between", "end"]
    assert sorted(order(tmp_path)) == ["bad", "good"]


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is of Unix")
def test_a_killed_worker_is_that_step_s_failure_and_no_other_s(tmp_path: Path) -> None:
    deadly, after = Note("deadly", dies=True), Note("after", seconds=0.1)
    beside = [Note("beside", seconds=4.0), Note("needs it", (deadly,)), after]
    failures = run_steps([deadly, *beside], Store(tmp_path), num_workers=2)
    assert failures[deadly.digest].startswith("deadly: its process was killed")
    assert set(failures) == {deadly.digest, beside[1].digest}
    assert sorted(order(tmp_path)) == ["after", "beside", "deadly"]


def test_each_worker_sees_its_device_and_more_workers_share_them(tmp_path: Path) -> None:
    steps = [Note(f"step {number}", seconds=1.5) for number in range(3)]
    assert run_steps(steps, Store(tmp_path), num_workers=3, devices=["4", "GPU-5a"]) == {}
    lines = (tmp_path / "notes" / "order.txt").read_text().splitlines()
    seen = {line.split()[-2]: line.split()[-1] for line in lines}
    assert len(seen) == 3 and sorted(seen.values()) == ["4", "4", "GPU-5a"]


def test_gpus_keep_the_names_that_the_user_gave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4, GPU-5a")
    assert gpus() == ["4", "GPU-5a"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert gpus() == ["0", "1"]


def test_a_failed_step_leaves_nothing_in_memory(tmp_path: Path) -> None:
    first, second = Holder("first", fails=True, seconds=0.1), Holder("second")
    store = Store(tmp_path)
    assert set(run_steps([first, second], store, num_workers=1)) == {first.digest}
    assert order(tmp_path) == ["first", "second"]
    assert "left behind: 0" in store.log(second).read_text()


def test_two_commands_make_a_step_once(tmp_path: Path) -> None:
    # Not in threads: while steps run, the environment of the process is that of its workers.
    with ProcessPoolExecutor(2, mp_context=multiprocessing.get_context("spawn")) as pool:
        done = list(pool.map(_make_shared, [tmp_path] * 2))
    assert done == [{}, {}] and order(tmp_path) == ["shared"]


def _make_shared(folder: Path) -> dict[str, str]:
    return run_steps([Note("shared", seconds=1.0)], Store(folder), num_workers=1)


def test_locks_lie_apart_from_results_but_for_scene_models_that_stores_share(tmp_path: Path) -> None:
    stores = [Store(tmp_path / name, str(tmp_path / "cache")) for name in ("one", "two")]
    step = Note("step")
    assert run_steps([step], stores[0], num_workers=1) == {}
    assert stores[0].lock(step).parent == tmp_path / "one" / "locks"
    assert not any(path.suffix == ".lock" for path in (tmp_path / "one" / "notes").iterdir())
    assert stores[0].lock(SceneLlava()) == stores[1].lock(SceneLlava())


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="kill -9 is of Unix")
def test_workers_die_with_a_killed_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    paths = os.pathsep.join([str(Path(__file__).parent), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, str(script), str(tmp_path)],
        env={**os.environ, "PYTHONPATH": paths},
        stderr=subprocess.DEVNULL,
    )
    try:
        _wait(lambda: len(order(tmp_path)) == 2)
        children = psutil.Process(parent.pid).children(recursive=True)
        assert len(children) >= 2
    finally:
        parent.kill()
        parent.wait()
    _wait(lambda: not any(child.is_running() and child.status() != "zombie" for child in children))


def _wait(condition: object, seconds: float = 240.0) -> None:
    end = time.monotonic() + seconds
    while not condition():  # type: ignore[operator]
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.2)
