"""Raw rows of data files: JSON Lines, JSON, CSV, Parquet and Arrow, also compressed; memory stays flat."""

from __future__ import annotations

import csv
import gzip
import io
import json
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, TypeAlias, cast

from mfpo.data.json_items import LONGEST_ITEM, BrokenJsonError, json_items
from mfpo.errors import Skip, UserError

RawRow: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its columns."""

BATCH = 16
"""Rows that are in memory together; few, since they may hold pictures."""

_CSV_FIELD_LIMIT = 2**27
# What Arrow's own Python code makes of damaged names, sizes and types.
_ARROW_MISTAKES = (ValueError, KeyError, IndexError, TypeError, OverflowError, MemoryError)
_NOT_AN_OBJECT = "not a JSON object"


def table_rows(path: Path, *, images: bool = True) -> Iterator[RawRow | Skip]:
    """The rows of a file, in their order; a row that cannot be parsed comes as a [`Skip`].

    Args:
        path: The file.
        images: Whether binary columns of Parquet and Arrow are wanted; without them, reading is cheap.

    Raises:
        UserError: Its type is not known, or it cannot be read or parsed as a whole.
    """
    reader = _READERS.get(file_kind(path))
    if reader is None:
        raise UserError(
            f"files of type {path.suffix or '(none)'} are not read",
            where=str(path),
            fix=f"convert it to one of: {', '.join(FILE_KINDS)}",
        )
    try:
        yield from reader(path, images)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise UserError(f"not a whole gzip file: {error}", where=str(path), fix="fetch it again") from None
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from None


def file_kind(path: Path) -> str:
    """The file's type as its name ends, ``.gz`` included."""
    suffixes = [suffix.lower() for suffix in path.suffixes[-2:]]
    return "".join(suffixes) if suffixes[-1:] == [".gz"] else "".join(suffixes[-1:])


def row_count(path: Path) -> int | None:
    """Rows of a file where it says so itself (Parquet)."""
    if file_kind(path) != ".parquet":
        return None
    with _parquet(path) as file:
        count: int = file.metadata.num_rows
        return count


@contextmanager
def _binary(path: Path) -> Iterator[IO[bytes]]:
    """The file's content, decompressed on the way."""
    with path.open("rb") as raw:
        if path.suffix.lower() == ".gz":
            with gzip.open(raw) as file:
                yield cast("IO[bytes]", file)
        else:
            yield raw


def _jsonl_rows(path: Path, _: bool = True) -> Iterator[RawRow | Skip]:
    with _binary(path) as file:
        for number, line in enumerate(_lines(file), start=1):
            where = f"{path.name}:{number}"
            if line is None:
                yield Skip(where, "row-too-large", f"more than {LONGEST_ITEM} bytes in one line")
                continue
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if line.strip():
                yield _parsed(line, where)


def _lines(file: IO[bytes]) -> Iterator[bytes | None]:
    """The lines, None for one that is too long to be held."""
    while line := file.readline(LONGEST_ITEM + 1):
        if len(line) <= LONGEST_ITEM:
            yield line
            continue
        while line and not line.endswith(b"\n"):
            line = file.readline(LONGEST_ITEM)
        yield None


def _parsed(text: str | bytes, where: str) -> RawRow | Skip:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        return Skip(where, "broken-json", str(error))
    return (where, row) if isinstance(row, dict) else Skip(where, "broken-json", _NOT_AN_OBJECT)


def _json_rows(path: Path, images: bool = True) -> Iterator[RawRow | Skip]:
    """An array of rows, an object of rows by image id (HA-DPO), or JSON Lines under this name."""
    if _first_sign(path) != "[" and not _is_keyed(path):
        yield from _jsonl_rows(path, images)
        return
    try:
        with _binary(path) as file:
            for number, item in enumerate(json_items(file), start=1):
                where = f"{path.name}:item {number if item.key is None else item.key}"
                if item.text is None:
                    yield Skip(where, "row-too-large", f"more than {LONGEST_ITEM} characters")
                    continue
                row = _parsed(item.text, where)
                if item.key is not None and isinstance(row, tuple):
                    row = (where, {"image_id": item.key, **row[1]})
                yield row
    except BrokenJsonError as error:
        raise UserError(
            f"broken JSON: {error}",
            where=str(path),
            fix="repair or fetch it again, or write JSON Lines, where a bad line costs one row",
        ) from None


def _first_sign(path: Path) -> str:
    with _binary(path) as file:
        start = file.read(2**16).removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    return start.decode("ascii", "replace")


def _is_keyed(path: Path) -> bool:
    """Whether the document is one object whose values are rows."""
    try:
        with _binary(path) as file:
            item = next(json_items(file), None)
            row = json.loads(item.text) if item is not None and item.text is not None else None
    except (BrokenJsonError, ValueError, RecursionError):
        return False
    return isinstance(row, dict) and {"chosen", "rejected"} <= row.keys()


