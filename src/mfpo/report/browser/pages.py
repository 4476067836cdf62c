"""The page on disk: one self-contained HTML file, or a folder for many rows. Both are written row by row."""

from __future__ import annotations

import base64
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, TextIO

from markupsafe import Markup
from PIL import Image

from mfpo.data.files import atomic_path, write_atomic
from mfpo.errors import UserError
from mfpo.report.browser.charts import Chart
from mfpo.report.browser.records import BrowseRow, PageSettings, RowPictures
from mfpo.report.browser.rows import SMALL
from mfpo.report.page import KEYWORD_COLOURS, asset, csp_hash, embedded_json, encode_picture, render
from mfpo.version import __version__

SCRIPTS = ("masks", "noise", "filter", "loader", "verdicts", "list", "row", "main")
ROWS_PER_CHUNK = 500
PICTURES_PER_CHUNK = 20
_ROWS_PER_BLOCK = 50
_MARK = "<!--rows-->"
_OWN_FOLDERS = ("rows", "pictures", "images")
MARKER = ".mfpo-browse"
"""File that says of a folder, also after an interrupted run, that what lies in it was written here."""
_SIGNS = ('name="generator" content="mfpo', "trusted-types mfpo")
"""What stands in the head of a folder's page, and together in no other page."""


class PageWriter(Protocol):
    """Takes the rows of a page one after the other; the page appears when the block has ended well."""

    def __enter__(self) -> PageWriter: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def embed(self, position: int, picture: Image.Image, name: str) -> str:
        """Store an image of a row; returns its address on the page. May be called from several threads."""

    def write(self, row: BrowseRow, pictures: RowPictures) -> None:
        """Add the next row."""


def render_page(
    settings: PageSettings,
    facts: Sequence[tuple[str, str]],
    charts: Sequence[Chart],
    footer: str,
    *,
    folder: bool,
) -> str:
    """The page without its rows, which belong where [`_MARK`] stands.

    Its content security policy admits the page's own style and script by their hashes, and images. In a
    folder that script may add scripts, which a Trusted Types policy narrows to the folder's own chunks.

    Args:
        settings: What the script is told.
        facts: Headline numbers as (name, text).
        charts: The statistics.
        footer: A sentence under them.
        folder: Whether rows and images lie beside the page.
    """
    script = asset("dom.js", *(f"browser/{name}.js" for name in SCRIPTS))
    style = Markup("\n").join([asset("tokens.css", "browser/style.css"), Markup(_colours())])
    policy = [
        "default-src 'none'",
        "img-src data: 'self' file:" if folder else "img-src data:",
        f"style-src {csp_hash(style)}",
        f"script-src {csp_hash(script)}" + (" 'strict-dynamic'" if folder else ""),
        "base-uri 'none'",
        "form-action 'none'",
        "require-trusted-types-for 'script'",
        f"trusted-types {'mfpo' if folder else chr(39) + 'none' + chr(39)}",
    ]
    return render(
        "browser/index.html.j2",
        {
            "settings": settings,
            "settings_json": Markup(embedded_json(asdict(settings))),
            "facts": facts,
            "charts": charts,
            "footer": footer,
            "folder": folder,
            "version": __version__,
            "policy": Markup("; ".join(policy)),
            "style": style,
            "script": script,
        },
    )


class SingleFile:
    """One file that holds everything.

    Args:
        path: The file.
        page: Of [`render_page`].
    """

    def __init__(self, path: Path, page: str) -> None:
        self._atomic = atomic_path(path)
        self._head, self._tail = page.split(_MARK)
        self._file: TextIO | None = None
        self._rows: list[dict[str, Any]] = []
        self._count = 0

    def __enter__(self) -> SingleFile:
        self._file = self._atomic.__enter__().open("w", encoding="utf-8", newline="\n")
        self._file.write(self._head)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._file is not None
        with self._file:
            if kind is None:
                self._flush()
                self._file.write(self._tail)
        self._atomic.__exit__(kind, error, trace)

    def embed(self, position: int, picture: Image.Image, name: str) -> str:
        """The image itself as a ``data:`` URI."""
        data, kind = _encoded(picture)
        return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"

    def write(self, row: BrowseRow, pictures: RowPictures) -> None:
        """Add the next row: its pictures in a block of their own, read when it is looked at."""
        self._block(f'id="pictures-{self._count}"', asdict(pictures))
        self._count += 1
        self._rows.append(asdict(row))
        if len(self._rows) == _ROWS_PER_BLOCK:
            self._flush()

    def _flush(self) -> None:
        if self._rows:
            self._block('class="rows"', self._rows)
        self._rows = []

    def _block(self, attribute: str, value: Any) -> None:
        assert self._file is not None
        self._file.write(f'<script type="application/json" {attribute}>{embedded_json(value)}</script>\n')


