"""The lemmatiser that reads WordNet's index against NLTK's."""

from __future__ import annotations

from pathlib import Path

import pytest

from mfpo.evaluation.mentions.wordnet import Morphy, WordNetPos

FILES = {
    "index.noun": b"  1 This is the licence\n"
    b"bus n 1\nbusman n 1\nman n 1\nwolf n 1\naxis n 1\nax n 1\nus n 1\nu n 1\n",
    "noun.exc": b"axes axis ax\nmen man\nwolves wolf\n",
    "index.verb": b"stand v 1\nhop v 1\nhope v 1\n",
    "verb.exc": b"stood stand\n",
    "index.adj": b"big a 1\n",
    "adj.exc": b"bigger big\n",
    "index.adv": b"well r 1\n",
    "adv.exc": b"best well\n",
}


@pytest.mark.parametrize(
    ("word", "pos", "lemma"),
    [
        ("buses", "n", "bus"),
        ("men", "n", "man"),
        ("busmen", "n", "busman"),
        ("wolves", "n", "wolf"),
        ("axes", "n", "ax"),
        ("us", "n", "u"),
        ("Men", "n", "Men"),
        ("hoping", "v", "hop"),
        ("hops", "v", "hop"),
        ("stood", "v", "stand"),
        ("bigger", "a", "big"),
        ("best", "r", "well"),
        ("unknown", "n", "unknown"),
        ("", "n", ""),
    ],
)
def test_lemmas_by_hand(word: str, pos: WordNetPos, lemma: str) -> None:
    assert Morphy(FILES.__getitem__).lemma(word, pos) == lemma


@pytest.mark.slow
def test_lemmas_are_those_of_nltk(nltk_data: Path) -> None:
    """On every 500th word of WordNet with ten endings, in all parts of speech."""
    from nltk.stem import WordNetLemmatizer

    morphy = Morphy(lambda name: (nltk_data / "corpora" / "wordnet" / name).read_bytes())
    lemmatizer = WordNetLemmatizer()
    parts: tuple[WordNetPos, ...] = ("n", "v", "a", "r")
    known = sorted(set().union(*(set(morphy._load(pos)[0]) | set(morphy._load(pos)[1]) for pos in parts)))
    endings = ("", "s", "es", "ies", "ed", "ing", "er", "est", "men", "ses")
    for pos in parts:
        for word in known[::500]:
            for form in (word.capitalize(), *(word + ending for ending in endings)):
                assert morphy.lemma(form, pos) == lemmatizer.lemmatize(form, pos)
