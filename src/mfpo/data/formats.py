"""The row formats of text preference data, recognised by their columns.

A format is one entry of [`FORMATS`]: the columns it needs and a function from a row to question, answers and
images. To add one, write the function and list it; the first entry whose columns are all there reads the row.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

from mfpo.data.ratings import best_and_worst
from mfpo.errors import RowError
from mfpo.records import ImageSource, Messages, Sample, assistant_message, text_of

Row: TypeAlias = Mapping[str, Any]
Parts: TypeAlias = list[dict[str, Any]]

IMAGE_COLUMNS = ("images", "image", "image_path")
"""Columns that may hold the images; the first one that is there is used."""

DERIVED_COLUMNS = frozenset({"id", "keywords", "regions", "region_status", "noise", "rejected_images"})
"""Columns that a build makes anew, so that a built folder can be built again."""

PLACEHOLDER = "<image>"
"""Where an image stands in a plain text prompt (LLaVA, LLaMA-Factory)."""

_ROLES = {
    "human": "user",
    "user": "user",
    "gpt": "assistant",
    "assistant": "assistant",
    "model": "assistant",
    "system": "system",
}


@dataclass(frozen=True, slots=True)
class Turns:
    """A row's conversation as its format has it.

    Attributes:
        prompt: Messages up to the answer; contents are strings, in which ``<image>`` may stand, or lists of
            parts.
        chosen: The preferred answer: a string, or messages.
        rejected: The dispreferred answer, likewise.
    """

    prompt: Messages
    chosen: Any
    rejected: Any


@dataclass(frozen=True, slots=True)
class Format:
    """One way to write a preference row.

    Attributes:
        name: What people call it.
        columns: Columns that must be there, besides an image column.
        read: The row's conversation. It raises [`RowError`] when a value is unusable.
        optional: Further columns that it reads when they are there.
    """

    name: str
    columns: frozenset[str]
    read: Callable[[Row], Turns]
    optional: frozenset[str] = frozenset()


def _read_conversational(row: Row) -> Turns:
    """TRL: ``prompt``, ``chosen``, ``rejected`` are message lists, or plain strings."""
    prompt = _messages(row["prompt"], "prompt", role="user")
    return Turns(prompt, row["chosen"], row["rejected"])


def _read_question(row: Row) -> Turns:
    """RLAIF-V, and plain JSON Lines or CSV: ``question``, ``chosen``, ``rejected``."""
    question = _text(row["question"], "question")
    return Turns([{"role": "user", "content": question}], row["chosen"], row["rejected"])


def _read_json_text(row: Row) -> Turns:
    """RLHF-V: ``text`` is a JSON string with question, chosen and rejected."""
    text = row["text"]
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except ValueError as error:
            raise RowError("broken-json", f"column text: {error}") from None
    if not isinstance(text, Mapping):
        raise RowError("bad-value", "column text is not a JSON object")
    missing = {"question", "chosen", "rejected"} - text.keys()
    if missing:
        raise RowError("missing-value", f"column text has no {', '.join(sorted(missing))}")
    return _read_question(text)


def _read_sharegpt(row: Row) -> Turns:
    """ShareGPT as LLaMA-Factory writes preferences: ``conversations``, and one message as each answer."""
    prompt = _messages(row["conversations"], "conversations", role="user")
    if isinstance(row.get("system"), str) and row["system"]:
        prompt = [{"role": "system", "content": row["system"]}, *prompt]
    return Turns(prompt, row["chosen"], row["rejected"])


def _read_alpaca(row: Row) -> Turns:
    """Alpaca as LLaMA-Factory writes preferences: ``instruction``, optionally ``input``, and the answers."""
    text = "\n".join(
        part for part in (_text(row["instruction"], "instruction"), row.get("input") or "") if part
    )
    return Turns([{"role": "user", "content": text}], row["chosen"], row["rejected"])


def _read_rated(row: Row) -> Turns:
    """VLFeedback: ``prompt``, and several rated answers as ``completions``."""
    best, worst = best_and_worst(row["completions"])
    return Turns([{"role": "user", "content": _text(row["prompt"], "prompt")}], best, worst)


def _read_swift(row: Row) -> Turns:
    """ms-swift: ``messages`` that end with the chosen answer, and ``rejected_response``."""
    messages = _messages(row["messages"], "messages", role="user")
    return Turns(messages[:-1], messages[-1:], _text(row["rejected_response"], "rejected_response"))


FORMATS = (
    Format("TRL conversational", frozenset({"prompt", "chosen", "rejected"}), _read_conversational),
    Format("RLAIF-V or plain", frozenset({"question", "chosen", "rejected"}), _read_question),
    Format(
        "ShareGPT (LLaMA-Factory)",
        frozenset({"conversations", "chosen", "rejected"}),
        _read_sharegpt,
        frozenset({"system"}),
    ),
    Format(
        "Alpaca (LLaMA-Factory)",
        frozenset({"instruction", "chosen", "rejected"}),
        _read_alpaca,
        frozenset({"input"}),
    ),
    Format("VLFeedback", frozenset({"prompt", "completions"}), _read_rated),
    Format("ms-swift", frozenset({"messages", "rejected_response"}), _read_swift),
    Format("RLHF-V", frozenset({"text"}), _read_json_text),
)


def recognise(columns: Iterable[str]) -> Format | None:
    """The format whose columns, and an image column, are all there."""
    columns = set(columns)
    if not columns.intersection(IMAGE_COLUMNS):
        return None
    return next((form for form in FORMATS if form.columns <= columns), None)


def read_row(form: Format, row: Row, where: str, image_root: Path) -> Sample:
    """A row in the common form.

    Args:
        form: The row's format.
        row: Column name to value.
        where: File and line or row.
        image_root: Folder that relative image names are in.

    Raises:
        RowError: A value is missing, of the wrong type, or the images don't fit the prompt.
    """
    turns = form.read(row)
    column = next(name for name in IMAGE_COLUMNS if name in row)
    images = image_sources(row[column], column, image_root)
    if not images:
        raise RowError("missing-image", f"column {column} is empty")
    prompt = _place_images(turns.prompt, len(images))
    sample = Sample(
        images=images,
        prompt=prompt,
        chosen=_answer(turns.chosen, "chosen", prompt),
        rejected=_answer(turns.rejected, "rejected", prompt),
        where=where,
        extra=_extra(form, row),
        rejected_images=image_sources(row.get("rejected_images"), "rejected_images", image_root),
        keywords=_keywords(row.get("keywords")),
    )
    _check_encodable(sample)
    return sample


def _keywords(value: Any) -> tuple[str, ...] | None:
    """Phrases of a column ``keywords``: a list of them or of our own records, or one text with commas."""
    if value is None:
        return None
    if isinstance(value, str):
        value = value.split(",")
    if not isinstance(value, (list, tuple)):
        raise RowError("bad-value", "column keywords is neither a list nor a text")
    phrases: list[str] = []
    for entry in value:
        phrase = entry.get("text") if isinstance(entry, Mapping) else entry
        if not isinstance(phrase, str):
            raise RowError("bad-value", "column keywords holds something else than phrases")
        phrases += [phrase.strip()] if phrase.strip() else []
    return tuple(phrases)


def _check_encodable(sample: Sample) -> None:
    """JSON can spell half a character (a lone surrogate), which no file can hold."""
    texts = [text_of([*sample.prompt, *sample.chosen, *sample.rejected]), *map(str, sample.extra.values())]
    texts += [source.path or "" for source in (*sample.images, *sample.rejected_images)]
    texts += [*sample.extra, *(sample.keywords or ())]
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise RowError("broken-text", f"not valid Unicode: {error.reason}") from None


def _extra(form: Format, row: Row) -> dict[str, Any]:
    """The other columns that hold simple values; the source's own ``id`` is kept as ``source_id``."""
    used = {
        *form.columns,
        *form.optional,
        *DERIVED_COLUMNS,
        "images",
        "image",
        "prompt",
        "chosen",
        "rejected",
    }
    extra = {
        name: value
        for name, value in row.items()
        if name not in used and isinstance(value, (str, bool, int, float))
    }
    own = "noise" in row
    if not own and isinstance(row.get("id"), (str, int)):
        extra["source_id"] = row["id"]
    return extra