def _csv_rows(path: Path, _: bool = True) -> Iterator[RawRow | Skip]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    delimiter = "\t" if ".tsv" in file_kind(path) else ","
    with (
        _binary(path) as binary,
        io.TextIOWrapper(binary, newline="", encoding="utf-8-sig", errors="surrogateescape") as file,
    ):
        reader = csv.DictReader(file, delimiter=delimiter)
        while True:
            try:
                row = next(reader, None)
            except csv.Error as error:
                yield Skip(f"{path.name}:{reader.line_num}", "broken-csv", str(error))
                continue
            if row is None:
                return
            where = f"{path.name}:{reader.line_num}"
            if None in row or None in row.values():
                yield Skip(where, "broken-csv", "the number of cells differs from the header's")
            elif any(_is_undecoded(cell) for cell in (*row, *row.values())):
                yield Skip(where, "broken-csv", "not UTF-8")
            else:
                yield where, row


def _is_undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else False


@contextmanager
def _parquet(path: Path) -> Iterator[Any]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, *_ARROW_MISTAKES) as error:
        raise UserError(
            f"not a Parquet file that can be read: {error}", where=str(path), fix="fetch or write it again"
        ) from None


def _parquet_rows(path: Path, images: bool = True) -> Iterator[RawRow | Skip]:
    with _parquet(path) as file:
        columns = None if images else _without_bytes(file.schema)
        batches = file.iter_batches(batch_size=BATCH, use_threads=False, columns=columns)
        everything = dict.fromkeys(file.schema_arrow.names)
        for row in batch_rows(batches, path.name):
            yield row if isinstance(row, Skip) else (row[0], {**everything, **row[1]})


def _without_bytes(schema: Any) -> list[str]:
    """The leaves of a Parquet schema that are no plain bytes."""
    leaves = [schema.column(index) for index in range(len(schema))]
    return [
        leaf.path
        for leaf in leaves
        if leaf.physical_type != "BYTE_ARRAY" or str(leaf.logical_type).lower() not in ("none", "")
    ]


def left_out_columns(path: Path) -> list[str]:
    """Columns of a Parquet file of which nothing is read without images: bytes alone, or lists of them."""
    if file_kind(path) != ".parquet":
        return []
    with _parquet(path) as file:
        read = {leaf.split(".")[0] for leaf in _without_bytes(file.schema)}
        return [name for name in file.schema_arrow.names if name not in read]


def _arrow_rows(path: Path, _: bool = True) -> Iterator[RawRow | Skip]:
    import pyarrow as pa

    try:
        with pa.memory_map(str(path)) as file:
            try:
                reader: Any = pa.ipc.open_stream(file)
                batches: Iterator[Any] = iter(reader)
            except pa.ArrowInvalid:
                reader = pa.ipc.open_file(file)
                batches = (reader.get_batch(index) for index in range(reader.num_record_batches))
            yield from batch_rows(batches, path.name)
    except (pa.ArrowException, *_ARROW_MISTAKES) as error:
        raise UserError(
            f"not an Arrow file that can be read: {error}", where=str(path), fix="fetch or write it again"
        ) from None


def batch_rows(batches: Iterator[Any], name: str, start: int = 0) -> Iterator[RawRow | Skip]:
    """The rows of Arrow batches.

    Args:
        batches: Record batches or tables.
        name: What the rows belong to.
        start: Rows before them.
    """
    number = start
    for batch in batches:
        for offset in range(0, batch.num_rows, BATCH):
            for row in _python_rows(batch.slice(offset, BATCH)):
                number += 1
                where = f"{name}:row {number}"
                yield Skip(where, "broken-text", row) if isinstance(row, str) else (where, row)


def _python_rows(batch: Any) -> list[dict[str, Any] | str]:
    """The rows, or what is wrong with one: a text that is not UTF-8, offsets that lead out of the file."""
    import pyarrow as pa

    try:
        # Arrow trusts what it reads; without this a damaged file ends the process.
        batch.validate(full=True)
        rows: list[dict[str, Any] | str] = batch.to_pylist()
        return rows
    except (pa.ArrowException, *_ARROW_MISTAKES) as error:
        if batch.num_rows == 1:
            return [str(error)]
        return [row for index in range(batch.num_rows) for row in _python_rows(batch.slice(index, 1))]


_READERS: dict[str, Callable[[Path, bool], Iterator[RawRow | Skip]]] = {
    ".jsonl": _jsonl_rows,
    ".jsonl.gz": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".json.gz": _json_rows,
    ".csv": _csv_rows,
    ".csv.gz": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
    ".arrow": _arrow_rows,
}
FILE_KINDS = tuple(_READERS)
"""Endings of the names of files that are read."""
