"""Rows sorted by difficulty and cut into stages (paper 3.3, "Sorting by Difficulty")."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from mfpo.difficulty.config import StageOrder

LEVELS = ("easy", "medium", "hard")


@dataclass(frozen=True, slots=True)
class Stage:
    """Rows that are trained on together.

    Attributes:
        name: ``easy``, ``medium`` or ``hard``; ``random-1`` to ``random-3``; ``all``.
        rows: Indices of its rows, ascending.
    """

    name: str
    rows: tuple[int, ...]


def split_by_difficulty(entropies: Sequence[float]) -> list[Stage]:
    """Equal thirds of the rows by entropy: easy, medium, hard.

    Args:
        entropies: One number a row, larger is harder; equal ones keep the order of the rows.

    Returns:
        Three stages whose sizes differ by one at most; fewer for fewer than three rows.
    """
    order = np.argsort(np.asarray(entropies, dtype=np.float64), kind="stable")
    return _cut(order, LEVELS)


def plan_stages(
    order: StageOrder, num_rows: int, entropies: Sequence[float] | None = None, *, seed: int = 0
) -> list[Stage]:
    """The stages of a training, in the order in which they are trained.

    Args:
        order: ``none`` (one stage), ``easy_to_hard``, ``hard_to_easy``, or ``random``: as many stages of
            random rows, which tells the effect of the order from that of having stages.
        num_rows: Number of rows.
        entropies: One number a row; needed for the two orders by difficulty.
        seed: Seed of ``random``.
    """
    if order == "none":
        return [Stage("all", tuple(range(num_rows)))]
    if order == "random":
        return _cut(np.random.default_rng(seed).permutation(num_rows), [f"random-{i}" for i in (1, 2, 3)])
    if entropies is None or len(entropies) != num_rows:
        raise ValueError(f"{order} needs the entropy of each of the {num_rows} rows")
    stages = split_by_difficulty(entropies)
    return stages if order == "easy_to_hard" else stages[::-1]


def split_rest(
    order: StageOrder, rows: Sequence[int], entropies: Sequence[float], names: Sequence[str]
) -> list[Stage]:
    """The stages of a training that are left, cut anew by entropies that have changed.

    Args:
        order: ``easy_to_hard`` or ``hard_to_easy``.
        rows: Indices of the rows that are left.
        entropies: Entropy of each of these rows now.
        names: Names of the stages that are left, in the order of training.

    Returns:
        As many stages, in the order of training; they have the sizes that [`plan_stages`] gave them.
    """
    sorted_rows = np.asarray(rows)[np.argsort(np.asarray(entropies, dtype=np.float64), kind="stable")]
    if order == "easy_to_hard":
        return _cut(sorted_rows, names)
    return _cut(sorted_rows, names[::-1])[::-1]


def levels(entropies: Sequence[float]) -> list[str]:
    """Level of each row, in the order of the rows."""
    names = [""] * len(entropies)
    for stage in split_by_difficulty(entropies):
        for row in stage.rows:
            names[row] = stage.name
    return names


def _cut(order: np.ndarray, names: Sequence[str]) -> list[Stage]:
    parts = np.array_split(order, len(names))
    return [
        Stage(name, tuple(sorted(int(row) for row in part)))
        for name, part in zip(names, parts, strict=True)
        if len(part)
    ]