def image_sources(value: Any, column: str, image_root: Path) -> tuple[ImageSource, ...]:
    """The images in a column: a path, bytes, a ``{"bytes", "path"}`` record, or a list of these.

    Raises:
        RowError: The value is none of these (``bad-value``), a web address (``remote-image``), or a record
            without bytes and path (``missing-image``).
    """
    if value is None or value == "":
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(source for item in value for source in image_sources(item, column, image_root))
    if isinstance(value, (bytes, bytearray)):
        return (ImageSource(data=bytes(value)),)
    if isinstance(value, Mapping):
        data, path = value.get("bytes"), value.get("path")
        if path is not None and not isinstance(path, str):
            raise RowError("bad-value", f"column {column} has a path of type {type(path).__name__}")
        if isinstance(data, (bytes, bytearray)):
            return (ImageSource(path=path, data=bytes(data)),)
        if data is not None:
            raise RowError("bad-value", f"column {column} has bytes of type {type(data).__name__}")
        if not path:
            raise RowError("missing-image", f"column {column} has neither bytes nor a path")
        value = path
    if not isinstance(value, str) or "\0" in value:
        raise RowError("bad-value", f"column {column} holds {type(value).__name__}, not an image or its path")
    if value.startswith(("http://", "https://")):
        raise RowError("remote-image", f"{value} is a web address; download the images first")
    return (ImageSource(path=str(image_root / value)),)


