"""The items of a large JSON array or object, one at a time, so that memory does not grow with the file."""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import IO

CHUNK = 2**20
LONGEST_ITEM = 2**28
"""Characters that one row may have; more would not fit into memory several times over."""

_STRUCTURE = re.compile(r'["\[\]{}:,]')
_STRING_END = re.compile(r'["\\]')
_CLOSES = {"]": "[", "}": "{"}


class BrokenJsonError(ValueError):
    """The text is no JSON array or object, or ends early."""


@dataclass(slots=True)
class JsonItem:
    """One item.

    Attributes:
        key: Its key, where the document is an object.
        text: Its JSON text, which may still be broken inside; None when it is longer than [`LONGEST_ITEM`].
    """

    key: str | None
    text: str | None


def json_items(file: IO[bytes]) -> Iterator[JsonItem]:
    """The items of the array, or the values of the object, that a file in UTF-8 holds.

    Only brackets and strings are looked at, so that a broken item between sound ones costs itself.

    Raises:
        BrokenJsonError: The brackets do not match, the file ends inside the document, or goes on after it.
    """
    scanner = _Scanner()
    item = _Collected()
    key: str | None = None
    opener = ""
    for chunk in _chunks(file):
        item.begin(chunk)
        for sign, at in scanner.signs(chunk):
            if not opener:
                if sign not in "[{" or chunk[:at].strip():
                    raise BrokenJsonError("the document is neither an array nor an object")
                opener = sign
                item.start(at + 1)
            elif sign == ":" and opener == "{" and key is None and len(scanner.open) == 1:
                key = _key(item.take(at))
            elif (sign == "," and len(scanner.open) == 1) or not scanner.open:
                text = item.take(at)
                if sign == "," or text is None or text.strip():
                    yield JsonItem(key, text)
                key = None
        item.end()
    if not opener or scanner.open:
        raise BrokenJsonError("the file ends inside the document" if opener else "the file is empty")
    if (item.take(0) or "").strip():
        raise BrokenJsonError("something follows the end of the document")


class _Collected:
    """The text of the item that is being read, which may run over many chunks."""

    def __init__(self) -> None:
        self._parts: list[str] = []
        self._size = self._start = 0
        self._chunk = ""

    def begin(self, chunk: str) -> None:
        """Go on in another chunk."""
        self._chunk, self._start = chunk, 0

    def start(self, at: int) -> None:
        """An item begins here."""
        self._parts, self._size, self._start = [], 0, at

    def take(self, at: int) -> str | None:
        """The item that ends before a place, and begin the next one after it; None if it is too long."""
        self._add(self._chunk[self._start : at])
        text = "".join(self._parts) if self._size <= LONGEST_ITEM else None
        self.start(at + 1)
        return text

    def end(self) -> None:
        """The chunk ends."""
        self._add(self._chunk[self._start :])
        self.begin("")

    def _add(self, text: str) -> None:
        self._size += len(text)
        if self._size <= LONGEST_ITEM:
            self._parts.append(text)
        else:
            self._parts = []


class _Scanner:
    """Finds the signs outside of strings that divide a document.

    Attributes:
        open: The brackets that are open after the last sign.
    """

    def __init__(self) -> None:
        self.open: list[str] = []
        self._in_string = self._escaped = self._ended = False

    def signs(self, chunk: str) -> Iterator[tuple[str, int]]:
        """Brackets, commas and colons with their places; ``open`` holds the state after each.

        Raises:
            BrokenJsonError: A bracket closes what is not open.
        """
        at = 0
        while at < len(chunk):
            if self._escaped:
                self._escaped = False
                at += 1
                continue
            found = (_STRING_END if self._in_string else _STRUCTURE).search(chunk, at)
            if found is None:
                return
            at, sign = found.end(), found.group()
            if sign == "\\":
                self._escaped = True
            elif sign == '"':
                self._in_string = not self._in_string
            else:
                self._follow(sign)
                yield sign, at - 1

    def _follow(self, sign: str) -> None:
        if self._ended:
            raise BrokenJsonError("something follows the end of the document")
        if sign in "[{":
            self.open.append(sign)
        elif sign in "]}":
            if not self.open or self.open.pop() != _CLOSES[sign]:
                raise BrokenJsonError(f"a {sign} that closes nothing")
            self._ended = not self.open


def _chunks(file: IO[bytes]) -> Iterator[str]:
    decoder = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape")
    while data := file.read(CHUNK):
        yield decoder.decode(data)
    yield decoder.decode(b"", True)


def _key(text: str | None) -> str:
    try:
        return str(json.loads(text or ""))
    except ValueError as error:
        raise BrokenJsonError(str(error)) from None
