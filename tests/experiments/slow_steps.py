"""Steps that stand for trainings in tests of the scheduler; in a module that worker processes can import."""

from __future__ import annotations

import gc
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mfpo.experiments.step import Place, Step


@dataclass(frozen=True)
class Note(Step):
    """Writes a line into a common file when it is made.

    Attributes:
        label: Its name.
        after: What it needs.
        seconds: How long it takes.
        fails: Whether it fails.
        dies: Whether its process is killed.
    """

    kind: ClassVar[str] = "notes"
    label: str
    after: tuple[Step, ...] = ()
    seconds: float = 0.0
    fails: bool = False
    dies: bool = False

    @property
    def needs(self) -> tuple[Step, ...]:
        return self.after

    @property
    def cost(self) -> float:
        return 1.0 + self.seconds

    @property
    def name(self) -> str:
        return self.label

    def depends(self) -> dict[str, Any]:
        return {"label": self.label}

    def done(self, folder: Path) -> bool:
        return (folder / "done").is_file()

    def make(self, folder: Path, place: Place) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder.parent / "order.txt").open("a") as file:
            file.write(f"{self.label} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')}\n")
        print("said by", self.label)
        time.sleep(self.seconds)
        if self.dies:
            os.kill(os.getpid(), signal.SIGKILL)
        if self.fails:
            raise ValueError("as it was told")
        (folder / "done").touch()


class Large:
    """An object that is missed when it is gone."""


@dataclass(frozen=True)
class Holder(Note):
    """Has a large object in its hands, and counts those that earlier steps of the process left behind."""

    def make(self, folder: Path, place: Place) -> None:
        left = sum(isinstance(thing, Large) for thing in gc.get_objects())
        print("left behind:", left)
        large = Large()
        large.me = large  # type: ignore[attr-defined]
        super().make(folder, place)
