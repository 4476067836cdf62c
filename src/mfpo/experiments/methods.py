"""The trainings that are compared, and what they share."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from importlib import resources
from typing import Any

import yaml

from mfpo.difficulty.config import StageOrder
from mfpo.records import Schedule, Scope


@dataclass(frozen=True, slots=True)
class Method:
    """A way to train on the preference rows.

    Attributes:
        name: Name of its run folder and in tables.
        objective: Objective of ``mfpo train``.
        stages: Order of the rows.
        noise_scope: Rejected image in place of the rows' own.
        text: What it is, in a phrase.
    """

    name: str
    objective: str
    stages: StageOrder = "none"
    noise_scope: Scope | None = None
    text: str = ""


METHODS: tuple[Method, ...] = (
    Method("dpo", "dpo", text="text preference only"),
    Method("dpo+margin", "dpo+margin", text="text preference and margin: the control without an image term"),
    Method("mdpo", "mdpo", text="all three terms, rejected image a random crop"),
    Method("mfpo-at-once", "mfpo", text="all three terms, noise on the key regions, all rows at once"),
    Method("mfpo", "mfpo", "easy_to_hard", text="the same from easy rows to hard ones"),
)

BASE = "sft"
"""Name of the model before preference training, which every method starts from."""


@dataclass(frozen=True, slots=True)
class Budget:
    """How much data and work, the same for every method.

    Attributes:
        num_rows: Preference rows.
        num_epochs: Passes over them.
        batch_size: Rows an optimiser step.
        num_test: Unseen scenes that answers are scored on.
        num_validation: Scenes that settings are chosen on.
        num_edited: Drawings of the grounding probe.
        noise_step: Diffusion step of the region noise.
        noise_schedule: Its schedule.
    """

    num_rows: int = 1200
    num_epochs: int = 2
    batch_size: int = 16
    num_test: int = 1000
    num_validation: int = 500
    num_edited: int = 500
    noise_step: int = 900
    noise_schedule: Schedule = "vcd"


@lru_cache
def tuned() -> dict[str, Any]:
    """Settings of the methods; ``tuned.yaml`` says where they come from."""
    text = resources.files("mfpo.experiments").joinpath("tuned.yaml").read_text(encoding="utf-8")
    loaded: dict[str, Any] = yaml.safe_load(text)
    return loaded


def learning_rate(method: Method) -> float:
    """The method's learning rate, from ``tuned.yaml``."""
    return float(tuned()["learning_rates"][method.name])
