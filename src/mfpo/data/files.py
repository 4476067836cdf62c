"""Files that are never half written: atomic replacement, JSON, append-only JSON Lines, YAML."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from mfpo.errors import UserError


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """A temporary path beside ``path`` that takes its place when the block ends well, else vanishes.

    The content reaches the disk before the name does, so that after a crash the file is the old one or the
    new one.

    Args:
        path: The file to be written; its folder is created.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
        _sync(path.parent)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def publish_folder(temporary: Path, path: Path) -> None:
    """Give a finished folder its name, in place of one that may have it; its files reach the disk first.

    Args:
        temporary: The folder, on the same disk.
        path: Its name.
    """
    for file in temporary.rglob("*"):
        _sync(file)
    _sync(temporary)
    old = temporary.with_name(f".{path.name}.old")
    shutil.rmtree(old, ignore_errors=True)
    if path.exists():
        path.replace(old)
    temporary.replace(path)
    _sync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def write_atomic(path: str | Path, data: bytes | str) -> None:
    """Write a whole file atomically; text is UTF-8.

    Args:
        path: The file; its folder is created.
        data: The content.
    """
    with atomic_path(path) as temporary:
        temporary.write_bytes(data.encode() if isinstance(data, str) else data)


def write_json(path: str | Path, obj: Any) -> None:
    """Write an object as indented JSON, atomically."""
    write_atomic(path, json.dumps(obj, indent=2, ensure_ascii=False) + "\n")


def write_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Write a whole JSON Lines file, atomically."""
    write_atomic(path, "".join(_line(record) for record in records))


def read_jsonl(path: str | Path) -> list[dict[str, Any]]:
    """The records of a JSON Lines file that we wrote ourselves.

    A last line that was cut off by a crash in [`append_jsonl`] is left out.

    Raises:
        UserError: The file does not exist, or a line that ends with a newline is not a JSON object.
    """
    path = Path(path)
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
    records = []
    fix = "one JSON object a line, in UTF-8; a line that is damaged can be deleted"
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            # Of bytes, the JSON module would take UTF-16 and halves of surrogate pairs too.
            record = json.loads(line.decode("utf-8-sig"))
        except (ValueError, RecursionError) as error:
            if number == len(lines):
                break
            raise UserError(f"broken JSON: {error}", where=f"{path}:{number}", fix=fix) from None
        if not isinstance(record, dict):
            raise UserError(
                f"a JSON object is needed, this is a {type(record).__name__}", f"{path}:{number}", fix
            )
        records.append(record)
    return records


def append_jsonl(path: str | Path, records: Iterable[dict[str, Any]]) -> None:
    """Append records to a JSON Lines file and bring them to the disk.

    A last line that an earlier crash cut off is removed first.

    Args:
        path: The file; it and its folder are created.
        records: JSON objects.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    data = "".join(_line(record) for record in records).encode()
    with path.open("a+b") as file:
        _end_last_line(file)
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def save_config(config: Any, path: str | Path) -> None:
    """Write a configuration dataclass as YAML, fields in their order of declaration.

    Args:
        config: The dataclass instance; nested dataclasses become mappings.
        path: The file, usually ``config.yaml`` beside the result.
    """
    write_atomic(path, yaml.safe_dump(_plain(config), sort_keys=False, allow_unicode=True))


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record, ensure_ascii=False) + "\n"


def _end_last_line(file: Any) -> None:
    """Make an append-only file end with a whole line."""
    size = file.seek(0, os.SEEK_END)
    if size == 0:
        return
    file.seek(size - 1)
    if file.read(1) == b"\n":
        return
    file.seek(0)
    content = file.read()
    start = content.rfind(b"\n") + 1
    try:
        json.loads(content[start:])
    except ValueError:
        file.truncate(start)
    else:
        file.write(b"\n")


def _plain(value: Any) -> Any:
    """Dataclasses, paths, enums and tuples as what YAML can say."""
    if is_dataclass(value) and not isinstance(value, type):
        return {item.name: _plain(getattr(value, item.name)) for item in fields(value)}
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        items = sorted(value) if isinstance(value, (set, frozenset)) else value
        return [_plain(item) for item in items]
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, Path):
        return str(value)
    return value


def _sync(path: Path) -> None:
    """Bring a file or a folder's entries to the disk, where the system can."""
    # Windows and some network file systems refuse to open a folder.
    with suppress(PermissionError, IsADirectoryError):
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        except OSError:
            if not path.is_dir():
                raise
        finally:
            os.close(handle)


def _umask() -> int:
    """The process's file mode mask, which ``mkstemp`` ignores."""
    mask = os.umask(0)
    os.umask(mask)
    return mask
