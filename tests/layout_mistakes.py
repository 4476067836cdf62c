"""Mistakes that a layout of shared prompts could have, for tests and benchmarks."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor

from mfpo.models.packing import Forest


def positions(shift: Callable[[Tensor], Any], running: bool = False) -> Callable[[Forest], Tensor]:
    """Wrong positions of responses: shifted token by token, or running on from one response to the next."""

    def depths(self: Forest) -> Tensor:
        parts = []
        for tree in self.trees:
            start = tree.prompt
            parts.append(torch.arange(tree.prompt))
            for length in tree.responses:
                at = torch.arange(length)
                parts.append(start + at + shift(at))
                start += length if running else 0
        return torch.cat(parts)

    return depths


def seen_by_others(self: Forest, number: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """A mask with which a response sees those before it."""
    tree = self.trees[number]
    visible = torch.ones(sum(tree.responses), tree.length).tril(tree.prompt).bool()
    return torch.zeros(visible.shape, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)


MISTAKES: dict[str, tuple[str, Callable[..., Tensor]]] = {
    "responses see those before them": ("tail_mask", seen_by_others),
    "positions run on": ("depths", positions(lambda at: 0, running=True)),
    "positions off by one": ("depths", positions(lambda at: 1)),
    "first position off by one": ("depths", positions(lambda at: at == 0)),
}
"""Name of the method of a forest that is wrong, and the wrong one."""


def made(mistake: str) -> AbstractContextManager[Any]:
    """A block in which layouts have that mistake."""
    name, wrong = MISTAKES[mistake]
    return patch.object(Forest, name, wrong)
