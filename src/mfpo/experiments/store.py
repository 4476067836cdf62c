"""Where the results of steps are: a folder for each digest, shared by all experiments."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from mfpo.data.cache import default_cache
from mfpo.data.files import write_json
from mfpo.experiments.scene_steps import SceneLlava
from mfpo.experiments.step import GivenModel, GivenRows, Step

STEP_FILE = "step.json"
"""File beside a result that says what it depends on."""


@dataclass(frozen=True)
class Store:
    """Folders of steps.

    Attributes:
        root: Folder of the store.
        cache_dir: Where trained scene models are kept; the user's cache when None.
        names: Folders of steps that have one of their own, by digest.
    """

    root: Path
    cache_dir: str | None = None
    names: Mapping[str, Path] = field(default_factory=dict)

    def __call__(self, step: Step) -> Path:
        """The folder of a step's result."""
        if step.digest in self.names:
            return self.names[step.digest]
        if isinstance(step, GivenModel):
            return Path(step.model_name_or_path)
        if isinstance(step, GivenRows):
            return Path(step.folder)
        if isinstance(step, SceneLlava):
            return Path(self.cache_dir or default_cache()) / f"scene-llava-{step.recipe.fingerprint()}"
        return self.root / step.kind / step.digest

    def done(self, step: Step) -> bool:
        """Whether a step's result is there."""
        return step.done(self(step))

    def make(self, step: Step) -> None:
        """Make a step's result, and say beside it what it depends on and how long it took.

        Two commands that want the same step make it once: the second waits for the first.
        """
        lock = self.lock(step)
        lock.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(lock):
            if not self.done(step):
                self._make(step, self(step))

    def _make(self, step: Step, folder: Path) -> None:
        started, computed = time.perf_counter(), time.process_time()
        step.make(folder, self)
        if folder.is_relative_to(self.root):
            record = {
                "depends": step.depends() | {"needs": [needed.digest for needed in step.needs]},
                "seconds": round(time.perf_counter() - started, 1),
                "cpu_seconds": round(time.process_time() - computed, 1),
            }
            write_json(folder / STEP_FILE, json.loads(json.dumps(record, default=str)))

    def seconds(self, steps: Iterable[Step]) -> float:
        """What steps and all they need took when they were made, scene models of the cache left out."""
        found: dict[str, float] = {}
        waiting = list(steps)
        while waiting:
            step = waiting.pop()
            if step.digest not in found:
                record = self(step) / STEP_FILE
                content = json.loads(record.read_text(encoding="utf-8")) if record.is_file() else {}
                found[step.digest] = float(content.get("seconds", 0.0))
                waiting += step.needs
        return sum(found.values())

    def lock(self, step: Step) -> Path:
        """File that is held while a step is made; a scene model's is beside it, as stores share those."""
        if isinstance(step, SceneLlava):
            folder = self(step)
            return folder.with_name(f".{folder.name}.lock")
        return self.root / "locks" / f"{step.kind}-{step.digest}.lock"

    def log(self, step: Step) -> Path:
        """File for what a step prints."""
        return self.root / "logs" / f"{step.kind}-{step.digest}.txt"
