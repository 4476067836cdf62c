"""Text preferences from where people keep them, each row in the common form."""

from __future__ import annotations

import difflib
import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

from mfpo.data.columns import extra_types
from mfpo.data.folders import needs_datasets, split_files
from mfpo.data.layouts.pictures import ImageFiles
from mfpo.data.layouts.table import extra_columns, read_row, row_files
from mfpo.data.mapping import ColumnMapping, column_mapping
from mfpo.data.recognition import Recogniser
from mfpo.data.source_config import SourceConfig
from mfpo.data.tables import FILE_KINDS, RawRow, file_kind, left_out_columns, row_count, table_rows
from mfpo.errors import RowError, Skip, UserError
from mfpo.records import Sample

_HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+")
_MOST_NAMED = 8


class Table(Protocol):
    """Raw rows, before their layout is known."""

    @property
    def kind(self) -> str:
        """What it is, for people."""
        ...

    def rows(self, *, images: bool = True) -> Iterator[RawRow | Skip]:
        """The rows; without ``images`` as cheaply as it can be done."""
        ...

    def count(self) -> int | None:
        """Number of rows where it is known beforehand."""
        ...


@dataclass(frozen=True, slots=True)
class Outline:
    """What can be known of a source before its images are read.

    Attributes:
        items: Number of its rows, unusable ones included; None for a stream that does not say.
        extra: Further columns and their types.
        rejected_images: Whether a row brings rejected images along.
        keywords: Whether a row brings keywords along.
        layout: What people call the rows' layout.
        stamp: Changes when one of the image files does: by name, size and time of change, not by content.
    """

    items: int | None
    extra: dict[str, type]
    rejected_images: bool
    keywords: bool
    layout: str
    stamp: str


class Source:
    """A text preference source.

    Args:
        config: Where it is and how it is written.

    Attributes:
        config: The same.
        files: The local files it is read from; none when ``datasets`` reads it.
        mapping: The user's column names.

    Raises:
        UserError: Nothing is there, it cannot be opened, or a setting is wrong.
    """

    def __init__(self, config: SourceConfig) -> None:
        self.config = config
        try:
            self.files, self.table = _open(config)
        except (OSError, ValueError) as error:  # a name with a zero byte, or longer than the system allows
            raise UserError(f"no path: {error}", where=f"--dataset {config.dataset!r}"[:300]) from None
        self.mapping: ColumnMapping = column_mapping(
            config.columns, self.files[0] if len(self.files) == 1 else None
        )
        self.images = _image_files(config, remote=not Path(config.dataset).exists())

    @property
    def kind(self) -> str:
        """What it is, for people."""
        return self.table.kind

    @property
    def licence(self) -> str:
        """The licence that it states, or nothing."""
        return str(getattr(self.table, "licence", ""))

    def count(self) -> int | None:
        """Number of rows where it is known beforehand, at most the limit."""
        count, limit = self.table.count(), self.config.limit
        return count if count is None or limit is None else min(count, limit)

    def raw_rows(self, *, images: bool = True) -> Iterator[RawRow | Skip]:
        """The rows as they are written, under our names for their columns."""
        for row in self.table.rows(images=images):
            yield row if isinstance(row, Skip) else (row[0], self.mapping.apply(row[1]))

    def recogniser(self) -> Recogniser:
        """What finds the layout of its rows."""
        return Recogniser(self.config.dataset, self.config.layout, self.mapping)

    def items(self) -> Iterator[Sample | Skip]:
        """The rows, in their order and at most the limit; nothing is decoded, image files are not opened yet.

        A row that cannot be used comes as a [`Skip`].

        Raises:
            UserError: It cannot be parsed, or its columns fit no layout, or several.
        """
        return islice(self._items(), self.config.limit)

    def _items(self) -> Iterator[Sample | Skip]:
        recogniser = self.recogniser()
        waiting: list[Skip] = []
        for row in self.raw_rows():
            if isinstance(row, Skip):
                yield row
                continue
            item = self._item(row, recogniser)
            unfit = isinstance(item, Skip) and (item.reason == "wrong-columns" or recogniser.doubtful)
            if isinstance(item, Skip) and unfit and not recogniser.settled:
                # The first rows may be somebody's notes, or the file may be of another kind.
                waiting.append(item)
                recogniser.give_up_after(len(waiting))
                continue
            if isinstance(item, Sample):
                recogniser.settled = True
            if recogniser.settled and waiting:
                yield from waiting
                waiting = []
            yield item
        if waiting:
            raise recogniser.nothing_fits()

    def _item(self, row: RawRow, recogniser: Recogniser) -> Sample | Skip:
        where, values = row
        layout = recogniser.layout(values)
        if layout is None:
            return Skip(where, "wrong-columns", f"found {', '.join(map(str, values))}")
        try:
            return read_row(layout, values, where, self.images, uses_keywords=self.config.uses_keywords)
        except RowError as error:
            return Skip(where, error.reason, error.detail)

    def outline(self) -> Outline:
        """Count the rows and learn the types of the further columns, which all shards of a dataset share.

        Raises:
            UserError: As from [`items`].
        """
        declared = getattr(self.table, "types", lambda: None)()
        if declared is not None:
            return self._declared(declared)
        return self._scanned()

    def _declared(self, types: Mapping[str, type]) -> Outline:
        """By what ``datasets`` knows, so that a stream is not read twice."""
        table: Any = self.table
        names = self.mapping.apply(dict.fromkeys(table.column_names() or types))
        layout = self.recogniser().layout(names)
        if layout is None:
            raise self.recogniser().nothing_fits(list(names))
        examples = self.mapping.apply({name: kind() for name, kind in types.items()})
        # A column of images must be there for the layout, whatever it holds.
        row = {**dict.fromkeys(names), **examples}
        extra = extra_types([extra_columns(layout, row)])
        return Outline(
            items=self.count(),
            extra=extra,
            rejected_images="rejected_images" in names,
            keywords="keywords" in names,
            layout=layout.title,
            stamp=table.stamp,
        )

    def _scanned(self) -> Outline:
        """By a pass over the rows that leaves embedded images alone."""
        recogniser = self.recogniser()
        items, title = 0, ""
        # What is not read cannot be looked at, so that its column has to do.
        left_out: list[str] = self.table.left_out() if isinstance(self.table, _Files) else []
        unread = self.mapping.apply(dict.fromkeys(left_out))
        brought = {column: column in unread for column in ("rejected_images", "keywords")}
        digest = hashlib.sha256()

        def extras() -> Iterator[Mapping[str, Any]]:
            nonlocal items, title
            for row in islice(self.raw_rows(images=False), self.config.limit):
                items += 1
                if isinstance(row, Skip):
                    continue
                values = row[1]
                layout = recogniser.layout(values)
                if layout is None:
                    continue
                title = title or layout.title
                for column in brought:
                    brought[column] = brought[column] or bool(values.get(column))
                for path in row_files(layout, values, self.images):
                    digest.update(_file_stamp(path))
                yield _writable(extra_columns(layout, values))

        types = extra_types(extras())
        return Outline(items=items, extra=types, layout=title, stamp=digest.hexdigest(), **brought)


