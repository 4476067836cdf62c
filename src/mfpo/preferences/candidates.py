"""Keyword candidates of a text: noun phrases that may name a visible thing (paper 3.1, the nodes V)."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import snowballstemmer

from mfpo.preferences.stopwords import (
    CONTENT_WORDS,
    INVISIBLE_ALONE,
    INVISIBLE_NOUNS,
    QUANTITIES,
    VAGUE_ADJECTIVES,
)

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

Kind: TypeAlias = Literal["noun", "adjective", "other"]

_HYPHENS = frozenset("-\u2010\u2011")
_STEMMER = snowballstemmer.stemmer("english")
# Plurals that neither lemmatizer nor stemmer brings to their singular.
_IRREGULAR = {"people": "person"}


@dataclass(frozen=True, slots=True)
class Word:
    """A word of the text; a hyphenated compound is one word.

    Attributes:
        text: As it stands in the text.
        lemma: Lower case, nouns in the singular.
        kind: What part of a candidate it can be.
        stop: Whether it ends a candidate although its part of speech would allow it.
        start: First character in the text.
        end: Character after its last.
        new_line: Whether a line break stands before it.
    """

    text: str
    lemma: str
    kind: Kind
    stop: bool
    start: int
    end: int
    new_line: bool = False


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node of the keyword graph: a phrase with all its occurrences.

    Attributes:
        text: The phrase as it first stands in the text.
        stems: Its stemmed words, lower case; phrases with equal stems are one node.
        offsets: l, index of the first word of each occurrence, increasing.
        spans: Characters (start, end) of each occurrence.
    """

    text: str
    stems: tuple[str, ...]
    offsets: tuple[int, ...]
    spans: tuple[tuple[int, int], ...]

    @property
    def key(self) -> str:
        """The stemmed phrase."""
        return " ".join(self.stems)


@lru_cache(maxsize=65_536)
def stem(word: str) -> str:
    """Snowball's English stem of a word in lower case."""
    stemmed: str = _STEMMER.stemWord(word)
    return stemmed


def read_words(doc: Doc) -> list[Word]:
    """The words of a tagged text, with what spaCy splits at hyphens put together again.

    A compound is a noun if its last part is one ("t-shirt"), an adjective if that is an adjective, an adverb,
    a preposition, a number or a participle ("built-in", "tube-shaped").

    Args:
        doc: Output of the tagger of [`mfpo.preferences.tagging.load_tagger`].
    """
    words: list[Word] = []
    new_line = False
    source = doc.text  # spaCy joins it anew at each access
    for tokens in _hyphenated(doc):
        first, last = tokens[0], tokens[-1]
        if first.is_space:
            new_line = new_line or "\n" in first.text
            continue
        start, end = first.idx, last.idx + len(last)
        kind = _kind(last, compound=len(tokens) > 1)
        lower = _normal(source[start:end])
        lemma = _normal(source[start : last.idx] + last.lemma_) if kind == "noun" else lower
        is_function_word = len(tokens) == 1 and first.is_stop and lower not in CONTENT_WORDS
        stop = is_function_word or lower in VAGUE_ADJECTIVES
        words.append(Word(source[start:end], _IRREGULAR.get(lemma, lemma), kind, stop, start, end, new_line))
        new_line = False
    return words


def find_candidates(text: str, words: Sequence[Word]) -> list[Candidate]:
    """The candidates of a text, in the order of their first occurrence.

    A candidate is a longest run of nouns, proper nouns and adjectives without stop words that ends in a noun
    which can name a visible thing; a head that cannot is cut off ("living room scene" gives "living room").

    Args:
        text: The text the words were read from.
        words: Its words, from [`read_words`].
    """
    occurrences: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}
    for start, end in _runs(words):
        end = _without_invisible_head(words, start, end)
        if end == start:
            continue
        stems = tuple(stem(word.lemma) for word in words[start:end])
        place = (start, words[start].start, words[end - 1].end)
        occurrences.setdefault(stems, []).append(place)
    return [
        Candidate(
            text=text[places[0][1] : places[0][2]],
            stems=stems,
            offsets=tuple(offset for offset, _, _ in places),
            spans=tuple((start, end) for _, start, end in places),
        )
        for stems, places in occurrences.items()
    ]


def _hyphenated(doc: Doc) -> Iterator[list[Token]]:
    """The tokens, those that hyphens join without white space in one list."""
    index = 0
    while index < len(doc):
        end = index + 1
        while (
            end + 1 < len(doc)
            and doc[end].text in _HYPHENS
            and not doc[end - 1].whitespace_
            and not doc[end].whitespace_
            and _has_letter_or_digit(doc[end - 1].text)
            and _has_letter_or_digit(doc[end + 1].text)
        ):
            end += 2
        yield list(doc[index:end])
        index = end


def _kind(token: Token, *, compound: bool) -> Kind:
    if sum(character.isalpha() for character in token.text) < (1 if compound else 2):
        return "other"
    if token.pos_ in ("NOUN", "PROPN"):
        return "noun"
    if token.pos_ == "ADJ":
        return "adjective"
    if compound and (token.pos_ in ("ADV", "ADP", "NUM") or token.tag_ in ("VBN", "VBD", "VBG")):
        return "adjective"
    return "other"


def _runs(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
    """Longest runs [start, end) of nouns and adjectives on one line and without stop words."""
    start = 0
    for index, word in enumerate(words):
        if word.stop or word.kind == "other":
            yield start, index
            start = index + 1
        elif word.new_line:
            yield start, index
            start = index
    yield start, len(words)


def _without_invisible_head(words: Sequence[Word], start: int, end: int) -> int:
    """The end of the run up to its last noun that can name a visible thing; ``start`` if there is none."""
    while end > start:
        head = words[end - 1]
        names = {head.lemma, _normal(head.text)}
        behind_noun = end - 1 > start and words[end - 2].kind == "noun"
        before_of = end < len(words) and words[end].text.lower() == "of"
        invisible = (
            names & INVISIBLE_NOUNS
            or (names & INVISIBLE_ALONE and not behind_noun)
            or (names & QUANTITIES and before_of)
        )
        if head.kind == "noun" and not invisible:
            return end
        end -= 1
    return start


def _has_letter_or_digit(text: str) -> bool:
    return any(character.isalnum() for character in text)


def _normal(text: str) -> str:
    """Lower case, composed Unicode, plain hyphens."""
    text = unicodedata.normalize("NFC", text).lower()
    for hyphen in _HYPHENS:
        text = text.replace(hyphen, "-")
    return text
