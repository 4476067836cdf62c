"""What a step of an experiment is, addressed by what its result depends on.

A step's digest is a hash over its settings, over the steps it needs and over the code and libraries that
carry it out. Two experiments that ask for the same training ask for the same digest, and get one training.
"""

from __future__ import annotations

import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, TypeAlias

from mfpo.data.fingerprint import code_digest, library_versions

DATA_CODE = ("data", "models", "preferences", "records.py", "scenes")
"""Source that preference rows depend on."""

Place: TypeAlias = Callable[["Step"], Path]
"""Where a step's result is."""


class Step(ABC):
    """Something that is made once.

    Attributes:
        kind: Folder of the store that its results are in.
    """

    kind: ClassVar[str]

    @cached_property
    def digest(self) -> str:
        """The step's address: 16 hex digits of SHA-256 over [`depends`], needed steps included."""
        parts = self.depends() | {"needs": [step.digest for step in self.needs]}
        return hashlib.sha256(json.dumps(parts, sort_keys=True, default=str).encode()).hexdigest()[:16]

    @property
    def needs(self) -> tuple[Step, ...]:
        """Steps whose results it takes."""
        return ()

    @property
    def cost(self) -> float:
        """About how many seconds it takes on one core at full size; order and progress bar depend on it."""
        return 1.0

    @property
    def name(self) -> str:
        """What it is called in messages."""
        return f"{self.kind} {self.digest}"

    @abstractmethod
    def depends(self) -> dict[str, Any]:
        """What the result depends on, as JSON, the needed steps left out."""

    @abstractmethod
    def done(self, folder: Path) -> bool:
        """Whether the result in a folder is complete."""

    @abstractmethod
    def make(self, folder: Path, place: Place) -> None:
        """Make the result; what an interrupted attempt left behind may be there."""


class Model(Step):
    """A step whose result is a checkpoint."""


@dataclass(frozen=True)
class GivenModel(Model):
    """A checkpoint that is there already.

    Attributes:
        model_name_or_path: Folder or Hub name.
        fingerprint: What tells it from another one of that name.
    """

    kind: ClassVar[str] = "given"
    model_name_or_path: str = ""
    fingerprint: str = ""

    def depends(self) -> dict[str, Any]:
        """Its weights; where they are does not matter."""
        return {"model": self.fingerprint}

    def done(self, folder: Path) -> bool:
        """It is there already."""
        return True

    def make(self, folder: Path, place: Place) -> None:
        """Nothing is to be made."""


class Rows(Step):
    """A step whose result is a dataset folder."""

    def dataset(self, folder: Path) -> Path:
        """The dataset in the step's folder."""
        return folder


@dataclass(frozen=True)
class GivenRows(Rows):
    """A dataset folder that `mfpo build` wrote.

    Attributes:
        folder: The folder.
        fingerprint: What tells it from another one.
        has_rejected_images: Whether its rows bring rejected images along.
    """

    kind: ClassVar[str] = "given"
    folder: str = ""
    fingerprint: str = ""
    has_rejected_images: bool = False

    def depends(self) -> dict[str, Any]:
        """Its rows; where they are does not matter."""
        return {"rows": self.fingerprint}

    def done(self, folder: Path) -> bool:
        """It is there already."""
        return True

    def make(self, folder: Path, place: Place) -> None:
        """Nothing is to be made."""


def code(parts: tuple[str, ...]) -> dict[str, Any]:
    """Source and libraries that carry a step out, for [`Step.depends`].

    Args:
        parts: Files and folders of the package.
    """
    return {"code": code_digest(parts), "libraries": library_versions()}
