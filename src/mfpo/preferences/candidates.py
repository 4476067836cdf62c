"""Keyword candidates of a text: noun phrases that name a thing to be seen (paper 3.1, the nodes V)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from mfpo.preferences.lexicon import Role
from mfpo.preferences.senses import role_of
from mfpo.preferences.words import Word, read_words, stem

__all__ = ["Candidate", "Word", "find_candidates", "noun_runs", "read_words", "stem"]


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


def find_candidates(text: str, words: Sequence[Word]) -> list[Candidate]:
    """The candidates of a text, in the order of their first occurrence.

    A candidate is a longest run of nouns, proper nouns and adjectives without stop words that ends in a noun
    which names a thing; a head that names nothing visible, or a part of a body, is cut off ("living room
    scene" gives "living room", "horse head" gives "horse"). Parts of bodies and settings ("hand", "sky",
    "kitchen") are the candidates of a text that names no thing.

    Args:
        text: The text the words were read from.
        words: Its words, from [`read_words`].
    """
    runs = list(noun_runs(words))
    things = ((start, _end_of_name(words, start, end, ("thing",))) for start, end in runs)
    places = [(start, end) for start, end in things if end > start]
    if not places:
        others = ((start, _end_of_name(words, start, end, ("part", "setting"))) for start, end in runs)
        places = [(start, end) for start, end in others if end > start]
    occurrences: dict[tuple[str, ...], list[tuple[int, int, int]]] = {}
    for start, end in places:
        stems = tuple(stem(word.lemma) for word in words[start:end])
        occurrences.setdefault(stems, []).append((start, words[start].start, words[end - 1].end))
    return [
        Candidate(
            text=text[found[0][1] : found[0][2]],
            stems=stems,
            offsets=tuple(offset for offset, _, _ in found),
            spans=tuple((start, end) for _, start, end in found),
        )
        for stems, found in occurrences.items()
    ]


def noun_runs(words: Sequence[Word]) -> Iterator[tuple[int, int]]:
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


def _end_of_name(words: Sequence[Word], start: int, end: int, wanted: Sequence[Role]) -> int:
    """The end of the run up to its last noun that names what is wanted; ``start`` if there is none.

    A setting is never cut off: before it stands what it is for, which need not be there ("train station").
    """
    while end > start:
        if words[end - 1].kind == "noun":
            role = role_of(words, start, end)
            if role in wanted:
                return end
            if role == "setting":
                return start
        end -= 1
    return start
