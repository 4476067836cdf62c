"""The one exception a user may see, the record of a row that was left out, and words for messages."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import asdict, dataclass

LONGEST_DETAIL = 1000
"""Characters of a skipped row's explanation; rows may hold a million."""


class UserError(Exception):
    """A mistake in the input or the settings, told without a traceback.

    Args:
        what: What is wrong, in one sentence.
        where: Where it is: a file, a row, a column, a flag.
        fix: What the user can do about it.
    """

    def __init__(self, what: str, where: str = "", fix: str = "") -> None:
        super().__init__(what, where, fix)
        self.what, self.where, self.fix = what, where, fix

    def __str__(self) -> str:
        where = f"{self.where}: " if self.where else ""
        fix = f"\n  fix: {self.fix}" if self.fix else ""
        return f"{where}{self.what}{fix}"


class Stopped(KeyboardInterrupt):
    """Long work was ended by a signal, in good order.

    Args:
        message: What was done and how to go on.
        exit_code: What the command returns: 128 and the signal's number.
    """

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.message, self.exit_code = message, exit_code

    def __str__(self) -> str:
        return self.message


@dataclass(frozen=True, slots=True)
class Skip:
    """A row that was left out, as it is written to ``skipped.jsonl``.

    Attributes:
        where: File and line or row of the source, for example ``pairs.jsonl:7``.
        reason: Short machine-readable reason, for example ``missing-image``; the counts are grouped by it.
        detail: What exactly was wrong, for a person; what rows hold is quoted so that any file can hold it,
            and cut when it is long.
    """

    where: str
    reason: str
    detail: str = ""

    def __post_init__(self) -> None:
        for name in ("where", "detail"):
            text = getattr(self, name)
            if len(text) > LONGEST_DETAIL:
                text = f"{text[:LONGEST_DETAIL]}..."
            object.__setattr__(self, name, text.encode(errors="backslashreplace").decode())

    def to_dict(self) -> dict[str, str]:
        """The record as a JSON object."""
        return asdict(self)


class RowError(Exception):
    """One row cannot be used; the run goes on without it.

    Args:
        reason: Short machine-readable reason, see [`Skip.reason`].
        detail: What exactly was wrong, for a person.
    """

    def __init__(self, reason: str, detail: str = "") -> None:
        super().__init__(reason, detail)
        self.reason, self.detail = reason, detail

    def __str__(self) -> str:
        return f"{self.reason}: {self.detail}" if self.detail else self.reason


def counted(number: int, what: str) -> str:
    """A number of things, for people: ``1 step``, ``1,200 steps``."""
    return f"{number:,} {what}" + ("" if number == 1 else "s")


def nearest(name: str, known: Iterable[str]) -> str:
    """A "did you mean" clause for an unknown name, or the list of known ones.

    Args:
        name: What the user wrote.
        known: The names that exist.
    """
    known = sorted(known)
    match = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {match[0]!r}?" if match else f"choose one of: {', '.join(known)}"
