"""Read text preferences from where people keep them: JSON Lines, JSON, CSV, Parquet, folders, the Hub."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

from mfpo.data.formats import FORMATS, IMAGE_COLUMNS, Format, read_row, recognise
from mfpo.errors import RowError, Skip, UserError, nearest
from mfpo.records import Sample

RawRow: TypeAlias = tuple[str, Mapping[str, Any]]
"""Where a row stands, and its columns."""

ROWS_BEFORE_GIVING_UP = 100
"""Rows that may fail to match any format, at the start of a source, before it counts as unreadable."""

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_CSV_FIELD_LIMIT = 2**27


def read_source(dataset: str, image_dir: str | None = None) -> Iterator[Sample | Skip]:
    """The rows of a text preference source, in their order.

    Nothing is decoded, and image files are not opened yet. A row that cannot be used comes as a [`Skip`].

    Args:
        dataset: A file (``.jsonl``, ``.json``, ``.csv``, ``.tsv``, ``.parquet``), a folder
            (``data/*.parquet``, one of ``datasets.save_to_disk``, or with such files), or the name of a
            dataset on the Hub.
        image_dir: Folder that relative image names are in; that of the file when None.

    Raises:
        UserError: Nothing is there, it cannot be parsed, or its columns fit no known format.
    """
    root = image_root(dataset, image_dir)
    form: Format | None = None
    unmatched: list[Skip] = []
    columns: list[str] = []
    for row in _raw_rows(dataset):
        if isinstance(row, Skip):
            yield row
            continue
        where, values = row
        matched = recognise(values)
        if matched is None:
            columns = columns or list(values)
            skip = Skip(where, "wrong-columns", f"found {', '.join(values)}")
            if form is not None:
                yield skip
                continue
            unmatched.append(skip)
            if len(unmatched) >= ROWS_BEFORE_GIVING_UP:
                raise _wrong_columns(dataset, columns)
            continue
        if form is None:
            yield from unmatched
        form = matched
        try:
            yield read_row(form, values, where, root)
        except RowError as error:
            yield Skip(where, error.reason, error.detail)
    if form is None and unmatched:
        raise _wrong_columns(dataset, columns)


def image_root(dataset: str, image_dir: str | None) -> Path:
    """Folder that relative image names of a source are in.

    Raises:
        UserError: ``image_dir`` is given but is no folder.
    """
    if image_dir is not None:
        if not Path(image_dir).is_dir():
            raise UserError(
                "no such folder", where=f"--image_dir {image_dir}", fix="give the folder of the images"
            )
        return Path(image_dir)
    path = Path(dataset)
    return path if path.is_dir() else path.parent


def source_files(dataset: str) -> list[Path]:
    """The local files a source is read from; none for a dataset of the Hub."""
    path = Path(dataset)
    if path.is_dir():
        files, _ = _folder_files(path)
        return files or sorted(path.glob("*.arrow"))
    return [path] if path.is_file() else []


def _raw_rows(dataset: str) -> Iterator[RawRow | Skip]:
    path = Path(dataset)
    if path.is_file():
        yield from _file_rows(path)
    elif path.is_dir():
        yield from _folder_rows(path)
    elif _HUB_NAME.fullmatch(dataset) and not path.parent.is_dir():
        yield from _hub_rows(dataset)
    else:
        siblings = [item.name for item in path.parent.iterdir()] if path.parent.is_dir() else []
        hint = nearest(path.name, siblings) if siblings and len(siblings) < 50 else "check the path"
        raise UserError("no such file or folder", where=f"--dataset {dataset}", fix=hint)


def _file_rows(path: Path) -> Iterator[RawRow | Skip]:
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise UserError(
            f"files of type {path.suffix or '(none)'} are not read",
            where=str(path),
            fix=f"convert it to one of: {', '.join(sorted(_READERS))}",
        )
    try:
        yield from reader(path)
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror or error}", where=str(path)) from None


def _jsonl_rows(path: Path) -> Iterator[RawRow | Skip]:
    with path.open("rb") as file:
        for number, line in enumerate(file, start=1):
            if number == 1:
                line = line.removeprefix(b"\xef\xbb\xbf")
            if not line.strip():
                continue
            where = f"{path.name}:{number}"
            try:
                row = json.loads(line)
            except (ValueError, RecursionError) as error:
                yield Skip(where, "broken-json", str(error))
                continue
            yield (where, row) if isinstance(row, dict) else Skip(where, "broken-json", "not a JSON object")


def _json_rows(path: Path) -> Iterator[RawRow | Skip]:
    """An array of objects; a file of the Hub's kind with one object per line is read as JSON Lines."""
    text = path.read_bytes()
    start = text.removeprefix(b"\xef\xbb\xbf").lstrip()[:1]
    if start != b"[":
        yield from _jsonl_rows(path)
        return
    try:
        rows = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(
            f"broken JSON: {error}",
            where=str(path),
            fix="repair it, or write JSON Lines, where a bad line costs one row",
        ) from None
    for number, row in enumerate(rows, start=1):
        where = f"{path.name}:item {number}"
        yield (where, row) if isinstance(row, dict) else Skip(where, "broken-json", "not a JSON object")


def _csv_rows(path: Path) -> Iterator[RawRow | Skip]:
    csv.field_size_limit(_CSV_FIELD_LIMIT)
    delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
    with path.open(newline="", encoding="utf-8-sig", errors="surrogateescape") as file:
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
            elif any(_is_undecoded(cell) for cell in row.values()):
                yield Skip(where, "broken-csv", "not UTF-8")
            else:
                yield where, row


def _is_undecoded(text: str) -> bool:
    return any("\udc80" <= character <= "\udcff" for character in text) if not text.isascii() else False


def _parquet_rows(path: Path) -> Iterator[RawRow | Skip]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with pq.ParquetFile(path) as file:
            number = 0
            for batch in file.iter_batches(batch_size=64, use_threads=False):
                for row in batch.to_pylist():
                    number += 1
                    yield f"{path.name}:row {number}", row
    except pa.ArrowInvalid as error:
        raise UserError(
            f"not a Parquet file: {error}", where=str(path), fix="download or write the file again"
        ) from None


_READERS: dict[str, Callable[[Path], Iterator[RawRow | Skip]]] = {
    ".jsonl": _jsonl_rows,
    ".ndjson": _jsonl_rows,
    ".json": _json_rows,
    ".csv": _csv_rows,
    ".tsv": _csv_rows,
    ".parquet": _parquet_rows,
}


def _folder_rows(folder: Path) -> Iterator[RawRow | Skip]:
    files, kind = _folder_files(folder)
    if kind == "saved":
        from datasets import load_from_disk

        yield from _dataset_rows(load_from_disk(str(folder)), folder.name)
        return
    for file in files:
        yield from _file_rows(file)


def _folder_files(folder: Path) -> tuple[list[Path], str]:
    """The data files of a folder, and whether it is by ``save_to_disk`` (``saved``) or of plain ``files``."""
    if (folder / "state.json").is_file() and (folder / "dataset_info.json").is_file():
        return [], "saved"
    if (folder / "dataset_dict.json").is_file():
        splits = sorted(item.name for item in folder.iterdir() if (item / "state.json").is_file())
        raise UserError(
            "the folder holds several splits", where=str(folder), fix=f"name one of them: {', '.join(splits)}"
        )
    for place in (folder / "data", folder):
        shards = sorted(place.glob("*.parquet"))
        train = [shard for shard in shards if shard.name.startswith("train")]
        if train or shards:
            return train or shards, "files"
    plain = sorted(item for item in folder.iterdir() if item.suffix.lower() in _READERS)
    if len(plain) == 1:
        return plain, "files"
    if plain:
        names = ", ".join(item.name for item in plain[:8])
        raise UserError(
            "the folder holds several data files", where=str(folder), fix=f"name one of them: {names}"
        )
    raise UserError(
        "no data in this folder",
        where=str(folder),
        fix=f"a file of one of these types is needed: {', '.join(_READERS)}",
    )


def _hub_rows(name: str) -> Iterator[RawRow | Skip]:
    from datasets import load_dataset

    try:
        dataset = load_dataset(name, split="train")
    except Exception as error:  # whatever the network, the Hub and the dataset's own files can raise
        first_line = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise UserError(
            f"neither a local path nor a dataset of the Hub that can be loaded: {first_line}",
            where=f"--dataset {name}",
            fix="check the name and the network, or give a local file or folder",
        ) from None
    yield from _dataset_rows(dataset, name)


def _dataset_rows(dataset: Any, name: str) -> Iterator[RawRow]:
    """Rows of a ``datasets.Dataset``, with images as their encoded bytes."""
    for number, row in enumerate(dataset.with_format("arrow").iter(batch_size=64), start=0):
        for offset, values in enumerate(row.to_pylist(), start=1):
            yield f"{name}:row {number * 64 + offset}", values


def _wrong_columns(dataset: str, columns: list[str]) -> UserError:
    """What was found, what is needed, and the format that comes nearest."""
    closest = max(FORMATS, key=lambda form: len(form.columns.intersection(columns)) / len(form.columns))
    needed = [*sorted(closest.columns - set(columns))]
    if not set(columns).intersection(IMAGE_COLUMNS):
        needed.append("image (or images)")
    renames = []
    spare = [column for column in columns if column not in closest.columns]
    for column in needed:
        match = nearest(column.split()[0], spare) if spare else ""
        if match.startswith("did you mean"):
            renames.append(f"{match[len('did you mean ') : -1]} -> {column.split()[0]}")
    known = "; ".join(f"{form.name}: {', '.join(sorted(form.columns))} and image" for form in FORMATS)
    hint = f"rename {', '.join(renames)}. " if renames else ""
    return UserError(
        f"the columns fit no known format; found {', '.join(columns) or 'none'}; nearest is {closest.name}, "
        f"missing {', '.join(needed)}",
        where=dataset,
        fix=f"{hint}Known formats: {known}",
    )
