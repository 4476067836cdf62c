"""Keywords that come from elsewhere: from a column of the source, or from a function of the user's own."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

from mfpo.data.plugins import load_object
from mfpo.errors import UserError
from mfpo.preferences.candidates import stem
from mfpo.records import Keyword

PhraseSource: TypeAlias = Callable[[list[str]], Sequence[Sequence[str]]]
"""Texts to the keywords of each, best first."""

_WORD = re.compile(r"\w+", re.UNICODE)


def load_phrase_source(spec: str) -> PhraseSource:
    """The function ``package.module:name``, whose results are checked.

    Raises:
        UserError: There is no such function; raised by the function that is returned, too, when its results
            are not one list of strings for each text.
    """
    where = f"--keywords {spec}"
    function = load_object(spec, where)

    def checked(texts: list[str]) -> Sequence[Sequence[str]]:
        result: Any = function(texts)
        fits = isinstance(result, Sequence) and len(result) == len(texts)
        if not fits or not all(_is_list_of_strings(entry) for entry in result):
            raise UserError(
                f"{len(texts)} texts gave {type(result).__name__} instead of a list of strings for each",
                where=where,
                fix="(texts: list[str]) -> list[list[str]]",
            )
        return result

    return checked


def keywords_of(text: str, phrases: Sequence[str]) -> tuple[Keyword, ...]:
    """Phrases as keywords, with the places where they stand in the text.

    Args:
        text: The chosen answer.
        phrases: Its keywords, best first; blanks and repetitions are left out.
    """
    unique = dict.fromkeys(" ".join(phrase.split()) for phrase in phrases if phrase.strip())
    return tuple(
        Keyword(phrase, 1 / (1 + rank), find_spans(text, phrase)) for rank, phrase in enumerate(unique)
    )


def find_spans(text: str, phrase: str) -> tuple[tuple[int, int], ...]:
    """Where a phrase stands in a text: as it is, or in another number ("dog" for "dogs") if it never does.

    Args:
        text: The text.
        phrase: Words; case and what stands between them do not matter.

    Returns:
        Characters (start, end) of each place; none if it does not occur.
    """
    words = list(_WORD.finditer(text))
    wanted = [match.group().lower() for match in _WORD.finditer(phrase)]
    return _places(words, wanted, str) or _places(words, wanted, stem)


def _places(
    words: Sequence[re.Match[str]], wanted: Sequence[str], form: Callable[[str], str]
) -> tuple[tuple[int, int], ...]:
    forms = [form(match.group().lower()) for match in words]
    target = [form(word) for word in wanted]
    size = len(target)
    starts = (i for i in range(len(forms) - size + 1) if size and forms[i : i + size] == target)
    return tuple((words[start].start(), words[start + size - 1].end()) for start in starts)


def _is_list_of_strings(entry: Any) -> bool:
    return (
        isinstance(entry, Sequence) and not isinstance(entry, str) and all(isinstance(p, str) for p in entry)
    )
