"""Answer files that other programs wrote: JSON or JSON Lines, every complaint with its line and its cure."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfpo.errors import UserError

_DECODER = json.JSONDecoder()
_SHOWN = 40
_DIGITS = re.compile(r"\s*[0-9]{1,18}\s*")


@dataclass(frozen=True, slots=True)
class Row:
    """One JSON object of a file.

    Attributes:
        where: File and line, for messages.
        record: The object.
        number: 0-based position among the rows of the file.
    """

    where: str
    record: dict[str, Any]
    number: int

    def first(self, *names: str) -> Any:
        """Value of the first of these fields that the row has; None if it has none of them."""
        return next((self.record[name] for name in names if name in self.record), None)

    def text(self, *names: str) -> str:
        """Text of the first of these fields that the row has.

        Raises:
            UserError: The row has none of them, or the value is no text.
        """
        value = self.first(*names)
        if isinstance(value, str):
            return encodable(value)
        expected = " or ".join(map(repr, names))
        if value is None:
            have = ", ".join(map(repr, self.record)) or "no fields"
            raise UserError(
                f"the row has no text {expected}, it has {have}", self.where, f"call the field {names[0]!r}"
            )
        raise UserError(
            f"{expected} must be text, this is {_kind(value)}",
            self.where,
            "write it as a JSON string in quotes",
        )

    def optional(self, *names: str) -> str:
        """Text of the first of these fields that the row has; empty if there is none, or it is no text."""
        value = self.first(*names)
        return encodable(value) if isinstance(value, str) else ""

    def integer(self, *names: str) -> int:
        """Whole number of the first of these fields that the row has; digits in quotes are taken too.

        Raises:
            UserError: The row has none of them, or the value is no whole number.
        """
        value = self.first(*names)
        if isinstance(value, int) and not isinstance(value, bool):
            return value
        if isinstance(value, str) and _DIGITS.fullmatch(value):
            return int(value)
        expected = " or ".join(map(repr, names))
        if value is None:
            have = ", ".join(map(repr, self.record)) or "no fields"
            raise UserError(
                f"the row has no number {expected}, it has {have}", self.where, f"add the field {names[0]!r}"
            )
        raise UserError(
            f"{expected} must be a whole number, this is {_kind(value)} {_short(value)}",
            self.where,
            "write the number of the question or image as the benchmark has it",
        )


def read_rows(path: str | Path) -> list[Row]:
    """The objects of a JSON array or of a JSON Lines file, whatever the file's name ends with.

    A byte order mark, Windows newlines and empty lines do no harm; time is linear in the size of the file.

    Raises:
        UserError: The file cannot be read, is not UTF-8, is empty, has broken JSON, or holds something else
            than objects, with the line where that is.
    """
    text = read_text(path)
    start = len(text) - len(text.lstrip())
    if start == len(text):
        raise UserError("the file is empty", str(path), "write one answer a line, or a JSON list of answers")
    found = _array(text, start, path) if text[start] == "[" else _lines(text, path)
    rows: list[Row] = []
    for line, value in found:
        where = f"{path}:{line}"
        if not isinstance(value, dict):
            cure = (
                "take the inner list out: one level of brackets only"
                if isinstance(value, list)
                else "each answer is a JSON object"
            )
            raise UserError(f"a JSON object is needed, this is {_kind(value)} {_short(value)}", where, cure)
        rows.append(Row(where, value, len(rows)))
    if not rows:
        raise UserError("the file holds no answers", str(path), "write one answer a line, or a list of them")
    return rows


def read_text(path: str | Path) -> str:
    """A UTF-8 text file with or without byte order mark.

    Raises:
        UserError: The file cannot be read or is not UTF-8, with the line of the first wrong byte.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        utf16 = data[:2] in (b"\xff\xfe", b"\xfe\xff")
        encoding = "UTF-16" if utf16 else "WINDOWS-1252"
        raise UserError(
            f"not UTF-8: byte 0x{data[error.start]:02x}",
            where=f"{path}:{line}",
            fix=f"save it as UTF-8, for example `iconv -f {encoding} -t UTF-8 {path}`",
        ) from None


def unique(keys: Sequence[str], rows: Sequence[Row], what: str) -> None:
    """Refuse a file that answers something twice.

    Raises:
        UserError: A key comes twice; both lines are named.
    """
    seen: dict[str, Row] = {}
    for key, row in zip(keys, rows, strict=True):
        if key in seen:
            earlier = seen[key].where.rsplit(":", 1)[-1]
            raise UserError(
                f"{what} {key} is answered twice, first in line {earlier}",
                row.where,
                "keep one of the two lines",
            )
        seen[key] = row


def encodable(text: str) -> str:
    """The text, with halves of surrogate pairs (JSON can hold them, UTF-8 cannot) replaced."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    return text


def _lines(text: str, path: str | Path) -> Iterator[tuple[int, Any]]:
    whole = _whole(text)
    if whole is not None:
        yield 1, whole
        return
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            yield number, json.loads(line)
        except (ValueError, RecursionError) as error:
            raise _broken(error, path, number) from None


def _whole(text: str) -> Any:
    """A file that is a single object over several lines; None if it is not."""
    first = text.lstrip().split("\n", 1)[0].strip()
    if not first.startswith("{") or first.endswith("}"):
        return None
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _array(text: str, start: int, path: str | Path) -> Iterator[tuple[int, Any]]:
    """Elements of a JSON array, each with the line that it starts in."""
    position, line, counted = start + 1, 1, 0
    while True:
        position = _skip(text, position)
        line += text.count("\n", counted, position)
        counted = position
        if text[position : position + 1] == "]":
            rest = _skip(text, position + 1)
            if rest < len(text):
                more = line + text.count("\n", position, rest)
                raise UserError(
                    "something follows the end of the list", f"{path}:{more}", "put all answers in one list"
                )
            return
        try:
            value, end = _DECODER.raw_decode(text, position)
        except (ValueError, RecursionError) as error:
            at = getattr(error, "pos", position)
            raise _broken(error, path, 1 + text.count("\n", 0, at)) from None
        yield line, value
        position = _skip(text, end)
        if text[position : position + 1] == ",":
            position += 1
        elif text[position : position + 1] != "]":
            at = 1 + text.count("\n", 0, position)
            cut = position >= len(text)
            raise UserError(
                "the list does not end" if cut else "a comma is missing between two answers",
                f"{path}:{at}",
                "close it with `]`; the file may have been cut off" if cut else "add it",
            )


def _skip(text: str, position: int) -> int:
    while position < len(text) and text[position] in " \t\r\n":
        position += 1
    return position


def _broken(error: Exception, path: str | Path, line: int) -> UserError:
    why = "too deeply nested" if isinstance(error, RecursionError) else getattr(error, "msg", str(error))
    return UserError(
        f"broken JSON: {why}",
        where=f"{path}:{line}",
        fix="one JSON object a line, or one JSON list; a line that was cut off can be deleted",
    )


def _kind(value: Any) -> str:
    names = {dict: "an object", list: "a list", str: "text", bool: "true or false", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."
