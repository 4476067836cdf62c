"""Rows of different lengths in two flat tensors, as they are stored."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_VALUES, _OFFSETS = ".tokens", ".token_offsets"


@dataclass(frozen=True, slots=True)
class Ragged:
    """N rows of numbers, one after the other.

    Attributes:
        values: All numbers, float32 ``[T]``.
        offsets: Where each row begins, and where the last one ends, int64 ``[N + 1]``.
    """

    values: Tensor
    offsets: Tensor

    @classmethod
    def of(cls, rows: Sequence[Tensor]) -> Ragged:
        """The rows as they are stored.

        Args:
            rows: One-dimensional tensors.
        """
        lengths = torch.tensor([0, *map(len, rows)])
        return cls(torch.cat(list(rows)).float() if rows else torch.zeros(0), lengths.cumsum(0))

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Tensor:
        return self.values[self.offsets[row] : self.offsets[row + 1]]


def ragged_to_tensors(columns: Mapping[str, Ragged]) -> dict[str, Tensor]:
    """Named columns as tensors for a file."""
    return {name + _VALUES: column.values for name, column in columns.items()} | {
        name + _OFFSETS: column.offsets for name, column in columns.items()
    }


def ragged_from_tensors(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Ragged], dict[str, Tensor]]:
    """The columns of a file, and the tensors that belong to none."""
    names = [name.removesuffix(_OFFSETS) for name in tensors if name.endswith(_OFFSETS)]
    columns = {name: Ragged(tensors[name + _VALUES], tensors[name + _OFFSETS]) for name in names}
    rest = {name: value for name, value in tensors.items() if not name.endswith((_VALUES, _OFFSETS))}
    return columns, rest
