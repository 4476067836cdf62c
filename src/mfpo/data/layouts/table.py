"""The table of layouts, which of them a row's columns fit, and a row in the common form.

A layout is one entry of [`LAYOUTS`]: the columns it needs and a function from a row to question and answers.
To add one, write the function and list it.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mfpo.data.layouts import conversations, questions
from mfpo.data.layouts.pictures import ImageFiles, image_names, image_sources, place_images
from mfpo.data.layouts.values import Row, Turns, inline_images, one_answer, with_parts
from mfpo.errors import RowError
from mfpo.records import ImageSource, Sample, text_of

IMAGE_COLUMNS = ("images", "image", "image_path", "img_path", "file_name")
"""Columns that may hold the images; the first one that is not empty is used."""

DERIVED_COLUMNS = frozenset({"id", "keywords", "regions", "region_status", "noise", "rejected_images"})
"""Columns that a build makes anew, so that a built folder can be built again."""

_VISUAL_GENOME = ("", "VG_100K", "VG_100K_2")


@dataclass(frozen=True, slots=True)
class Layout:
    """One way to write a preference row.

    Attributes:
        name: What ``--layout`` calls it.
        title: What people call it.
        columns: Columns that must be there, besides an image column.
        read: The row's conversation. It raises [`RowError`] when a value is unusable.
        optional: Further columns that it reads when they are there.
        weak: Whether its columns say so little that any other layout that fits is preferred.
        image_id: Whether its images are known by their Visual Genome id, in a column ``image_id``.
    """

    name: str
    title: str
    columns: frozenset[str]
    read: Callable[[Row], Turns]
    optional: frozenset[str] = frozenset()
    weak: bool = False
    image_id: bool = False


def _layout(
    name: str, title: str, columns: str, read: Callable[[Row], Turns], optional: str = "", **further: bool
) -> Layout:
    return Layout(name, title, frozenset(columns.split()), read, frozenset(optional.split()), **further)


LAYOUTS = (
    _layout("trl", "TRL", "prompt chosen rejected", conversations.read_trl),
    _layout(
        "plain", "RLAIF-V or plain", "question chosen rejected", questions.read_question, "system history"
    ),
    _layout(
        "sharegpt",
        "ShareGPT (LLaMA-Factory)",
        "conversations chosen rejected",
        conversations.read_sharegpt,
        "system",
    ),
    _layout(
        "alpaca",
        "Alpaca (LLaMA-Factory)",
        "instruction chosen rejected",
        questions.read_alpaca,
        "input system history",
    ),
    _layout("vlfeedback", "VLFeedback", "prompt completions", questions.read_rated),
    _layout("swift", "ms-swift", "messages rejected_response", conversations.read_swift, "system"),
    _layout(
        "swift-messages",
        "ms-swift with rejected messages",
        "messages rejected_messages",
        conversations.read_swift_messages,
        "system",
    ),
    _layout(
        "swift-query",
        "ms-swift with query and response",
        "query response rejected_response",
        questions.read_query,
        "system history",
    ),
    _layout("povid", "POVID", "conversations rejected_conversations", conversations.read_povid),
    _layout(
        "llava-rlhf",
        "LLaVA-RLHF",
        "conversations output_1 output_2 preference",
        conversations.read_llava_rlhf,
    ),
    _layout(
        "ha-dpo",
        "HA-DPO questions",
        "image_id question chosen reject",
        questions.read_hadpo,
        "correct",
        image_id=True,
    ),
    _layout(
        "ha-dpo-descriptions",
        "HA-DPO descriptions",
        "image_id chosen rejected",
        questions.read_hadpo_descriptions,
        weak=True,
        image_id=True,
    ),
    _layout(
        "openai",
        "messages with answers (LLaMA-Factory)",
        "messages chosen rejected",
        conversations.read_openai,
        "system",
        weak=True,
    ),
    _layout("rlhf-v", "RLHF-V", "text", questions.read_json_text, weak=True),
    _layout(
        "trl-implicit",
        "TRL with implicit prompt",
        "chosen rejected",
        conversations.read_trl_implicit,
        weak=True,
    ),
)

BY_NAME = {layout.name: layout for layout in LAYOUTS}

KNOWN_COLUMNS = frozenset[str]().union(
    *(layout.columns | layout.optional for layout in LAYOUTS), IMAGE_COLUMNS, {"keywords", "rejected_images"}
)
"""Columns that some layout reads."""


def recognise(columns: Collection[str]) -> list[Layout]:
    """The layouts that the columns fit best: one, none, or several that nothing decides between.

    A layout whose columns are a part of another's that fits is not counted, nor is a weak one beside others.
    """
    names = set(columns)
    fitting = [
        layout
        for layout in LAYOUTS
        if layout.columns <= names and not (layout.image_id and layout.weak and names & set(IMAGE_COLUMNS))
    ]
    strong = [layout for layout in fitting if not layout.weak] or fitting
    return [layout for layout in strong if not any(layout.columns < other.columns for other in strong)]


def image_column(layout: Layout, row: Row) -> str | None:
    """The column that holds the row's images, None where only its messages may."""
    there = [name for name in IMAGE_COLUMNS if name in row]
    if not there and layout.image_id:
        return "image_id"
    return next((name for name in there if not _is_empty(row[name])), there[0] if there else None)


def _is_empty(value: Any) -> bool:
    """Whether a value of an image column is no image: nothing, or only such in a list or a record."""
    if isinstance(value, (list, tuple)):
        return all(item is None or item == "" or _is_empty_record(item) for item in value)
    return value is None or value == "" or _is_empty_record(value)


