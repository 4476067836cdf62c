"""Layouts that hold messages."""

from __future__ import annotations

from typing import Any

from mfpo.data.layouts.values import Row, Turns, messages, text
from mfpo.errors import RowError
from mfpo.records import Messages


def read_trl(row: Row) -> Turns:
    """TRL: ``prompt``, ``chosen``, ``rejected`` are message lists, or plain strings."""
    return Turns(messages(row["prompt"], "prompt", role="user"), row["chosen"], row["rejected"])


def read_trl_implicit(row: Row) -> Turns:
    """TRL without ``prompt``: ``chosen`` and ``rejected`` are whole conversations that differ at the end."""
    return _two_conversations(row, "chosen", "rejected")


def read_povid(row: Row) -> Turns:
    """POVID: ``conversations`` and ``rejected_conversations``, which differ in the last answer."""
    return _two_conversations(row, "conversations", "rejected_conversations")


def read_swift_messages(row: Row) -> Turns:
    """ms-swift: ``messages`` and ``rejected_messages``, which differ in the last answer."""
    return _two_conversations(row, "messages", "rejected_messages")


def read_swift(row: Row) -> Turns:
    """ms-swift: ``messages`` that end with the chosen answer, and ``rejected_response``."""
    turns = _with_system(messages(row["messages"], "messages", role="user"), row)
    return Turns(turns[:-1], turns[-1:], text(row["rejected_response"], "rejected_response"))


def read_sharegpt(row: Row) -> Turns:
    """ShareGPT as LLaMA-Factory writes preferences: ``conversations``, and one message as each answer."""
    return _turns_and_answers(row, "conversations")


def read_openai(row: Row) -> Turns:
    """LLaMA-Factory's ``messages`` with one message as each answer."""
    return _turns_and_answers(row, "messages")


def read_llava_rlhf(row: Row) -> Turns:
    """LLaVA-RLHF: ``output_1`` and ``output_2`` answer ``conversations``; ``preference`` is the better.

    It is the number of one of them. The conversation may end with an answer, in whose place the two stand.
    """
    turns = messages(row["conversations"], "conversations", role="user")
    if turns and turns[-1]["role"] == "assistant":
        turns = turns[:-1]
    order = {"1": ("output_1", "output_2"), "2": ("output_2", "output_1")}.get(str(row["preference"]).strip())
    if order is None:
        raise RowError("no-preference", "column preference is neither 1 nor 2")
    better, worse = order
    return Turns(turns, row[better], row[worse])


def _two_conversations(row: Row, chosen: str, rejected: str) -> Turns:
    better = _conversation(row[chosen], chosen)
    worse = _conversation(row[rejected], rejected)
    if better[:-1] != worse[:-1]:
        raise RowError("bad-value", f"columns {chosen} and {rejected} differ before their last answer")
    return Turns(_with_system(better[:-1], row), better[-1:], worse[-1:])


def _conversation(value: Any, column: str) -> Messages:
    if isinstance(value, str):
        raise RowError("bad-value", f"column {column} is one text, where the conversation should be")
    found = messages(value, column, role="user")
    if len(found) < 2:
        raise RowError("bad-value", f"column {column} has no question before the answer")
    return found


def _turns_and_answers(row: Row, column: str) -> Turns:
    turns = _with_system(messages(row[column], column, role="user"), row)
    return Turns(turns, row["chosen"], row["rejected"])


def _with_system(turns: Messages, row: Row) -> Messages:
    """The turns after the row's ``system`` text, unless they begin with one."""
    system = row.get("system")
    if not isinstance(system, str) or not system or (turns and turns[0]["role"] == "system"):
        return turns
    return [{"role": "system", "content": system}, *turns]
