"""Which layout the rows of a source have, and what to say when none or several fit."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from typing import Any

from mfpo.data.layouts.table import BY_NAME, IMAGE_COLUMNS, LAYOUTS, Layout, recognise
from mfpo.data.mapping import ColumnMapping
from mfpo.errors import UserError, nearest

ROWS_BEFORE_GIVING_UP = 100
"""Rows that may fit no layout, at the start of a source, before it counts as unreadable."""

_ALIKE = 0.7


class Recogniser:
    """Finds the layout of row after row; most of them have the columns of the row before.

    Args:
        source: Name of the source, for messages.
        layout: Name of the layout, ``auto`` to find it by the columns.
        mapping: The user's column names, for messages.

    Attributes:
        settled: Whether a row could be read.

    Raises:
        UserError: There is no such layout.
    """

    def __init__(self, source: str, layout: str, mapping: ColumnMapping) -> None:
        self.settled = False
        self._source, self._mapping = source, mapping
        if layout != "auto" and layout not in BY_NAME:
            raise UserError(
                f"there is no layout {layout!r}", where="--layout", fix=nearest(layout, ["auto", *BY_NAME])
            )
        self._given = None if layout == "auto" else BY_NAME[layout]
        self._known: dict[tuple[str, ...], Layout | None] = {}
        self._last: Layout | None = None
        self._first_columns: list[str] = []

    @property
    def doubtful(self) -> bool:
        """Whether the layout of the last row says so little that its values must show whether it is meant."""
        return not self.settled and self._given is None and (self._last is None or self._last.weak)

    def layout(self, row: Mapping[str, Any]) -> Layout | None:
        """The layout of a row, None if it fits none.

        Raises:
            UserError: Several fit, and no row before tells which is meant.
        """
        columns = tuple(row)
        if columns not in self._known:
            self._known[columns] = self._find([str(name) for name in columns])
        found = self._known[columns]
        self._last = found or self._last
        return found

    def _find(self, columns: list[str]) -> Layout | None:
        self._first_columns = self._first_columns or columns
        if self._given is not None:
            return self._given if self._given.columns <= set(columns) else None
        fitting = recognise(columns)
        if len(fitting) > 1 and self._last is None:
            raise UserError(
                f"the columns {', '.join(columns)} fit several layouts: "
                f"{', '.join(f'{layout.name} ({layout.title})' for layout in fitting)}",
                where=self._source,
                fix=f"say which with --layout {fitting[0].name} or --layout {fitting[1].name}",
            )
        return self._last if self._last in fitting else fitting[0] if len(fitting) == 1 else None

    def give_up_after(self, unmatched: int) -> None:
        """Raise the error of [`nothing_fits`] when so many rows at the start fit no layout."""
        if unmatched >= ROWS_BEFORE_GIVING_UP:
            raise self.nothing_fits()

    def nothing_fits(self, columns: Collection[str] | None = None) -> UserError:
        """What was found, what is needed, and the layouts that come nearest.

        Args:
            columns: What was found; those of the first row when None.
        """
        columns = list(columns or self._first_columns)
        # A layout that lacks no column was tried, and its values were others.
        unlike = [layout for layout in LAYOUTS if _missing(layout, columns)] or list(LAYOUTS)
        ranked = sorted(
            unlike if self._given is None else [self._given],
            key=lambda layout: (
                -_share_there(layout, columns),
                layout.weak,
                layout.name != "plain",
                LAYOUTS.index(layout),
            ),
        )
        lacking = (column.split()[0] for column in _missing(ranked[0], columns))
        renames = dict.fromkeys(lacking, "YOURS") | _renames(ranked[0], columns)
        names = " ".join(f"{ours}={theirs}" for ours, theirs in renames.items()) or "OURS=YOURS"
        nearest_ones = "; ".join(f"{layout.name} ({_needed(layout)})" for layout in ranked[:3])
        origin = f" (renamed by {self._mapping.origin})" if self._mapping.names else ""
        return UserError(
            f"the columns fit no known layout; found {', '.join(columns) or 'none'}{origin}; nearest is "
            f"{ranked[0].name}, missing {', '.join(_missing(ranked[0], columns)) or 'nothing'}",
            where=self._source,
            fix=f"name your columns: --columns {names}. The nearest layouts: {nearest_ones}; "
            "all of them are in docs/data.md",
        )


def why(layout: Layout, columns: Collection[str]) -> str:
    """Why a row with these columns has the layout, in one sentence."""
    there = [name for name in columns if name in layout.columns]
    images = [name for name in columns if name in IMAGE_COLUMNS]
    picture = f", and {images[0]} holds the images" if images else ""
    return f"it has the columns {', '.join(there)}{picture}"


def _share_there(layout: Layout, columns: Collection[str]) -> float:
    """The share of a layout's columns that are there; half or fewer may be chance, and count as none."""
    share = len(layout.columns & set(columns)) / len(layout.columns)
    return share if share > 0.5 else 0.0


def _needed(layout: Layout) -> str:
    image = "" if layout.image_id else ", image"
    return f"{', '.join(sorted(layout.columns))}{image}"


def _missing(layout: Layout, columns: Collection[str]) -> list[str]:
    missing = sorted(layout.columns - set(columns))
    if not layout.image_id and not set(columns) & set(IMAGE_COLUMNS):
        missing.append("image (or images)")
    return missing


def _renames(layout: Layout, columns: Collection[str]) -> dict[str, str]:
    """Columns of the source that could be meant by those that are missing."""
    spare = [column for column in columns if column not in layout.columns]
    found = {}
    for column in _missing(layout, columns):
        name = column.split()[0]
        match = difflib.get_close_matches(name, spare, n=1, cutoff=_ALIKE)
        if match:
            found[name] = match[0]
            spare.remove(match[0])
    return found
