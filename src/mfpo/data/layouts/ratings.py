"""Preferences from rated answers (VLFeedback, Silkie): the best answer to a prompt against the worst."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mfpo.errors import RowError


def best_and_worst(completions: Any) -> tuple[str, str]:
    """The answers with the highest and the lowest mean rating; the first of equals.

    Args:
        completions: Answers with ``response`` and ``annotations``, an aspect's name to its ``Rating`` ("1" to
            "5"; anything else does not count): a list of them, or one record of lists, as `datasets` stores
            a sequence of records.

    Raises:
        RowError: It is something else (``bad-value``), or does not prefer one answer (``no-preference``).
    """
    rated = [
        (rating, response)
        for entry in _entries(completions)
        if (rating := _mean_rating(entry.get("annotations"))) is not None
        and isinstance(response := entry.get("response"), str)
        and response.strip()
    ]
    if len(rated) < 2:
        raise RowError("no-preference", f"{len(rated)} answers have ratings, two are needed")
    best, worst = max(rated, key=lambda pair: pair[0]), min(rated, key=lambda pair: pair[0])
    if best[0] == worst[0]:
        raise RowError("no-preference", f"all {len(rated)} answers are rated {best[0]:g}")
    return best[1], worst[1]


def _entries(completions: Any) -> list[Mapping[str, Any]]:
    if isinstance(completions, Mapping):
        responses = completions.get("response")
        count = len(responses) if isinstance(responses, Sequence) and not isinstance(responses, str) else 0
        completions = [_at(completions, index) for index in range(count)]
    if not isinstance(completions, (list, tuple)) or not all(isinstance(e, Mapping) for e in completions):
        raise RowError("bad-value", "column completions is neither a list of answers nor a record of lists")
    return list(completions)


def _at(value: Any, index: int) -> Any:
    """One entry of a record of lists, at any depth."""
    if isinstance(value, Mapping):
        return {key: _at(inner, index) for key, inner in value.items()}
    is_list = isinstance(value, (list, tuple))
    return value[index] if is_list and index < len(value) else None


def _mean_rating(annotations: Any) -> float | None:
    """Mean over the aspects that have a number; None if none has."""
    if not isinstance(annotations, Mapping):
        return None
    ratings = [
        _number(aspect.get("Rating")) for aspect in annotations.values() if isinstance(aspect, Mapping)
    ]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known else None


def _number(value: Any) -> float | None:
    text = str(value).strip()
    return float(text) if text.isascii() and text.isdigit() and len(text) == 1 else None
