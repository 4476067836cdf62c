"""Layouts of one question and two answers, each in a column of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mfpo.data.layouts.ratings import best_and_worst
from mfpo.data.layouts.values import Row, Turns, text, user_turn
from mfpo.errors import RowError

DESCRIBE = "Describe this image in detail."
"""The question of rows that only hold descriptions: the first of the four that HA-DPO draws from."""


def read_question(row: Row) -> Turns:
    """RLAIF-V, and plain JSON Lines or CSV: ``question``, ``chosen``, ``rejected``."""
    return Turns(user_turn(text(row["question"], "question"), row), row["chosen"], row["rejected"])


def read_json_text(row: Row) -> Turns:
    """RLHF-V: ``text`` is a JSON string with question, chosen and rejected."""
    value = row["text"]
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise RowError("broken-json", f"column text: {error}") from None
    if not isinstance(value, Mapping):
        raise RowError("bad-value", "column text is not a JSON object")
    missing = {"question", "chosen", "rejected"} - value.keys()
    if missing:
        raise RowError("missing-value", f"column text has no {', '.join(sorted(missing))}")
    return read_question(value)


def read_alpaca(row: Row) -> Turns:
    """Alpaca as LLaMA-Factory writes preferences: ``instruction``, optionally ``input``, and the answers."""
    extra = row.get("input")
    parts = [text(row["instruction"], "instruction"), "" if extra is None else text(extra, "input")]
    return Turns(user_turn("\n".join(part for part in parts if part), row), row["chosen"], row["rejected"])


def read_query(row: Row) -> Turns:
    """ms-swift: ``query``, ``response`` and ``rejected_response``."""
    return Turns(
        user_turn(text(row["query"], "query"), row),
        text(row["response"], "response"),
        text(row["rejected_response"], "rejected_response"),
    )


def read_rated(row: Row) -> Turns:
    """VLFeedback: ``prompt``, and several rated answers as ``completions``."""
    best, worst = best_and_worst(row["completions"])
    return Turns(user_turn(text(row["prompt"], "prompt"), row), best, worst)


def read_hadpo(row: Row) -> Turns:
    """HA-DPO's yes/no questions: ``question``, ``chosen``, ``reject``; no pair where the model was right."""
    if row.get("correct") is True:
        raise RowError("no-preference", "column correct says that the model's answer was right")
    return Turns(user_turn(text(row["question"], "question"), row), row["chosen"], row["reject"])


def read_hadpo_descriptions(row: Row) -> Turns:
    """HA-DPO's descriptions: lists of right and of hallucinated ones; the first of each make the pair."""
    return Turns(
        user_turn(DESCRIBE, row), _first(row["chosen"], "chosen"), _first(row["rejected"], "rejected")
    )


def _first(value: Any, column: str) -> Any:
    if not isinstance(value, (list, tuple)):
        return value
    if not value:
        raise RowError("missing-value", f"column {column} is an empty list")
    return text(value[0], column)
