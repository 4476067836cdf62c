"""A user's own column names: ``--columns``, and LLaMA-Factory's ``dataset_info.json`` beside the file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mfpo.data.layouts.table import KNOWN_COLUMNS
from mfpo.errors import UserError, nearest

_LARGEST_INFO = 2**24
_ALPACA = {"prompt": "instruction", "query": "input", "response": "output"}
_SHAREGPT = {"messages": "conversations"}
_SHARED = ("system", "images", "chosen", "rejected", "history")
_ROLE_TAGS = {"user_tag": "user", "assistant_tag": "assistant", "system_tag": "system"}


@dataclass(frozen=True, slots=True)
class Tags:
    """How messages are written that are neither TRL's nor ShareGPT's.

    Attributes:
        role: Key of the speaker.
        content: Key of what is said.
        roles: What the speakers are called, to user, assistant and system.
    """

    role: str = "from"
    content: str = "value"
    roles: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ColumnMapping:
    """Renames a row's columns to those of a layout.

    Attributes:
        names: Our name to the source's.
        tags: How its messages are written, None for one of the known ways.
        origin: Where the names come from, for people.
    """

    names: Mapping[str, str] = field(default_factory=dict)
    tags: Tags | None = None
    origin: str = ""

    def apply(self, row: Mapping[str, Any]) -> Mapping[str, Any]:
        """The row under our names; columns that are not renamed keep theirs."""
        if not self.names and self.tags is None:
            return row
        taken = set(self.names.values())
        renamed = {name: value for name, value in row.items() if name not in taken}
        for ours, theirs in self.names.items():
            if theirs in row:
                renamed[ours] = row[theirs]
        if self.tags is not None:
            for name in ("conversations", "chosen", "rejected"):
                if name in renamed:
                    renamed[name] = _retag(renamed[name], self.tags)
        return renamed


def column_mapping(columns: Mapping[str, Any], file: Path | None) -> ColumnMapping:
    """What ``--columns`` says, else what a ``dataset_info.json`` beside the file says of it.

    Args:
        columns: Our name to the source's.
        file: The source, if it is one file.

    Raises:
        UserError: A name in ``columns`` is of no layout, or two of them name one column.
    """
    for ours, theirs in columns.items():
        if ours not in KNOWN_COLUMNS:
            raise UserError(
                f"no layout has a column {ours!r}",
                where=f"--columns {ours}",
                fix=nearest(ours, KNOWN_COLUMNS),
            )
        if not isinstance(theirs, str):
            raise UserError(f"{theirs!r} is no name of a column", where=f"--columns {ours}")
    doubled = {theirs for theirs in columns.values() if list(columns.values()).count(theirs) > 1}
    if doubled:
        raise UserError(f"{', '.join(sorted(doubled))} is given twice", where="--columns")
    if columns:
        return ColumnMapping(dict(columns), None, "--columns")
    entry = _info_entry(file) if file is not None else None
    return ColumnMapping() if entry is None else _from_entry(entry)


def _info_entry(file: Path) -> Mapping[str, Any] | None:
    """The file's entry in LLaMA-Factory's table of datasets; ``datasets`` writes files of that name too."""
    path = file.parent / "dataset_info.json"
    try:
        if not path.is_file() or path.stat().st_size > _LARGEST_INFO:
            return None
        document = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    entries = document.values() if isinstance(document, dict) else ()
    return next(
        (entry for entry in entries if isinstance(entry, dict) and entry.get("file_name") == file.name), None
    )


def _from_entry(entry: Mapping[str, Any]) -> ColumnMapping:
    columns, tags = entry.get("columns"), entry.get("tags")
    columns = columns if isinstance(columns, Mapping) else {}
    sharegpt = entry.get("formatting") == "sharegpt"
    ours = {**(_SHAREGPT if sharegpt else _ALPACA), **{name: name for name in _SHARED}}
    names = {
        ours[key]: theirs
        for key, theirs in columns.items()
        if key in ours and isinstance(theirs, str) and ours[key] != theirs
    }
    return ColumnMapping(
        names, _tags(tags) if sharegpt and isinstance(tags, Mapping) else None, "dataset_info.json"
    )


def _tags(tags: Mapping[str, Any]) -> Tags:
    roles = {str(tags[tag]): role for tag, role in _ROLE_TAGS.items() if tag in tags}
    return Tags(str(tags.get("role_tag", "from")), str(tags.get("content_tag", "value")), roles)


def _retag(value: Any, tags: Tags) -> Any:
    if isinstance(value, (list, tuple)):
        return [_retag(item, tags) for item in value if not isinstance(item, (list, tuple))]
    if not isinstance(value, Mapping) or tags.role not in value or tags.content not in value:
        return value
    role = str(value[tags.role])
    return {"role": tags.roles.get(role, role), "content": value[tags.content]}
