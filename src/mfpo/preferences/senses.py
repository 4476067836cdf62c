"""Which sense a noun has where it stands: a thing, a part of one, a setting, or nothing that can be seen."""

from __future__ import annotations

from collections.abc import Sequence

from mfpo.preferences.lexicon import Role, role
from mfpo.preferences.lexicon.invisible import INVISIBLE_ALONE, INVISIBLE_NOUNS, QUANTITIES
from mfpo.preferences.lexicon.visible import (
    COLOUR_OR_FRUIT,
    COLOUR_OR_SUBSTANCE,
    COLOURS,
    COMPOUNDS,
    DETERMINERS,
    ENTERED,
    ENTERING,
    SHADES,
    SUBSTANCES,
    THING_WITH_ARTICLE,
)
from mfpo.preferences.words import Word, normal

_COLOUR_WORDS = COLOURS | COLOUR_OR_FRUIT


def role_of(words: Sequence[Word], start: int, end: int) -> Role:
    """What the phrase ``words[start:end]`` names, by its last word and the words around.

    Args:
        words: The words of the text.
        start: First word of the phrase.
        end: Word after its last one, which is a noun.
    """
    head = words[end - 1]
    text, lemma = normal(head.text), head.lemma
    names = {text, lemma}
    behind_noun = end - 1 > start and words[end - 2].kind == "noun"
    if end - 1 > start and (normal(words[end - 2].text), lemma) in COMPOUNDS:
        return "thing"
    if names & INVISIBLE_ALONE:
        return "thing" if behind_noun else "invisible"
    if names & QUANTITIES and _word(words, end) == "of":
        return "invisible"
    if text == lemma and not behind_noun and _without_article(words, start, end, lemma):
        return "invisible"
    if lemma in ENTERED and _word(words, _before(words, start)) in ENTERING:
        return "setting"
    return role(text, lemma)


def _without_article(words: Sequence[Word], start: int, end: int, lemma: str) -> bool:
    """Whether a word that is a thing or a colour, a game or a substance lacks what would make it a thing."""
    before = _word(words, start - 1)
    if before in DETERMINERS or words[start].kind == "other":
        return False
    if lemma in THING_WITH_ARTICLE or lemma in COLOUR_OR_FRUIT:
        return True
    if lemma in COLOUR_OR_SUBSTANCE:
        shaded = end - 1 > start and normal(words[end - 2].text) in SHADES
        if shaded or before == "in" or _beside_a_colour(words, start, end):
            return True
    if lemma not in SUBSTANCES:
        return False
    made_of = before in ("of", "from", "in") and _lemma(words, start - 2) not in QUANTITIES
    return made_of or (before == "and" and _lemma(words, start - 2) in SUBSTANCES | INVISIBLE_NOUNS)


def _beside_a_colour(words: Sequence[Word], start: int, end: int) -> bool:
    """Whether "and", "or" or a comma joins the phrase with the name of a colour."""
    left = _word(words, start - 1) in ("and", "or", ",") and _word(words, start - 2) in _COLOUR_WORDS
    right = _word(words, end) in ("and", "or", ",") and _word(words, end + 1) in _COLOUR_WORDS
    return left or right


def _before(words: Sequence[Word], start: int) -> int:
    """Index of the word before a phrase and its article."""
    index = start - 1
    while index >= 0 and _word(words, index) in DETERMINERS:
        index -= 1
    return index


def _word(words: Sequence[Word], index: int) -> str:
    return normal(words[index].text) if 0 <= index < len(words) else ""


def _lemma(words: Sequence[Word], index: int) -> str:
    return words[index].lemma if 0 <= index < len(words) else ""
