"""What settings of difficulty make of the world, and worlds on disk."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import asdict
from pathlib import Path

import numpy as np

from mfpo.data.files import write_json
from mfpo.errors import UserError
from mfpo.scenes.config import DifficultySettings
from mfpo.scenes.world import CONTEXTS, KINDS, World

WORLD_FILE = "world.json"
"""File beside a scene model that says in which world it was trained."""
MOST_LIKELY = 0.95
"""Highest probability of a kind in a context; above it scenes would hardly differ."""
RAREST = 0.01
"""Least share of draws in a context whose number of objects must be within the bounds."""
ROOM = 6
"""Objects that find room in a picture as a rule; of seven in a street one does in hundreds of tries."""


def world_of(difficulty: DifficultySettings) -> World:
    """The world of these settings.

    Raises:
        UserError: In some context hardly a draw, or none, has as many objects as the settings ask for.
    """
    world = World(
        contexts=mixed_contexts(difficulty.co_occurrence),
        min_objects=difficulty.min_objects,
        max_objects=difficulty.max_objects,
        image_size=difficulty.image_size,
    )
    _check_number_of_objects(world, difficulty)
    return world


def share_within(probabilities: Collection[float], least: int, most: int) -> float:
    """P(least <= n <= most) of the number n of kinds that are drawn independently (Poisson binomial).

    Args:
        probabilities: Of each kind.
        least: Fewest kinds.
        most: Most kinds.
    """
    distribution = np.ones(1)
    for probability in probabilities:
        distribution = np.convolve(distribution, [1 - probability, probability])
    return float(distribution[least : most + 1].sum())


def _check_number_of_objects(world: World, difficulty: DifficultySettings) -> None:
    least, most = world.min_objects, world.max_objects
    shares = {name: share_within(table.values(), least, most) for name, table in world.contexts.items()}
    rarest = min(shares, key=lambda name: shares[name])
    where = f"--min_objects {least} --max_objects {most} --co_occurrence {difficulty.co_occurrence:g}"
    if least > ROOM:
        raise UserError(
            f"more than {ROOM} objects hardly ever find room in a picture",
            where=where,
            fix=_nearest_numbers(world),
        )
    if shares[rarest] >= RAREST:
        return
    raise UserError(
        f"only {shares[rarest]:.2g} of the scenes drawn for the {rarest} have so many objects; "
        f"{RAREST:g} is the least",
        where=where,
        fix=_nearest_numbers(world),
    )


def _nearest_numbers(world: World) -> str:
    """Bounds on the number of objects near the world's own within which scenes are drawn often enough."""

    def works(least: int, most: int) -> bool:
        tables = world.contexts.values()
        return all(share_within(table.values(), least, most) >= RAREST for table in tables)

    for least in range(min(world.min_objects - 1, ROOM), 0, -1):
        if works(least, world.max_objects):
            return f"--min_objects {least}"
    for most in range(world.max_objects + 1, len(KINDS) + 1):
        if works(world.min_objects, most):
            return f"--max_objects {most}"
    return "choose bounds that are farther apart"


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