class Folder:
    """A page with images in files and rows in scripts beside it, since a page that is a file must not fetch.

    Args:
        path: The folder; a page that was written here before is replaced.
        page: Of [`render_page`].

    Raises:
        UserError: The folder holds something else.
    """

    def __init__(self, path: Path, page: str) -> None:
        self._path, self._page = path, page
        self._rows: list[dict[str, Any]] = []
        self._pictures: list[dict[str, Any]] = []
        self._written = {"rows": 0, "pictures": 0}

    def __enter__(self) -> Folder:
        clear_folder(self._path)
        for name in _OWN_FOLDERS:
            (self._path / name).mkdir(parents=True)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is None:
            self._rows = self._flush("rows", self._rows, 1)
            self._pictures = self._flush("pictures", self._pictures, 1)
            write_atomic(self._path / "index.html", self._page.replace(_MARK, ""))

    def embed(self, position: int, picture: Image.Image, name: str) -> str:
        """Writes the image into a file."""
        data, kind = _encoded(picture)
        file = f"images/{position:06d}-{name}.{kind}"
        (self._path / file).write_bytes(data)
        return file

    def write(self, row: BrowseRow, pictures: RowPictures) -> None:
        """Add the next row to its chunks."""
        self._rows.append(asdict(row))
        self._pictures.append(asdict(pictures))
        self._rows = self._flush("rows", self._rows, ROWS_PER_CHUNK)
        self._pictures = self._flush("pictures", self._pictures, PICTURES_PER_CHUNK)

    def _flush(self, kind: str, entries: list[dict[str, Any]], least: int) -> list[dict[str, Any]]:
        if len(entries) < least:
            return entries
        number = self._written[kind]
        text = embedded_json(embedded_json(entries))
        (self._path / kind / f"{number:05d}.js").write_text(
            f'mfpo.receive("{kind}", {number}, {text});\n', encoding="utf-8", newline="\n"
        )
        self._written[kind] += 1
        return []


def clear_folder(path: Path) -> None:
    """Remove an earlier page from a folder, and mark it as one of a page.

    Raises:
        UserError: The folder holds something else.
    """
    if path.is_dir() and not _may_be_cleared(path):
        raise UserError(
            "the folder holds something else than a page of `mfpo browse`",
            where=f"--output_dir {path}",
            fix="name an empty or new folder",
        )
    # The mark comes first: whatever a run that is interrupted leaves behind, the next one knows it.
    write_atomic(path / MARKER, "Written by mfpo browse, which replaces everything in this folder.\n")
    (path / "index.html").unlink(missing_ok=True)
    for name in _OWN_FOLDERS:
        shutil.rmtree(path / name, ignore_errors=True)


def _may_be_cleared(path: Path) -> bool:
    """Whether a folder is empty, or all in it is of an earlier page.

    Other programs write an ``index.html`` and folders of these names too.
    """
    names = {entry.name for entry in path.iterdir()}
    if not names <= {MARKER, "index.html", *_OWN_FOLDERS}:
        return False
    if "index.html" in names:
        return _is_page(path / "index.html")
    return not names or MARKER in names


def _is_page(file: Path) -> bool:
    """Whether ``mfpo browse`` wrote an HTML file, as the page of a folder."""
    if not file.is_file():
        return False
    with file.open(encoding="utf-8", errors="replace") as text:
        head = text.read(4096)
    return all(sign in head for sign in _SIGNS)


def _encoded(picture: Image.Image) -> tuple[bytes, str]:
    # Progressive coding takes nearly three times as long and saves 4%.
    return encode_picture(picture, lossless=max(picture.size) <= SMALL, progressive=False)


def _colours() -> str:
    """A class for each keyword colour, with the ink that is readable on it."""
    rules: Mapping[str, str] = {colour: _ink_on(colour) for colour in KEYWORD_COLOURS}
    return "\n".join(
        f".k{rank} {{ --k: {colour}; --on-k: {ink}; }}" for rank, (colour, ink) in enumerate(rules.items())
    )


def _ink_on(colour: str) -> str:
    """Black or white, whichever has more contrast by the WCAG's formula."""
    channels = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # Contrast with white equals contrast with black at this luminance.
    return "#000" if (luminance + 0.05) ** 2 > 0.0525 else "#fff"
