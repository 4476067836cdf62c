"""Tokens, tags and lemmas of answers, as the official scripts get them: NLTK with WordNet, each word once.

The scripts of AMBER, CHAIR and Object HalBench call ``nltk.word_tokenize``, ``nltk.pos_tag`` and
``WordNetLemmatizer`` for each answer, which loads the tagger anew every time. Here all three are loaded once
and lemmas are remembered, with the same results. NLTK below 3.10 is needed: from there on its tokenizer
splits ``'word`` and long dashes differently. NLTK's data is no package; where it is missing, a packaged spaCy
pipeline takes over and every result says so.
"""

from __future__ import annotations

import hashlib
import os
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, TypeAlias

from mfpo.errors import UserError
from mfpo.evaluation.mentions.wordnet import Morphy, WordNetPos

Tagged: TypeAlias = list[tuple[str, str]]

NLTK_DATA = {
    "averaged_perceptron_tagger_eng": (
        "taggers/averaged_perceptron_tagger_eng/averaged_perceptron_tagger_eng.weights.json"
    ),
    "punkt_tab": "tokenizers/punkt_tab/english/sent_starters.txt",
    "wordnet": "corpora/wordnet/index.noun",
}
"""What the official scripts read through NLTK: name for the downloader, and a file of it in a data folder."""

HOW_TO_GET_NLTK_DATA = f"`python -m nltk.downloader {' '.join(NLTK_DATA)}`, or set NLTK_DATA to its folder"

_KEPT_TEXTS = 20_000
_KEPT_CHARACTERS = 20_000
_GAP = 1000


@dataclass(frozen=True, slots=True)
class Missing:
    """Why NLTK cannot be used.

    Attributes:
        what: What is missing, in one line.
    """

    what: str


class Words(ABC):
    """How a text becomes words.

    Attributes:
        official: Whether these are the tools of the official scripts.
    """

    official: bool

    def __init__(self) -> None:
        self._known: dict[tuple[bool, bool, str], Tagged] = {}

    def tagged(self, texts: Sequence[str], *, lower: bool = False, tags: bool = True) -> list[Tagged]:
        """Tokens with Penn Treebank tags.

        Args:
            texts: The texts.
            lower: Lower-case them first, which changes what the tagger sees.
            tags: Whether tags are needed; without them the tags may be empty.
        """
        keys = [(lower, tags, text) for text in texts]
        new = list(dict.fromkeys(key for key in keys if key not in self._known))
        found = dict(zip(new, self._tag([t.lower() if lower else t for _, _, t in new], tags), strict=True))
        results = [found[key] if key in found else self._known[key] for key in keys]
        if len(self._known) + len(found) > _KEPT_TEXTS:
            self._known.clear()
        self._known |= {key: value for key, value in found.items() if len(key[2]) <= _KEPT_CHARACTERS}
        return results

    def forget(self) -> None:
        """Drop the texts that are remembered, so that they are tagged anew."""
        self._known.clear()

    @abstractmethod
    def _tag(self, texts: Sequence[str], tags: bool) -> list[Tagged]:
        """The work of [`tagged`], for texts that are not known yet."""

    @abstractmethod
    def lemma(self, word: str, tag: str, pos: WordNetPos = "n") -> str:
        """Dictionary form.

        Args:
            word: A token.
            tag: Its tag from [`tagged`].
            pos: The part of speech that the official script looks it up as.
        """

    @abstractmethod
    def describe(self) -> dict[str, str]:
        """Names, versions and hashes of the tools, kept with every score."""


class NltkWords(Words):
    """The official scripts' tools; the data must be there, see [`missing_nltk_data`]."""

    official = True

    def __init__(self) -> None:
        super().__init__()
        from nltk.tag.perceptron import PerceptronTagger

        self._tagger = PerceptronTagger()
        self._morphy = Morphy(lambda name: _read(f"corpora/wordnet/{name}"))

    def _tag(self, texts: Sequence[str], tags: bool) -> list[Tagged]:
        from nltk import word_tokenize

        if not tags:
            return [[(token, "") for token in word_tokenize(text)] for text in texts]
        return [self._tagger.tag(word_tokenize(text)) for text in texts]

    def lemma(self, word: str, tag: str, pos: WordNetPos = "n") -> str:
        """WordNet's shortest base form; the word itself if WordNet does not know it."""
        return self._morphy.lemma(word, pos)

    def describe(self) -> dict[str, str]:
        """With hashes of the tagger's weights, the sentence splitter and WordNet's noun index."""
        import nltk

        hashes = {name: hashlib.sha256(_read(place)).hexdigest()[:16] for name, place in NLTK_DATA.items()}
        return {
            "tokenizer": f"nltk {nltk.__version__} word_tokenize, punkt_tab sha256:{hashes['punkt_tab']}",
            "tagger": f"averaged_perceptron_tagger_eng sha256:{hashes['averaged_perceptron_tagger_eng']}",
            "lemmatiser": f"WordNet sha256:{hashes['wordnet']}",
        }