@dataclass(frozen=True, slots=True)
class _Files:
    """The rows of local files, one after the other."""

    files: list[Path]
    kind: str

    def rows(self, *, images: bool = True) -> Iterator[RawRow | Skip]:
        for file in self.files:
            yield from table_rows(file, images=images)

    def left_out(self) -> list[str]:
        """Columns that are not there when rows are read without images."""
        return [name for file in self.files for name in left_out_columns(file)]

    def count(self) -> int | None:
        counts = [row_count(file) for file in self.files]
        return None if None in counts else sum(count or 0 for count in counts)


def _open(config: SourceConfig) -> tuple[list[Path], Table]:
    path = Path(config.dataset)
    if path.is_file():
        for name in ("split", "subset", "revision"):
            if getattr(config, name) is not None:
                raise UserError(
                    "one file has no splits, subsets or revisions", where=f"--{name}", fix="leave it out"
                )
        return [path], _Files([path], f"{file_kind(path)} file")
    if path.is_dir():
        return _open_folder(path, config)
    if _HUB_NAME.fullmatch(config.dataset) and not path.parent.is_dir():
        return [], _open_hub(config)
    raise UserError("no such file or folder", where=f"--dataset {config.dataset}", fix=_instead(path))


def _instead(path: Path) -> str:
    """What may have been meant by a name that is not there: one much like it, else the data files there."""
    if not path.parent.is_dir():
        return f"there is no folder {path.parent} either"
    names = sorted(item.name for item in path.parent.iterdir() if not item.name.startswith("."))
    close = difflib.get_close_matches(path.name, names, n=1, cutoff=0.7)
    if close:
        return f"did you mean {close[0]!r}?"
    readable = [name for name in names if file_kind(Path(name)) in FILE_KINDS]
    if 0 < len(readable) <= _MOST_NAMED:
        return f"check the path; data files there: {', '.join(readable)}"
    return "check the path"


def _open_folder(folder: Path, config: SourceConfig) -> tuple[list[Path], Table]:
    from mfpo.data.hub import is_saved

    if config.subset is not None or config.streaming or is_saved(folder):
        return [], _open_hub(config)
    try:
        files = split_files(folder, config.split)
    except UserError:
        if needs_datasets(folder):
            return [], _open_hub(config)
        raise
    return files, _Files(files, f"folder, {len(files)} {file_kind(files[0])} file{'s' * (len(files) > 1)}")


def _open_hub(config: SourceConfig) -> Table:
    from mfpo.data.hub import HubTable

    return HubTable(config)


def _image_files(config: SourceConfig, *, remote: bool) -> ImageFiles:
    """Where images may lie; rows of strangers are kept inside ``--image_dir``."""
    if config.image_dir is not None and not Path(config.image_dir).is_dir():
        raise UserError(
            "no such folder", where=f"--image_dir {config.image_dir}", fix="give the folder of the images"
        )
    if remote:
        from mfpo.data.hub import cache_folders

        given = [Path(config.image_dir)] if config.image_dir is not None else []
        return ImageFiles(Path(config.image_dir or "."), (*given, *cache_folders()))
    if config.image_dir is not None:
        return ImageFiles(Path(config.image_dir))
    path = Path(config.dataset)
    return ImageFiles(path if path.is_dir() else path.parent)


def _file_stamp(path: str) -> bytes:
    """Name, size and time of change of a file; looking into each would cost a read of all images."""
    try:
        status = Path(path).stat()
        return f"{Path(path).name} {status.st_size} {status.st_mtime_ns}\n".encode(errors="replace")
    except (OSError, ValueError):
        return f"{Path(path).name} missing\n".encode(errors="replace")


def _writable(extra: dict[str, Any]) -> dict[str, Any]:
    """The columns whose name a file can hold; their rows are skipped when they are read."""
    return {name: value for name, value in extra.items() if name.isprintable() and _encodable(name)}


def _encodable(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
