"""What settings of difficulty make of the world, and worlds on disk."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

from mfpo.data.files import write_json
from mfpo.errors import UserError
from mfpo.scenes.config import DifficultySettings
from mfpo.scenes.world import CONTEXTS, World

WORLD_FILE = "world.json"
"""File beside a scene model that says in which world it was trained."""
MOST_LIKELY = 0.95
"""Highest probability of a kind in a context; above it scenes would hardly differ."""


def world_of(difficulty: DifficultySettings) -> World:
    """The world of these settings."""
    return World(
        contexts=mixed_contexts(difficulty.co_occurrence),
        min_objects=difficulty.min_objects,
        max_objects=difficulty.max_objects,
        image_size=difficulty.image_size,
    )


def mixed_contexts(strength: float) -> dict[str, dict[str, float]]:
    """Probabilities of the kinds with a weaker or stronger tie between place and object.

    p = p_mean + strength (p_context - p_mean), with p_mean the kind's mean over the contexts, within 0 and
    [`MOST_LIKELY`]; so at strength 0 every place holds the same things, equally many as before.
    """
    if strength == 1.0:
        return CONTEXTS
    kinds = dict.fromkeys(kind for table in CONTEXTS.values() for kind in table)
    mean = {kind: sum(table.get(kind, 0.0) for table in CONTEXTS.values()) / len(CONTEXTS) for kind in kinds}
    mixed: dict[str, dict[str, float]] = {}
    for context, table in CONTEXTS.items():
        found = {kind: mean[kind] + strength * (table.get(kind, 0.0) - mean[kind]) for kind in kinds}
        mixed[context] = {kind: round(min(p, MOST_LIKELY), 6) for kind, p in found.items() if p > 0}
    return mixed


def save_world(world: World, folder: Path) -> None:
    """Write [`WORLD_FILE`] into a folder."""
    write_json(folder / WORLD_FILE, asdict(world))


def load_world(folder: Path) -> World:
    """The world that a scene model's folder names.

    Raises:
        UserError: The folder has no such file, or it is broken.
    """
    path = folder / WORLD_FILE
    try:
        return World(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise UserError(
            f"no description of a world: {error}",
            where=str(path),
            fix="name a folder that `mfpo scenes --train_model` wrote",
        ) from None
