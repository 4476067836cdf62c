"""What English nouns name, as far as it decides whether their region makes a good rejected image.

A keyword should be a thing that one can point at and that ends somewhere: noise on it changes what the
answer says, and nothing else. [`role`] tells such things from parts of bodies, from grounds and places that
a picture is set in, and from what cannot be seen at all.
"""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, TypeAlias

from mfpo.preferences.lexicon.invisible import INVISIBLE_NOUNS
from mfpo.preferences.lexicon.visible import PARTS, SEEN, SETTINGS

ABSTRACT_NOUNS = Path(__file__).with_name("abstract_nouns.txt")

Role: TypeAlias = Literal["thing", "part", "setting", "invisible"]


@lru_cache(maxsize=65_536)
def role(word: str, lemma: str) -> Role:
    """What a noun names in most of its uses in descriptions of pictures.

    The lists written by hand come first, those of what is seen after those of what is not; then the abstract
    nouns of WordNet; a noun on none of them is a thing, so that rare and foreign names of things are kept.

    Args:
        word: As it stands in the text, lower case.
        lemma: Its singular.
    """
    forms = {word, lemma}
    if forms & INVISIBLE_NOUNS:
        return "invisible"
    if forms & PARTS:
        return "part"
    if forms & SETTINGS:
        return "setting"
    if forms & SEEN:
        return "thing"
    # Not the plural: WordNet has some of their own ("wings", a qualification).
    return "invisible" if lemma in _abstract_nouns() else "thing"


@lru_cache(maxsize=1)
def _abstract_nouns() -> frozenset[str]:
    lines = ABSTRACT_NOUNS.read_text(encoding="ascii").splitlines()
    return frozenset(line for line in lines if line and not line.startswith("#"))
