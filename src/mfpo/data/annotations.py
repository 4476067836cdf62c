"""Boxes and masks that came with the pictures, found by a picture's name."""

from __future__ import annotations

import json
import posixpath
import sqlite3
import weakref
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any

from mfpo.errors import RowError
from mfpo.records import Box


@dataclass(frozen=True, slots=True)
class AnnotatedObject:
    """One instance of a label.

    Attributes:
        label: Its name.
        box: xyxy, in fractions or pixels as [`AnnotatedImage.fractions`] says; None when only a mask was
            given.
        rle: Its mask as COCO compressed run lengths.
        polygons: Its mask as polygons ``[x0, y0, x1, y1, ...]`` in pixels.
        uncompressed: Its mask as COCO's uncompressed run lengths.
        size: (height, width) that run lengths refer to.
    """

    label: str
    box: Box | None = None
    rle: str | None = None
    polygons: tuple[tuple[float, ...], ...] = ()
    uncompressed: tuple[int, ...] = ()
    size: tuple[int, int] | None = None


@dataclass(frozen=True, slots=True)
class AnnotatedImage:
    """What is known about one image.

    Attributes:
        name: The image's name in the annotation file.
        objects: Its objects.
        fractions: Whether boxes are fractions of width and height rather than pixels.
        size: (height, width) as the file states it, or None.
    """

    name: str
    objects: tuple[AnnotatedObject, ...]
    fractions: bool = False
    size: tuple[int, int] | None = None

    @property
    def labels(self) -> list[str]:
        """The labels that occur, in their first order."""
        return list(dict.fromkeys(item.label for item in self.objects))

    def pixel_box(self, item: AnnotatedObject, size: tuple[int, int]) -> Box | None:
        """An object's box in pixels, not clipped.

        Args:
            item: One of the image's objects.
            size: (height, width) of the picture.
        """
        if item.box is None:
            return None
        x0, y0, x1, y1 = item.box
        height, width = size if self.fractions else (1, 1)
        return x0 * width, y0 * height, x1 * width, y1 * height


class Annotations:
    """The annotations of many images, found by an image's name.

    They lie in a temporary file, which goes with the object, so that memory does not grow with them.

    Args:
        images: The annotated images; entries of one name are joined.
        where: The file, for messages.
    """

    def __init__(self, images: Iterable[AnnotatedImage], where: str = "") -> None:
        self.where = where
        # An empty name is a temporary file of SQLite's own. Threads of one process share it.
        self._file = sqlite3.connect("", check_same_thread=False)
        weakref.finalize(self, self._file.close)
        self._file.execute("CREATE TABLE images (name BLOB PRIMARY KEY, basename BLOB, image TEXT)")
        for image in images:
            self._add(image)
        self._file.execute("CREATE INDEX basenames ON images (basename)")
        self._file.commit()

    def __len__(self) -> int:
        return int(self._file.execute("SELECT count(*) FROM images").fetchone()[0])

    def __iter__(self) -> Iterator[AnnotatedImage]:
        """The images in the order of the file."""
        for (data,) in self._file.execute("SELECT image FROM images ORDER BY rowid"):
            yield _unpacked(data)

    def find(self, image_name: str) -> AnnotatedImage | None:
        """The annotations of an image: by the longest tail of its path that is annotated, else by basename.

        Args:
            image_name: Path of the image, absolute or relative.

        Returns:
            None when the image is not annotated.

        Raises:
            RowError: Only the basename is annotated, and under several folders (``ambiguous-annotation``).
        """
        parts = PurePosixPath(_normalised(image_name)).parts
        for start in range(len(parts)):
            found = self._get("/".join(parts[start:]))
            if found is not None:
                return found
        query = "SELECT name FROM images WHERE basename = ? ORDER BY name LIMIT 3"
        names = [_text(name) for (name,) in self._file.execute(query, (_bytes("".join(parts[-1:])),))]
        if len(names) > 1:
            raise RowError("ambiguous-annotation", f"{image_name} could be {' or '.join(names)}")
        return self._get(names[0]) if names else None

    def _get(self, name: str) -> AnnotatedImage | None:
        row = self._file.execute("SELECT image FROM images WHERE name = ?", (_bytes(name),)).fetchone()
        return _unpacked(row[0]) if row else None

    def _add(self, image: AnnotatedImage) -> None:
        name = _normalised(image.name)
        known = self._get(name)
        if known is not None:
            image = replace(known, objects=known.objects + image.objects, size=known.size or image.size)
        self._file.execute(
            "INSERT INTO images VALUES (?, ?, ?) ON CONFLICT (name) DO UPDATE SET image = excluded.image",
            (_bytes(name), _bytes(PurePosixPath(name).name), _packed(image)),
        )


def _packed(image: AnnotatedImage) -> str:
    objects = [
        (item.label, item.box, item.rle, item.polygons, item.uncompressed, item.size)
        for item in image.objects
    ]
    return json.dumps((image.name, objects, image.fractions, image.size))


def _unpacked(text: str) -> AnnotatedImage:
    name, rows, fractions, size = json.loads(text)
    objects = tuple(
        AnnotatedObject(
            label, _tuple(box), rle, tuple(map(tuple, polygons)), tuple(uncompressed), _tuple(of_size)
        )
        for label, box, rle, polygons, uncompressed, of_size in rows
    )
    return AnnotatedImage(name, objects, fractions, _tuple(size))


def _tuple(values: list[Any] | None) -> Any:
    return None if values is None else tuple(values)


def _bytes(name: str) -> bytes:
    """A name as the file keeps it; names of files need not be valid Unicode."""
    return name.encode("utf-8", "surrogatepass")


def _text(name: bytes) -> str:
    return name.decode("utf-8", "surrogatepass")


def _normalised(name: str) -> str:
    """A path with forward slashes and without ``.`` and ``..`` steps, so that names can be compared."""
    return posixpath.normpath(name.replace("\\", "/"))
