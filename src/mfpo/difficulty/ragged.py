"""Rows of different lengths in two flat tensors, as they are stored."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

_VALUES, _LENGTHS = ".tokens", ".token_lengths"


@dataclass(frozen=True)
class Ragged:
    """N rows of numbers, one after the other; two of them are joined by joining both tensors.

    Attributes:
        values: All numbers, float32 ``[T]``.
        lengths: How many belong to each row, int64 ``[N]``.
    """

    values: Tensor
    lengths: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Ragged:
        """The rows as they are stored.

        Args:
            rows: One-dimensional tensors.
        """
        values = torch.cat(list(rows)).float() if rows else torch.zeros(0)
        return cls(values, torch.tensor([len(row) for row in rows], dtype=torch.int64))

    @cached_property
    def _ends(self) -> list[int]:
        return [0, *self.lengths.cumsum(0).tolist()]

    def __len__(self) -> int:
        return len(self.lengths)

    def __getitem__(self, row: int) -> Tensor:
        return self.values[self._ends[row] : self._ends[row + 1]]


def ragged_to_tensors(columns: Mapping[str, Ragged]) -> dict[str, Tensor]:
    """Named columns as tensors for a file."""
    return {name + _VALUES: column.values for name, column in columns.items()} | {
        name + _LENGTHS: column.lengths for name, column in columns.items()
    }


def ragged_from_tensors(tensors: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Ragged]:
    """The columns of those names that a file has.

    Args:
        tensors: Tensors of the file.
        names: Names of columns.
    """
    return {
        name: Ragged(tensors[name + _VALUES], tensors[name + _LENGTHS])
        for name in names
        if name + _VALUES in tensors
    }


def is_ragged(name: str) -> bool:
    """Whether a tensor of that name is part of a column."""
    return name.endswith((_VALUES, _LENGTHS))
