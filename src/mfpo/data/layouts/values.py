"""Texts and messages of a row, whatever its layout calls their keys."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

from mfpo.errors import RowError
from mfpo.records import Messages, assistant_message

Row: TypeAlias = Mapping[str, Any]
Parts: TypeAlias = list[dict[str, Any]]

PLACEHOLDER = "<image>"
"""Where an image stands in a text (LLaVA, LLaMA-Factory, ms-swift)."""

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "llava": "assistant",
    "system": "system",
}
_PART_KEYS = ("image", "path", "url", "base64", "image_url", "bytes")


@dataclass(frozen=True, slots=True)
class Turns:
    """A row's conversation as its layout has it.

    Attributes:
        prompt: Messages up to the answer; contents are strings, in which ``<image>`` may stand, or lists of
            parts.
        chosen: The preferred answer: a string, or messages.
        rejected: The dispreferred answer, likewise.
    """

    prompt: Messages
    chosen: Any
    rejected: Any


def text(value: Any, column: str) -> str:
    """The value, which must be a text.

    Raises:
        RowError: It is empty (``missing-value``) or something else (``bad-value``).
    """
    if value is None:
        raise RowError("missing-value", f"column {column} is empty")
    if not isinstance(value, str):
        raise RowError("bad-value", f"column {column} holds {type(value).__name__}, not text")
    return value


def user_turn(content: str, row: Row) -> Messages:
    """A prompt of one turn, after the row's ``system`` text and the pairs of its ``history``.

    Raises:
        RowError: One of these columns holds something else.
    """
    turns: Messages = []
    system = row.get("system")
    if system is not None and text(system, "system"):
        turns.append({"role": "system", "content": system})
    history = row.get("history") or ()
    if not isinstance(history, (list, tuple)) or not all(
        isinstance(pair, (list, tuple)) and len(pair) == 2 for pair in history
    ):
        raise RowError("bad-value", "column history is not a list of question and answer")
    for question, answer in history:
        turns.append({"role": "user", "content": text(question, "history")})
        turns.append({"role": "assistant", "content": text(answer, "history")})
    return [*turns, {"role": "user", "content": content}]


def messages(value: Any, column: str, role: str) -> Messages:
    """Messages with ``role`` and ``content``, from a string, a message or a list, also with ShareGPT keys.

    Args:
        value: What the column holds.
        column: Its name, for messages.
        role: Who speaks where the value is a string.

    Raises:
        RowError: The value is none of these.
    """
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    if value is None:
        raise RowError("missing-value", f"column {column} is empty")
    if not isinstance(value, (list, tuple)) or not all(isinstance(message, Mapping) for message in value):
        raise RowError("bad-value", f"column {column} is neither text nor a list of messages")
    return [_message(message, column) for message in value]


def _message(message: Mapping[str, Any], column: str) -> dict[str, Any]:
    # Parquet fills keys that only other rows have with None.
    role = message.get("role") if message.get("role") is not None else message.get("from")
    content = message.get("content") if message.get("content") is not None else message.get("value")
    speaker = _ROLES.get(str(role))
    if speaker is None or content is None:
        raise RowError("bad-value", f"column {column}: a message needs a known role and a content")
    return {"role": speaker, "content": content if isinstance(content, str) else _parts(content, column)}


def _parts(content: Any, column: str) -> Parts:
    """Content parts with only the keys that belong to them; an image it brings is ``image``."""
    parts: Parts = []
    for part in content if isinstance(content, (list, tuple)) else [{}]:
        part = part if isinstance(part, Mapping) else {}
        kind = part.get("type")
        if kind in ("image", "image_url"):
            inline = _inline_image(part)
            parts.append({"type": "image"} if inline is None else {"type": "image", "image": inline})
        elif kind == "text":
            parts.append({"type": "text", "text": text(part.get("text"), column)})
        else:
            raise RowError("bad-value", f"column {column}: a content part is neither image nor text")
    return parts


def _inline_image(part: Mapping[str, Any]) -> Any:
    """The image that an image part brings along, None if it is only a place."""
    inline = next((part[key] for key in _PART_KEYS if part.get(key) is not None), None)
    if isinstance(inline, Mapping) and inline.get("url") is not None:
        return inline["url"]
    return inline


def inline_images(value: Any) -> Iterator[Any]:
    """The images that parts of [`messages`] bring along, in a value which is not checked."""
    turns = value if isinstance(value, (list, tuple)) else [value]
    for message in (turn for turn in turns if isinstance(turn, Mapping)):
        content = message.get("content") if message.get("content") is not None else message.get("value")
        for part in content if isinstance(content, (list, tuple)) else ():
            if isinstance(part, Mapping) and part.get("type") in ("image", "image_url"):
                yield _inline_image(part)


def one_answer(value: Any, column: str, prompt: Messages) -> Messages:
    """One assistant message of text; a conversation that repeats the prompt is cut to what follows it.

    Raises:
        RowError: The value is something else, or holds an image or the place of one.
    """
    found = messages(value, column, role="assistant")
    if len(found) > 1 and [_said(m) for m in found[:-1]] == [_said(m) for m in prompt]:
        found = found[-1:]
    if len(found) != 1 or found[0]["role"] != "assistant":
        raise RowError("bad-value", f"column {column} is neither one message nor the prompt and one")
    content = found[0]["content"]
    answer = assistant_message(content) if isinstance(content, str) else found
    if any(part["type"] != "text" or PLACEHOLDER in part["text"] for part in answer[0]["content"]):
        raise RowError("bad-value", f"column {column}: an answer cannot hold images")
    return answer


def _said(message: Mapping[str, Any]) -> tuple[str, list[str]]:
    """Who speaks, and the words without places of images."""
    content = message["content"]
    texts = [content] if isinstance(content, str) else [part.get("text", "") for part in content]
    return message["role"], " ".join(texts).replace(PLACEHOLDER, " ").split()


def with_parts(prompt: Messages) -> Messages:
    """The prompt with every content as parts; a ``<image>`` in a text becomes an image part.

    Raises:
        RowError: It does not end with a user's turn.
    """
    if not prompt or prompt[-1]["role"] != "user":
        raise RowError("bad-value", "the prompt does not end with a user's turn")
    result: Messages = []
    for message in prompt:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        parts = [piece for part in content for piece in _split(part)]
        result.append({"role": message["role"], "content": parts})
    return result


def _split(part: dict[str, Any]) -> Parts:
    """A part without placeholders in its text; line breaks that set a placeholder apart are dropped."""
    if part["type"] != "text" or PLACEHOLDER not in part["text"]:
        return [part]
    parts: Parts = []
    for index, piece in enumerate(part["text"].split(PLACEHOLDER)):
        if index:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip("\r\n")})
    return parts
