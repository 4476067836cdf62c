"""How AMBER judges the nouns of one description; the decisions of its script, in its order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mfpo.errors import UserError
from mfpo.evaluation.mentions.similarity import Similarity


@dataclass(frozen=True, slots=True)
class Annotation:
    """What is in a picture.

    Attributes:
        truth: Objects that are there.
        hallu: Objects that people might imagine there.
    """

    truth: tuple[str, ...]
    hallu: tuple[str, ...]

    def distinct(self) -> Annotation:
        """Each object once."""
        return Annotation(tuple(dict.fromkeys(self.truth)), tuple(dict.fromkeys(self.hallu)))


class Vocabulary:
    """The words that AMBER knows.

    Args:
        association: For each annotated word, words that mean it as well (``relation.json``).
        safe: Words that are never counted as hallucinated.
    """

    def __init__(self, association: Mapping[str, Sequence[str]], safe: frozenset[str]) -> None:
        self.association, self.safe = association, safe
        self.words = frozenset(association).union(*association.values())
        self._spelling = {word.lower(): word for word in self.words}

    def knows(self, noun: str, *, strict: bool = False) -> bool:
        """Whether a noun is kept."""
        return (noun.lower() in self._spelling) if strict else (noun in self.words)

    def kept(self, nouns: Sequence[str], *, strict: bool = False) -> list[str]:
        """The nouns it knows; with ``strict`` in the vocabulary's own spelling, whatever the answer's."""
        if strict:
            return [self._spelling[noun.lower()] for noun in nouns if noun.lower() in self._spelling]
        return [noun for noun in nouns if noun in self.words]

    def owners(self, objects: Sequence[str]) -> list[tuple[str, int]]:
        """Each word that stands for an object with the object's index: associations first, then the objects.

        Raises:
            UserError: An object is not among the annotated words.
        """
        unknown = [word for word in objects if word not in self.association]
        if unknown:
            raise UserError(
                f"annotations.json names {unknown[0]!r}, which relation.json does not have",
                fix="take both files from the same version of AMBER",
            )
        listed = [(other, at) for at, word in enumerate(objects) for other in self.association[word]]
        return [*listed, *((word, at) for at, word in enumerate(objects))]


def count_nouns(
    nouns: Sequence[str], annotation: Annotation, vocabulary: Vocabulary, similar: Similarity, *, strict: bool
) -> dict[str, Any]:
    """Judge the nouns of one description.

    For each kept noun in order: a safe word is skipped (and stays in the denominator); a word of a true
    object covers its first owner; a word of an imagined object counts for Cog, and goes on; a synonym of an
    imagined object counts for Cog; a synonym of a true object covers it; all else is hallucinated.

    Args:
        nouns: Lemmas of the answer's nouns, in order; duplicates count.
        annotation: What is in the picture.
        vocabulary: The words that count.
        similar: Which words are synonyms.
        strict: Without the official script's quirks.

    Returns:
        The counts under the official script's names, what was found (``nouns``, ``vocab_nouns``,
        ``hallucinated`` and their positions among the kept, ``covered_truth``, ``covered_hallu``), and
        ``nlp_calls``, the pipeline calls that the official script would have made.
    """
    annotation = annotation.distinct() if strict else annotation
    kept = vocabulary.kept(nouns, strict=strict)
    truth, hallu = vocabulary.owners(annotation.truth), vocabulary.owners(annotation.hallu)
    covered_truth, covered_hallu = [0] * len(annotation.truth), [0] * len(annotation.hallu)
    hallucinated: list[int] = []
    calls = 0
    for position, noun in enumerate(kept):
        if noun in vocabulary.safe:
            continue
        owner = next((at for word, at in truth if word == noun), None)
        if owner is not None:
            covered_truth[owner] = 1
            continue
        owner = next((at for word, at in hallu if word == noun), None)
        if owner is not None:
            covered_hallu[owner] = 1
        owner, asked = _synonym(noun, hallu, similar)
        calls += 2 * asked
        if owner is not None:
            covered_hallu[owner] = 1
        owner, asked = _synonym(noun, truth, similar)
        calls += 2 * asked
        if owner is not None:
            covered_truth[owner] = 1
        else:
            hallucinated.append(position)
    record = {"nouns": list(nouns), **_counts(kept, hallucinated, covered_truth, covered_hallu)}
    record["nlp_calls"] = calls
    if not strict:
        record |= _as_official(record)
    return record


def _counts(
    kept: list[str], hallucinated: list[int], covered_truth: list[int], covered_hallu: list[int]
) -> dict[str, Any]:
    """What was found in one answer, and how much of it, under the official script's names."""
    return {
        "vocab_nouns": kept,
        "hallucinated": [kept[position] for position in hallucinated],
        "hallucinated_positions": hallucinated,
        "covered_truth": covered_truth,
        "covered_hallu": covered_hallu,
        "chair_score": len(hallucinated),
        "chair_num": len(kept),
        "safe_cover_score": sum(covered_truth),
        "safe_cover_num": len(covered_truth),
        "hallu_cover_score": sum(covered_hallu),
        "hallu_cover_num": len(covered_hallu),
        "non_hallu_score": int(not hallucinated),
        "non_hallu_num": 1,
        "hal_score": int(bool(hallucinated)),
    }


def _synonym(noun: str, words: Sequence[tuple[str, int]], similar: Similarity) -> tuple[int | None, int]:
    """Owner of the first word that is a synonym, and how many words were compared."""
    for asked, (word, owner) in enumerate(words, start=1):
        if similar(noun, word):
            return owner, asked
    return None, len(words)


def _as_official(record: Mapping[str, Any]) -> dict[str, Any]:
    """What the official script would hold and print after this answer alone."""
    counts = {
        name: round(record[name] + (0.001 if name.endswith("_num") else 0), 3)
        for pair in ("chair", "safe_cover", "hallu_cover", "non_hallu")
        for name in (f"{pair}_score", f"{pair}_num")
    }
    percent = {
        name: round(counts[f"{pair}_score"] / counts[f"{pair}_num"] * 100, 1)
        for name, pair in (("CHAIR", "chair"), ("Cover", "safe_cover"), ("Cog", "hallu_cover"))
    }
    hal = round(100 - counts["non_hallu_score"] / counts["non_hallu_num"] * 100, 1)
    return {"counts": counts, "printed": percent | {"Hal": hal}}
