"""Regions from boxes and masks that came with the pictures; what is left is to match keywords with labels."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from snowballstemmer import stemmer

from mfpo.data.annotations import AnnotatedImage, AnnotatedObject, Annotations
from mfpo.errors import RowError
from mfpo.preferences.lexicon.people import DETERMINERS, DEVICES, PEOPLE, PEOPLE_ALONE
from mfpo.preferences.regions.masks import (
    box_mask,
    box_of,
    decode_rle,
    decode_runs,
    encode_rle,
    polygon_mask,
)
from mfpo.records import Box, Region

MIN_SIMILARITY = 0.8
"""Cosine from which a label stands for a keyword, of the phrases and of their head nouns alike.

Chosen for all-MiniLM-L6-v2: bike/bicycle 0.92, sofa/couch 0.86, jeans/pants 0.83, kid/child 0.81 are above
it; bathroom/toilet 0.79, traffic light/street light 0.71, dog/cat 0.66 below, at the price of woman/lady
0.77: a region in the wrong place does more harm than a missing one. The second condition keeps a wine glass
(0.83) from being a wine bottle.
"""

Embed = Callable[[Sequence[str]], NDArray[np.float32]]
"""Texts to unit vectors float32 ``[n, d]``."""

_IRREGULAR = {
    "men": "man",
    "women": "woman",
    "passersby": "passerby",
    "people": "person",
    "persons": "person",
    "children": "child",
    "feet": "foot",
    "teeth": "tooth",
    "geese": "goose",
    "mice": "mouse",
    "oxen": "ox",
    "knives": "knife",
    "leaves": "leaf",
    "loaves": "loaf",
    "shelves": "shelf",
    "wolves": "wolf",
    "calves": "calf",
    "scarves": "scarf",
    "halves": "half",
    "hooves": "hoof",
    "cacti": "cactus",
}
_PERSON = {("person",), ("human",)}
_AFTER_HEAD = frozenset({"of", "with", "in", "on", "at", "for", "from", "and"})
_STEMMER = stemmer("english")


class GivenRegions:
    """The ``annotations`` backend.

    A label is a keyword's if their head nouns have one stem and the words of one contain those of the other:
    the label that says most of what the keyword says wins ("red car" before "car"), and a bare keyword takes
    all labels that specify it. Where no label matches so, a kind of person ("skier") takes the label
    ``person``, as coarse as those of COCO are; else the label most similar in meaning stands for the keyword,
    from [`MIN_SIMILARITY`] on, and the cosine is the region's score.

    Args:
        annotations: Boxes and masks by image.
        embed: Sentence embeddings; those of ``embedding_model``, loaded when first needed, if None.
        embedding_model: Name of the embedding model; the packaged one when None.
    """

    def __init__(
        self, annotations: Annotations, embed: Embed | None = None, *, embedding_model: str | None = None
    ) -> None:
        self._annotations = annotations
        self._embed = embed
        self._embedding_model = embedding_model

    def segment(
        self, image: Image.Image, keywords: Sequence[str], *, name: str | None = None
    ) -> list[Region]:
        """The annotated instances of each keyword, see [`RegionBackend`].

        Raises:
            RowError: The image's name is ambiguous (``ambiguous-annotation``), or its annotations are of
                another size (``annotation-size``) or damaged (``broken-annotation``).
        """
        annotated = self._annotations.find(name) if name else None
        if annotated is None:
            return []
        size = image.height, image.width
        _check_size(annotated, size)
        regions: list[Region] = []
        for keyword in keywords:
            labels, score = self.match(keyword, annotated.labels)
            for item in annotated.objects:
                if item.label in labels:
                    region = _region(annotated, item, keyword, score, size)
                    regions += [region] if region else []
        return regions

    def match(self, keyword: str, labels: Sequence[str]) -> tuple[set[str], float]:
        """The labels that a keyword stands for, and how sure that is.

        Args:
            keyword: A noun phrase.
            labels: The labels of one image.

        Returns:
            The labels, none if nothing fits, and 1.0 for a match by words or the cosine for one by meaning.
        """
        same = _by_words(keyword, labels) or _as_person(keyword, labels)
        if same:
            return same, 1.0
        labels = [label for label in labels if not _person_and_thing(keyword, label)]
        if not labels:
            return set(), 0.0
        phrases = _vectors(self._embedder(), [keyword, *labels])
        heads = _vectors(self._embedder(), [_head(keyword), *map(_head, labels)])
        cosines = np.minimum(phrases[1:] @ phrases[0], heads[1:] @ heads[0])
        best = int(np.argmax(cosines))
        if cosines[best] < MIN_SIMILARITY:
            return set(), 0.0
        return {labels[best]}, min(1.0, round(float(cosines[best]), 4))

    def _embedder(self) -> Embed:
        if self._embed is None:
            from mfpo.preferences.embeddings import DEFAULT_EMBEDDER, load_embedder

            self._embed = load_embedder(self._embedding_model or DEFAULT_EMBEDDER).embed
        return self._embed


def _vectors(embed: Embed, texts: Sequence[str]) -> NDArray[np.float64]:
    return embed(texts).astype(np.float64)


def _by_words(keyword: str, labels: Sequence[str]) -> set[str]:
    wanted, head = set(_stems(keyword)), _stems(keyword)[-1:]
    if not head:
        return set()
    known = {
        label: set(_stems(label))
        for label in labels
        if _stems(label)[-1:] == head and not _person_and_thing(keyword, label)
    }
    covered = {label: len(stems) for label, stems in known.items() if stems <= wanted}
    if covered:
        most = max(covered.values())
        return {label for label, count in covered.items() if count == most}
    return {label for label, stems in known.items() if stems > wanted}


def _as_person(keyword: str, labels: Sequence[str]) -> set[str]:
    """Labels of people in general, for a keyword that names people of some kind."""
    return {label for label in labels if _stems(label) in _PERSON} if _names_people(keyword) else set()


def _person_and_thing(one: str, other: str) -> bool:
    """Whether two phrases are a person and the thing that gives the name, such as a skier and skis."""
    words, others = _words(one), _words(other)
    if not words or not others or _forms(words[-1]) & _forms(others[-1]):
        return False
    stem, longer = sorted((_stems(one)[-1], _stems(other)[-1]), key=len)
    return longer.startswith(stem) and _names_people(one) != _names_people(other)


def _names_people(phrase: str) -> bool:
    """Whether the head noun names people, in singular or plural."""
    words = _words(phrase)
    if not words:
        return False
    forms = _forms(words[-1])
    if "player" in forms and words[-2:-1] and words[-2] in DEVICES:
        return False
    alone = len([word for word in _split(phrase) if word not in DETERMINERS]) == 1
    return any(form in PEOPLE or (alone and form in PEOPLE_ALONE) for form in forms)


def _forms(word: str) -> set[str]:
    """What a word may be the plural of, the word itself included."""
    forms = {word, _singular(word), word.removesuffix("s"), word.removesuffix("es")}
    return forms | {word[:-3] + "y"} if word.endswith("ies") else forms


def _split(phrase: str) -> list[str]:
    """The words of a phrase in lower case; hyphens and underscores separate words."""
    return "".join(c if c.isalnum() or c == "'" else " " for c in phrase.lower()).split()


@lru_cache(maxsize=65_536)
def _words(phrase: str) -> tuple[str, ...]:
    """The words of a phrase up to its head noun, which is the last."""
    words = _split(phrase)
    end = next((index for index, word in enumerate(words) if index and word in _AFTER_HEAD), len(words))
    return tuple(words[:end])


@lru_cache(maxsize=65_536)
def _stems(phrase: str) -> tuple[str, ...]:
    """Stems of [`_words`]."""
    return tuple(_STEMMER.stemWord(_singular(word)) for word in _words(phrase))


def _singular(word: str) -> str:
    """Plurals that a stemmer does not undo, compounds such as "firemen" included."""
    if word in _IRREGULAR:
        return _IRREGULAR[word]
    return word[:-2] + "an" if word.endswith("men") and len(word) > 5 else word


@lru_cache(maxsize=65_536)
def _head(phrase: str) -> str:
    words = phrase.lower().split()
    end = next((index for index, word in enumerate(words) if index and word in _AFTER_HEAD), len(words))
    return words[end - 1] if words else phrase


def _check_size(annotated: AnnotatedImage, size: tuple[int, int]) -> None:
    """Pixels and masks must be of this very picture."""
    stated = {item.size for item in annotated.objects if item.size is not None}
    if annotated.size is not None and not annotated.fractions:
        stated.add(annotated.size)
    for other in stated - {size}:
        raise RowError(
            "annotation-size",
            f"{annotated.name} is annotated at {other[1]}x{other[0]}, the picture has {size[1]}x{size[0]}",
        )


def _region(
    annotated: AnnotatedImage, item: AnnotatedObject, keyword: str, score: float, size: tuple[int, int]
) -> Region | None:
    """An instance as a region; None if nothing of it lies in the picture."""
    box = annotated.pixel_box(item, size)
    try:
        mask = _mask(item, box, size)
    except (ValueError, TypeError) as error:
        raise RowError("broken-annotation", f"{annotated.name}, {item.label!r}: {error}") from None
    if not mask.any():
        return None
    return Region(keyword, _clipped(box, size) if box else box_of(mask), score, encode_rle(mask), size)


def _mask(item: AnnotatedObject, box: Box | None, size: tuple[int, int]) -> NDArray[np.bool_]:
    if item.rle is not None:
        return decode_rle(item.rle, size)
    if item.uncompressed:
        return decode_runs(item.uncompressed, size)
    if item.polygons:
        return polygon_mask([list(polygon) for polygon in item.polygons], size)
    assert box is not None, "an object has a box or a mask"
    return box_mask(box, size)


def _clipped(box: Box, size: tuple[int, int]) -> Box:
    height, width = size
    x0, y0, x1, y1 = box
    return max(x0, 0.0), max(y0, 0.0), min(x1, float(width)), min(y1, float(height))