class SpacyWords(Words):
    """The packaged spaCy pipeline: no download, and not what the official scripts use."""

    official = False

    def __init__(self) -> None:
        super().__init__()
        from mfpo.preferences.tagging import load_tagger

        self._tagger = load_tagger()
        self._lemma = lru_cache(maxsize=500_000)(self._rule)

    def _tag(self, texts: Sequence[str], tags: bool) -> list[Tagged]:
        # The tagger's network takes no text of any length at once; a long one goes through in pieces.
        pieces = [(at, piece) for at, text in enumerate(texts) for piece in _pieces(text)]
        found: list[Tagged] = [[] for _ in texts]
        for (at, _), doc in zip(pieces, self._tagger.pipe([piece for _, piece in pieces]), strict=True):
            found[at] += [(token.text, token.tag_) for token in doc if not token.is_space]
        return found

    def lemma(self, word: str, tag: str, pos: WordNetPos = "n") -> str:
        """SpaCy's rules for the word and its tag; as a noun where only that is asked for."""
        if not word:
            return word
        fits = {"n": "NN", "v": "VB", "a": "JJ", "r": "RB"}[pos]
        if not tag.startswith(fits):
            tag = "NNS" if pos == "n" and word.endswith("s") and tag == "VBZ" else fits
        lemma = self._lemma(word, tag)
        return lemma if word[:1].islower() else word[:1] + lemma[1:]

    def _rule(self, word: str, tag: str) -> str:
        from spacy.tokens import Doc

        pipeline = self._tagger.pipeline
        doc = Doc(pipeline.vocab, words=[word], spaces=[False])
        doc[0].tag_ = tag
        for name in ("attribute_ruler", "lemmatizer"):
            doc = pipeline.get_pipe(name)(doc)
        return str(doc[0].lemma_)

    def describe(self) -> dict[str, str]:
        """The pipeline's name and version, and what is missing."""
        import spacy

        meta = self._tagger.pipeline.meta
        pipeline = f"{meta['lang']}_{meta['name']} {meta['version']}, spacy {spacy.__version__}"
        missing = missing_nltk_data()
        return {
            "tokenizer": pipeline,
            "tagger": pipeline,
            "lemmatiser": f"rules of {pipeline}",
            "unofficial": f"{missing.what if missing else 'NLTK data'} is missing, official scripts use it",
        }


def _pieces(text: str) -> list[str]:
    """A text cut between words, so that no piece is much longer than [`_KEPT_CHARACTERS`]."""
    pieces = []
    start = 0
    while len(text) - start > _KEPT_CHARACTERS:
        end = text.rfind(" ", start + 1, start + _KEPT_CHARACTERS)
        end = start + _KEPT_CHARACTERS if end < 0 else end
        pieces.append(text[start:end])
        start = end
    return [*pieces, text[start:]]


def missing_nltk_data() -> Missing | None:
    """What keeps NLTK from being used; None if all is there."""
    try:
        import nltk
    except ImportError:
        return Missing("the package nltk")
    if tuple(map(int, nltk.__version__.split(".")[:2])) >= (3, 10):
        return Missing(f"nltk below 3.10 (its tokenizer changed; here is {nltk.__version__})")
    _add_data_folders()
    for name, place in NLTK_DATA.items():
        if _find(place) is None:
            return Missing(f"NLTK's {name}")
    return None


def load_words() -> Words:
    """The official tools if NLTK's data is there, else the packaged ones."""
    return _load(missing_nltk_data() is None, os.environ.get("NLTK_DATA", ""))


@lru_cache(maxsize=2)
def _load(official: bool, folder: str) -> Words:
    return NltkWords() if official else SpacyWords()


def _add_data_folders() -> None:
    """NLTK reads NLTK_DATA once, when it is imported; a folder named later counts as well."""
    import nltk

    for folder in reversed(os.environ.get("NLTK_DATA", "").split(os.pathsep)):
        if folder and folder not in nltk.data.path:
            nltk.data.path.insert(0, folder)


def _find(place: str) -> Any:
    """NLTK's pointer to a file of its data, unpacked or in an archive; None if it is nowhere."""
    import nltk

    try:
        return nltk.data.find(place)
    except (LookupError, OSError, ValueError):
        return None


def _read(place: str) -> bytes:
    pointer = _find(place)
    if pointer is None:
        raise UserError("NLTK's data is incomplete", where=place, fix=HOW_TO_GET_NLTK_DATA)
    with pointer.open() as file:
        data: bytes = file.read()
    return data


def tools(words: Words) -> dict[str, Any]:
    """What stands in the settings of a score about the words it is made of."""
    return {"official_tools": words.official, "tools": words.describe()}


def token_spans(text: str, tokens: Sequence[str]) -> list[tuple[int, int] | None]:
    """Where each token stands in the text; None for one that the tokenizer rewrote, such as a quote."""
    spans: list[tuple[int, int] | None] = []
    position = 0
    for token in tokens:
        # Tokens come in order, and what lies between two of them is short.
        start = text.find(token, position, position + len(token) + _GAP)
        spans.append(None if start < 0 else (start, start + len(token)))
        position = position if start < 0 else start + len(token)
    return spans