def _text(value: Any, column: str) -> str:
    if value is None:
        raise RowError("missing-value", f"column {column} is empty")
    if not isinstance(value, str):
        raise RowError("bad-value", f"column {column} holds {type(value).__name__}, not text")
    return value


def _messages(value: Any, column: str, role: str) -> Messages:
    """Messages with ``role`` and ``content``, from a string, a message or a list, also with ShareGPT keys."""
    if isinstance(value, str):
        return [{"role": role, "content": value}]
    if isinstance(value, Mapping):
        value = [value]
    if value is None:
        raise RowError("missing-value", f"column {column} is empty")
    if not isinstance(value, (list, tuple)) or not all(isinstance(message, Mapping) for message in value):
        raise RowError("bad-value", f"column {column} is neither text nor a list of messages")
    messages = []
    for message in value:
        speaker = _ROLES.get(str(message.get("role", message.get("from"))))
        content = message.get("content", message.get("value"))
        if speaker is None or content is None:
            raise RowError("bad-value", f"column {column}: a message needs a known role and a content")
        messages.append(
            {"role": speaker, "content": content if isinstance(content, str) else _parts(content, column)}
        )
    return messages


def _parts(content: Any, column: str) -> Parts:
    """Content parts with only the keys that belong to them; Parquet fills the others with None."""
    parts: Parts = []
    for part in content if isinstance(content, (list, tuple)) else [{}]:
        part = part if isinstance(part, Mapping) else {}
        kind = part.get("type")
        if kind == "image":
            parts.append({"type": "image"})
        elif kind == "text":
            parts.append({"type": "text", "text": _text(part.get("text"), column)})
        else:
            raise RowError("bad-value", f"column {column}: a content part is neither image nor text")
    return parts


def _answer(value: Any, column: str, prompt: Messages) -> Messages:
    """One assistant message; a conversation that repeats the prompt is cut to what follows it."""
    messages = _messages(value, column, role="assistant")
    if len(messages) == len(prompt) + 1 and [m["role"] for m in messages[:-1]] == [m["role"] for m in prompt]:
        messages = messages[-1:]
    if len(messages) != 1 or messages[0]["role"] != "assistant":
        raise RowError("bad-value", f"column {column} is not one message of the assistant")
    content = messages[0]["content"]
    if isinstance(content, str):
        return assistant_message(content)
    if any(part["type"] != "text" for part in content):
        raise RowError("bad-value", f"column {column}: an answer cannot hold images")
    return [{"role": "assistant", "content": content}]


def _place_images(prompt: Messages, count: int) -> Messages:
    """The prompt as parts with a place for each image; unplaced images open the first user turn.

    Raises:
        RowError: The prompt has no user turn at its end (``bad-value``) or more places than images
            (``image-count``).
    """
    placed = [
        {
            "role": m["role"],
            "content": _split(m["content"]) if isinstance(m["content"], str) else m["content"],
        }
        for m in prompt
    ]
    if not placed or placed[-1]["role"] != "user":
        raise RowError("bad-value", "the prompt does not end with a user's turn")
    places = sum(part["type"] == "image" for message in placed for part in message["content"])
    if places > count:
        raise RowError("image-count", f"the prompt has {places} places for {count} images")
    first = next(index for index, message in enumerate(placed) if message["role"] == "user")
    missing: Parts = [{"type": "image"} for _ in range(count - places)]
    placed[first] = {"role": "user", "content": [*missing, *placed[first]["content"]]}
    return placed


def _split(text: str) -> Parts:
    """Text with ``<image>`` placeholders as parts; line breaks that set a placeholder apart are dropped."""
    pieces = text.split(PLACEHOLDER)
    if len(pieces) == 1:
        return [{"type": "text", "text": text}]
    parts: Parts = []
    for index, piece in enumerate(pieces):
        if index:
            parts.append({"type": "image"})
        if piece.strip():
            parts.append({"type": "text", "text": piece.strip("\n")})
    return parts
