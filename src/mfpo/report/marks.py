"""Text cut into pieces, some of them marked; templates turn the pieces into HTML and escape them."""

from __future__ import annotations

import difflib
import itertools
import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

# A word with its inner hyphens and apostrophes, or one sign of a script without spaces.
_WORD = re.compile(r"[぀-ヿ㐀-鿿]|[^\W_぀-ヿ㐀-鿿]+(?:[-'’][^\W_぀-ヿ㐀-鿿]+)*")

MOST_EQUAL_PAIRS = 50_000
"""Pairs of equal words, one of either text, up to which texts are compared place by place."""


@dataclass(frozen=True, slots=True)
class Mark:
    """A stretch of a text that is to stand out.

    Attributes:
        start: Its first character.
        end: One past its last character.
        style: CSS class or classes, chosen by us and never by the data.
        title: What is shown when the pointer rests on it.
    """

    start: int
    end: int
    style: str
    title: str = ""


@dataclass(frozen=True, slots=True)
class Piece:
    """A piece of a text with its mark, if it has one.

    Attributes:
        text: The characters.
        style: CSS class of the mark; empty for plain text.
        title: Tooltip of the mark.
    """

    text: str
    style: str = ""
    title: str = ""


def pieces(text: str, marks: Iterable[Mark] = ()) -> list[Piece]:
    """Cut a text at its marks.

    Of marks that overlap the earlier one in ``marks`` is kept; marks outside the text are dropped.

    Args:
        text: Any text.
        marks: The marks, the important ones first.

    Returns:
        Pieces whose texts joined are ``text``.
    """
    kept: list[Mark] = []
    for mark in marks:
        inside = 0 <= mark.start < mark.end <= len(text)
        if inside and all(mark.end <= other.start or other.end <= mark.start for other in kept):
            kept.append(mark)
    parts, position = [], 0
    for mark in sorted(kept, key=lambda mark: mark.start):
        if position < mark.start:
            parts.append(Piece(text[position : mark.start]))
        parts.append(Piece(text[mark.start : mark.end], mark.style, mark.title))
        position = mark.end
    if position < len(text):
        parts.append(Piece(text[position:]))
    return parts


def changed_words(before: str, after: str, style: str = "changed") -> list[Mark]:
    """Marks on the words of ``after`` that a word-by-word comparison does not find in ``before``.

    Case and punctuation are ignored; neighbouring words share a mark. Of texts that repeat themselves so much
    that the comparison would take minutes, only words that ``before`` has nowhere are marked.

    Args:
        before: The text compared with.
        after: The text to mark.
        style: CSS class of the marks.
    """
    words = list(_WORD.finditer(after))
    left = [match.group().casefold() for match in _WORD.finditer(before)]
    right = [match.group().casefold() for match in words]
    return [Mark(words[start].start(), words[end - 1].end(), style) for start, end in _differing(left, right)]


def _differing(left: Sequence[str], right: Sequence[str]) -> Iterator[tuple[int, int]]:
    """Ranges [start, end) of ``right`` that ``left`` lacks: there, or anywhere if both repeat themselves."""
    counts = Counter(left)
    if sum(counts[word] for word in right) <= MOST_EQUAL_PAIRS:
        matcher = difflib.SequenceMatcher(None, left, right, autojunk=False)
        for operation, _, _, start, end in matcher.get_opcodes():
            if operation in ("insert", "replace"):
                yield start, end
        return
    for is_new, group in itertools.groupby(range(len(right)), key=lambda index: right[index] not in counts):
        places = list(group)
        if is_new:
            yield places[0], places[-1] + 1


def layered(
    text: str, keywords: Sequence[Sequence[tuple[int, int]]], changed: Iterable[Mark]
) -> Iterator[tuple[str, int, bool]]:
    """Cut a text at two layers of marks, which may overlap.

    Args:
        text: Any text.
        keywords: Spans of each keyword, the important ones first; of those that overlap the earlier is kept.
        changed: Marks of the other layer.

    Yields:
        (piece, number of its keyword or -1, whether it lies in a mark of ``changed``); the pieces joined are
        ``text``.
    """
    keyword_of, is_changed = [-1] * len(text), [False] * len(text)
    for number, spans in enumerate(keywords):
        for start, end in spans:
            if 0 <= start < end <= len(text) and all(owner < 0 for owner in keyword_of[start:end]):
                keyword_of[start:end] = [number] * (end - start)
    for mark in changed:
        is_changed[mark.start : mark.end] = [True] * (mark.end - mark.start)
    layers = zip(text, keyword_of, is_changed, strict=True)
    for (keyword, differs), group in itertools.groupby(layers, key=lambda entry: entry[1:]):
        yield "".join(letter for letter, *_ in group), keyword, differs
