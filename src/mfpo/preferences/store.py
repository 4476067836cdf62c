"""What was found in pictures, kept on disk: nothing is searched twice, whatever interrupts a build."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from mfpo.errors import UserError
from mfpo.records import Region

FORMAT = 1
"""Raised when what is stored changes its meaning."""

_TABLES = """
CREATE TABLE IF NOT EXISTS pictures (
    key TEXT PRIMARY KEY, height INTEGER, width INTEGER
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS regions (
    key TEXT, keyword TEXT, found TEXT, PRIMARY KEY (key, keyword)
) WITHOUT ROWID;
"""
_SECONDS_TO_WAIT = 120


@dataclass(frozen=True, slots=True)
class Picture:
    """What is known of a picture.

    Attributes:
        key: Identifies it, see [`mfpo.preferences.search.Request`].
        size: (height, width) of the upright picture; None if it cannot be opened.
        problem: Reason and detail why it cannot be opened; not stored, since another Pillow may open it.
        failure: Reason and detail why the search in it failed; not stored.
        regions: Found regions, before any selection, by keyword; empty where a keyword was not found.
    """

    key: str
    size: tuple[int, int] | None = None
    problem: tuple[str, str] | None = None
    failure: tuple[str, str] | None = None
    regions: dict[str, tuple[Region, ...]] = field(default_factory=dict)


class RegionStore:
    """A SQLite file of [`Picture`]s.

    What is put in survives the death of the process. Several processes may use one file.

    Args:
        path: The file; created with its folder. ``:memory:`` keeps everything in memory.

    Raises:
        UserError: The file cannot be opened, or is damaged.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = path
        try:
            if path != ":memory:":
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(path, timeout=_SECONDS_TO_WAIT)
            # The log survives a killed process; a power cut may cost the last entries, never the file.
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute("PRAGMA synchronous=NORMAL")
            self._file.executescript(_TABLES)
        except (sqlite3.Error, OSError) as error:
            raise _unusable(path, error) from None

    def __enter__(self) -> RegionStore:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def get(self, key: str, keywords: Iterable[str]) -> Picture | None:
        """A picture with what was found of some keywords; those never searched for are absent.

        Args:
            key: The picture's key.
            keywords: Keywords of interest.

        Returns:
            None for a picture that was never opened.
        """
        try:
            # Earlier versions stored pictures that could not be opened, without a size.
            size = self._file.execute(
                "SELECT height, width FROM pictures WHERE key = ? AND height IS NOT NULL", (key,)
            ).fetchone()
            if size is None:
                return None
            wanted = list(dict.fromkeys(keywords))
            marks = ",".join("?" * len(wanted))
            found = self._file.execute(
                f"SELECT keyword, found FROM regions WHERE key = ? AND keyword IN ({marks})", (key, *wanted)
            ).fetchall()
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None
        return Picture(key, size, regions={word: _read(word, text, size) for word, text in found})

    def put(self, picture: Picture) -> None:
        """Keep the size of a picture that could be opened, and what was found in it."""
        assert picture.size is not None, "what could not be opened is not kept"
        try:
            with self._file:
                self._file.execute(
                    "INSERT OR REPLACE INTO pictures (key, height, width) VALUES (?, ?, ?)",
                    (picture.key, *picture.size),
                )
                self._file.executemany(
                    "INSERT OR REPLACE INTO regions VALUES (?, ?, ?)",
                    [(picture.key, word, _write(regions)) for word, regions in picture.regions.items()],
                )
        except sqlite3.Error as error:
            raise _unusable(self.path, error) from None


def _write(regions: tuple[Region, ...]) -> str:
    return json.dumps([[list(region.box), region.score, region.rle] for region in regions])


def _read(keyword: str, text: str, size: tuple[int, int]) -> tuple[Region, ...]:
    return tuple(
        Region(keyword, (box[0], box[1], box[2], box[3]), score, rle, size)
        for box, score, rle in json.loads(text)
    )


def _unusable(path: str | Path, error: Exception) -> UserError:
    return UserError(
        f"the store of regions cannot be used: {error}",
        where=str(path),
        fix="delete the file if it is damaged, what is in it will be computed again; or set MFPO_CACHE to a "
        "folder you may write to",
    )
