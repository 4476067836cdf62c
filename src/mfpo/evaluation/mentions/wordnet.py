"""WordNet's dictionary forms, from its index and exception files alone.

NLTK's lemmatiser needs all of WordNet in memory, which takes seconds; its result depends on two kinds of
files only (Fellbaum, 1998; the algorithm is WordNet's ``morphy``): a word has the base forms that the list of
exceptions or the rules of detachment give and that the index knows; the shortest one is taken. The rules are
applied once.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal, TypeAlias

WordNetPos: TypeAlias = Literal["n", "v", "a", "r"]

_FILES: dict[WordNetPos, str] = {"n": "noun", "v": "verb", "a": "adj", "r": "adv"}
_ENDINGS: Mapping[WordNetPos, Sequence[tuple[str, str]]] = {
    "n": tuple(
        zip(
            ["s", "ses", "ves", "xes", "zes", "ches", "shes", "men", "ies"],
            ["", "s", "f", "x", "z", "ch", "sh", "man", "y"],
            strict=True,
        )
    ),
    "v": (
        ("s", ""),
        ("ies", "y"),
        ("es", "e"),
        ("es", ""),
        ("ed", "e"),
        ("ed", ""),
        ("ing", "e"),
        ("ing", ""),
    ),
    "a": (("er", ""), ("est", ""), ("er", "e"), ("est", "e")),
    "r": (),
}


class Morphy:
    """The lemmatiser; a file is read when its part of speech is first asked for.

    Args:
        read: Content of one of WordNet's files by its name, for example ``index.noun``.
    """

    def __init__(self, read: Callable[[str], bytes]) -> None:
        self._read = read
        self._index: dict[WordNetPos, frozenset[str]] = {}
        self._exceptions: dict[WordNetPos, dict[str, list[str]]] = {}
        self.lemma = lru_cache(maxsize=500_000)(self._lemma)

    def _lemma(self, word: str, pos: WordNetPos) -> str:
        """The shortest base form; the word itself if there is none."""
        return min(self.base_forms(word, pos), key=len, default=word)

    def base_forms(self, word: str, pos: WordNetPos) -> list[str]:
        """All base forms that WordNet knows, in the order of its rules."""
        index, exceptions = self._load(pos)
        forms = exceptions.get(word)
        if forms is None:
            forms = [word[: -len(end)] + new for end, new in _ENDINGS[pos] if word.endswith(end)]
        return [form for form in dict.fromkeys([word, *forms]) if form and form in index]

    def _load(self, pos: WordNetPos) -> tuple[frozenset[str], dict[str, list[str]]]:
        if pos not in self._index:
            # The licence stands before the entries, indented.
            lines = self._read(f"index.{_FILES[pos]}").decode().split("\n")
            self._index[pos] = frozenset(line.partition(" ")[0] for line in lines if not line.startswith(" "))
            entries = [line.split() for line in self._read(f"{_FILES[pos]}.exc").decode().split("\n")]
            self._exceptions[pos] = {entry[0]: entry[1:] for entry in entries if entry}
        return self._index[pos], self._exceptions[pos]
