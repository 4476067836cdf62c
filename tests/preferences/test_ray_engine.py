"""The engine ``ray`` makes the same rows, bit for bit, as one process."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import yaml
from PIL import Image

from mfpo.data.folder import shard_files
from mfpo.errors import UserError
from mfpo.preferences.build import build_dataset
from mfpo.preferences.config import BuildConfig
from mfpo.preferences.ray_engine import _Actor

pytest.importorskip("ray", reason="Ray is not installed")
pytestmark = pytest.mark.slow

GOES, SECONDS = 3, 240


def build_on_ray(config: BuildConfig, error: str = "") -> subprocess.CompletedProcess[str]:
    """The build by the command, in a process of its own.

    Ray takes the process that started it down with its own daemons, which a starved machine may kill or may
    not bring up in time. A user gives the same command again then, and so does this. All goes together stay
    below pytest's `faulthandler_timeout`, so a test has one build.

    Args:
        config: Its settings.
        error: What the build is to end with; any other end is Ray's.
    """
    settings = Path(config.output_dir).with_suffix(".yaml")
    settings.write_text(yaml.safe_dump(asdict(replace(config, engine="ray"))))
    command = [sys.executable, "-m", "mfpo.cli", "build", "--config", str(settings)]
    told = []
    for _ in range(GOES):
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
        )
        try:
            out, errors = process.communicate(timeout=SECONDS)
        except subprocess.TimeoutExpired:
            out, errors = "", f"not done after {SECONDS} seconds"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()
        if error in errors if error else process.returncode == 0:
            return subprocess.CompletedProcess(command, process.returncode, out, errors)
        told.append(f"ended with {process.returncode}: {errors[-2000:]}")
    raise AssertionError(f"the build failed {GOES} times:\n" + "\n".join(told))


@pytest.fixture
def config(tmp_path: Path) -> BuildConfig:
    lines, annotations = [], []
    (tmp_path / "images").mkdir()
    for number in range(30):
        values = np.random.default_rng(number).integers(0, 256, (24, 32, 3), dtype=np.uint8)
        data = io.BytesIO()
        Image.fromarray(values).save(data, "PNG")
        cut = 200 if number == 7 else None
        (tmp_path / f"images/{number}.png").write_bytes(data.getvalue()[:cut])
        row = {"question": "What?", "chosen": "A red mug by a plate.", "rejected": "A blue mug by a fork."}
        lines.append(json.dumps({"image": f"images/{number}.png", **row}))
        annotations.append(json.dumps({"image": f"{number}.png", "boxes": {"mug": [[4, 4, 20, 20]]}}))
    (tmp_path / "pairs.jsonl").write_text("\n".join(lines))
    (tmp_path / "annotations.jsonl").write_text("\n".join(annotations))
    return BuildConfig(dataset=str(tmp_path / "pairs.jsonl"), annotations=str(tmp_path / "annotations.jsonl"))


def test_ray_makes_the_same_rows(config: BuildConfig, tmp_path: Path) -> None:
    build_dataset(replace(config, output_dir=str(tmp_path / "one")))
    build_on_ray(replace(config, output_dir=str(tmp_path / "ray"), num_workers=2))
    for name in ("one", "ray"):
        assert len((tmp_path / name / "skipped.jsonl").read_text().splitlines()) == 1
    assert [path.read_bytes() for path in shard_files(tmp_path / "one")] == [
        path.read_bytes() for path in shard_files(tmp_path / "ray")
    ]


def test_what_an_actor_cannot_read_ends_the_build_with_a_clear_error(
    config: BuildConfig, tmp_path: Path
) -> None:
    missing = replace(config, output_dir=str(tmp_path / "none"), annotations=str(tmp_path / "gone.jsonl"))
    failed = build_on_ray(missing, error="cannot be read")
    assert failed.returncode == 1
    assert "gone.jsonl" in failed.stderr


def test_a_picture_that_takes_its_actor_down_each_time_costs_its_row(
    config: BuildConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "deadly.py").write_text(
        "import os\n"
        "class Deadly:\n"
        "    def segment(self, image, keywords, *, name=None):\n"
        "        if name.endswith('/3.png'):\n"
        "            os._exit(9)\n"
        "        return []\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    build_on_ray(
        replace(
            config,
            annotations=None,
            regions="deadly:Deadly",
            output_dir=str(tmp_path / "out"),
            num_workers=1,
            max_workers=2,
        )
    )
    skips = [json.loads(line) for line in (tmp_path / "out/skipped.jsonl").read_text().splitlines()]
    assert sorted(skip["reason"] for skip in skips) == ["truncated-image", "worker-died"]
    assert next(skip["where"] for skip in skips if skip["reason"] == "worker-died") == "pairs.jsonl:4"


@pytest.mark.parametrize("call", ["do", "wait_until_ready"])
@pytest.mark.parametrize("alive", [True, False])
def test_a_cluster_that_is_gone_ends_the_wait(alive: bool, call: str) -> None:
    """Of a task, and of the actor that is to take a dead one's place: that wait is the one that hung."""
    import ray

    class Waits:
        """Ray with nothing to tell for a while, beside a machine that has ended."""

        exceptions, asked = ray.exceptions, 0

        def get(self, promise: object, timeout: float | None = None) -> object:
            assert timeout is not None, "a wait without an end"
            self.asked += 1
            if self.asked <= 2:
                raise ray.exceptions.GetTimeoutError
            return promise

        def get_runtime_context(self) -> SimpleNamespace:
            return SimpleNamespace(get_node_id=lambda: "here")

        def nodes(self) -> list[dict[str, object]]:
            return [{"NodeID": "here", "Alive": alive}, {"NodeID": "there", "Alive": not alive}]

    handle = SimpleNamespace(
        do=SimpleNamespace(remote=lambda task, item: item), ready=SimpleNamespace(remote=lambda: None)
    )
    actor = _Actor(Waits(), handle)
    arguments = ("search", 7) if call == "do" else ()
    if alive:
        assert getattr(actor, call)(*arguments) == (7 if call == "do" else None)
    else:
        with pytest.raises(UserError, match="daemon on this machine has ended"):
            getattr(actor, call)(*arguments)
