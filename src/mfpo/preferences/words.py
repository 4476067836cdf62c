"""The words of a tagged text, as keyword candidates are made of them."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import TYPE_CHECKING, Literal, TypeAlias

import snowballstemmer

from mfpo.preferences.lexicon.invisible import CONTENT_WORDS, VAGUE_ADJECTIVES
from mfpo.preferences.lexicon.visible import COMPOUNDS

if TYPE_CHECKING:
    from spacy.tokens import Doc, Token

Kind: TypeAlias = Literal["noun", "adjective", "other"]

_HYPHENS = frozenset("-\u2010\u2011")
_STEMMER = snowballstemmer.stemmer("english")
_SECOND_WORDS = frozenset(second for _, second in COMPOUNDS)
# Plurals that the lemmatizer brings to no singular, or to a wrong one.
_IRREGULAR = {"people": "person", "leave": "leaf", "taxis": "taxi", "thermo": "thermos", "sens": "sense"}


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
        lower = normal(source[start:end])
        lemma = normal(source[start : last.idx] + last.lemma_) if kind == "noun" else lower
        is_function_word = len(tokens) == 1 and first.is_stop and lower not in CONTENT_WORDS
        stop = is_function_word or (kind == "adjective" and lower in VAGUE_ADJECTIVES)
        if lower in _SECOND_WORDS and words and (normal(words[-1].text), lower) in COMPOUNDS:
            kind, lemma, stop = "noun", lower, False
            words[-1] = replace(words[-1], kind="noun" if words[-1].kind == "other" else words[-1].kind)
        words.append(Word(source[start:end], _IRREGULAR.get(lemma, lemma), kind, stop, start, end, new_line))
        new_line = False
    return words


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


def _has_letter_or_digit(text: str) -> bool:
    return any(character.isalnum() for character in text)


@lru_cache(maxsize=65_536)
def normal(text: str) -> str:
    """Lower case, composed Unicode, plain hyphens."""
    text = unicodedata.normalize("NFC", text).lower()
    for hyphen in _HYPHENS:
        text = text.replace(hyphen, "-")
    return text
