"""Verdicts that a reader gave: JSON Lines of ``{"id": ..., "verdict": "good" | "bad" | "", "note": ...}``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from mfpo.data.files import read_jsonl
from mfpo.errors import UserError

VERDICTS = ("good", "bad", "")


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a reader thinks of a row.

    Attributes:
        id: The row's id.
        verdict: ``good``, ``bad``, or empty for a note alone.
        note: In the reader's words.
    """

    id: str
    verdict: str
    note: str = ""


def load_verdicts(path: str | Path) -> dict[str, Verdict]:
    """Read exported verdicts by id; of several about a row the last one counts.

    Raises:
        UserError: The file cannot be read, or a line is no verdict.
    """
    found = {}
    for number, record in enumerate(read_jsonl(path), start=1):
        identifier, verdict, note = (record.get(key, "") for key in ("id", "verdict", "note"))
        if not isinstance(identifier, str) or not identifier or verdict not in VERDICTS:
            raise UserError(
                "a line that is no verdict",
                where=f"{path}: record {number}",
                fix='write {"id": "...", "verdict": "good" or "bad", "note": "..."}',
            )
        found[identifier] = Verdict(identifier, verdict, str(note or ""))
    return found