def _is_empty_record(value: Any) -> bool:
    # Without the key, its bytes were left out when the row was read.
    return (
        isinstance(value, Mapping)
        and "bytes" in value
        and value["bytes"] is None
        and value.get("path") in (None, "")
    )


def read_row(
    layout: Layout, row: Row, where: str, files: ImageFiles, *, uses_keywords: bool = True
) -> Sample:
    """A row in the common form.

    Args:
        layout: The row's layout.
        row: Column name to value.
        where: File and line or row.
        files: Where image files may lie.
        uses_keywords: Whether the row's own keywords are used; where not, a column of that name may hold
            anything.

    Raises:
        RowError: A value is missing, of the wrong type, or the images don't fit the prompt;
            ``wrong-columns`` when there is no image column and no image in the messages;
            ``no-preference`` when nothing sets the answers apart.
    """
    turns = layout.read(row)
    column = image_column(layout, row)
    prompt = with_parts(turns.prompt)
    if column is None:
        if not any("image" in part for message in prompt for part in message["content"]):
            raise RowError("wrong-columns", f"found {', '.join(map(str, row))}, and no column of images")
        given: tuple[ImageSource, ...] = ()
    elif column == "image_id":
        given = (_visual_genome(row["image_id"], files),)
    else:
        given = image_sources(row[column], column, files)
    prompt, images = place_images(prompt, given, files)
    sample = Sample(
        images=images,
        prompt=prompt,
        chosen=one_answer(turns.chosen, "chosen", prompt),
        rejected=one_answer(turns.rejected, "rejected", prompt),
        where=where,
        extra=extra_columns(layout, row),
        rejected_images=_rejected_images(row.get("rejected_images"), files),
        keywords=_keywords(row.get("keywords"), needed=uses_keywords),
    )
    _check_answers(sample)
    _check_encodable(sample)
    return sample


def extra_columns(layout: Layout, row: Row) -> dict[str, Any]:
    """The other columns that hold simple values; the source's own ``id`` is kept as ``source_id``."""
    used = {
        *layout.columns,
        *layout.optional,
        *DERIVED_COLUMNS,
        "images",
        "image",
        "prompt",
        "chosen",
        "rejected",
    }
    # By name alone, so that all rows of a source keep the same columns.
    used.update(next(([name] for name in IMAGE_COLUMNS if name in row), []))
    used.discard("image_id" if layout.image_id else "")
    extra = {
        name: value
        for name, value in row.items()
        if name not in used and isinstance(value, (str, bool, int, float))
    }
    own = "noise" in row
    if not own and isinstance(row.get("id"), (str, int)):
        extra["source_id"] = row["id"]
    return extra


def row_files(layout: Layout, row: Row, files: ImageFiles) -> list[str]:
    """Paths of the image files that a row names, as far as they can be told without reading it."""
    column = image_column(layout, row)
    if column == "image_id":
        return [_visual_genome(row["image_id"], files).path or ""] if _is_id(row["image_id"]) else []
    names = [*image_names(row.get(column or "")), *image_names(row.get("rejected_images"))]
    inline = [image for name in sorted(layout.columns) for image in inline_images(row.get(name))]
    # Two conversations may tell the same prompt.
    names += dict.fromkeys(name for image in inline for name in image_names(image))
    return [str(files.root / name) for name in names]


def _is_id(value: Any) -> bool:
    return str(value).isascii() and str(value).isdigit() and len(str(value)) < 20


def _visual_genome(value: Any, files: ImageFiles) -> ImageSource:
    """The file ID.jpg, in the image folder or in one of the two that Visual Genome is delivered in."""
    if not _is_id(value):
        raise RowError("bad-value", "column image_id is not a number")
    places = [Path(folder) / f"{value}.jpg" for folder in _VISUAL_GENOME]
    found = next((place for place in places if (files.root / place).is_file()), places[0])
    return files.source(str(found))


def of_rejected_images(error: RowError) -> RowError:
    """The error with the column that it is about, and what that column is for."""
    return RowError(
        error.reason, f"{error.detail} (in column rejected_images, the pictures for --noise_scope swap)"
    )


def _rejected_images(value: Any, files: ImageFiles) -> tuple[ImageSource, ...]:
    try:
        return image_sources(value, "rejected_images", files)
    except RowError as error:
        raise of_rejected_images(error) from None


def _keywords(value: Any, *, needed: bool) -> tuple[str, ...] | None:
    """The row's own keywords; None if it has none, or none that can be read and are not needed."""
    try:
        phrases = _phrases(value)
        _check_text(phrases or ())
    except RowError:
        if needed:
            raise
        return None
    return phrases


def _phrases(value: Any) -> tuple[str, ...] | None:
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


def _check_answers(sample: Sample) -> None:
    """Answers that say nothing, or the same, are no text preference; rejected images may still be one."""
    chosen, rejected = text_of(sample.chosen).strip(), text_of(sample.rejected).strip()
    for column, answer in (("chosen", chosen), ("rejected", rejected)):
        if not answer:
            raise RowError("missing-value", f"the {column} answer is empty")
    if chosen == rejected and not sample.rejected_images:
        raise RowError("no-preference", "the chosen and the rejected answer are the same")


def _check_encodable(sample: Sample) -> None:
    """JSON can spell half a character (a lone surrogate), which no file can hold."""
    texts = [text_of([*sample.prompt, *sample.chosen, *sample.rejected]), *map(str, sample.extra.values())]
    texts += [source.path or "" for source in (*sample.images, *sample.rejected_images)]
    texts += sample.extra
    _check_text(texts)


def _check_text(texts: Iterable[str]) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError as error:
        raise RowError("broken-text", f"not valid Unicode: {error.reason}") from None
