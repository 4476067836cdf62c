"""The images of a row: files, bytes, base64 texts and records, as columns and message parts hold them."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mfpo.errors import RowError, counted
from mfpo.records import ImageSource, Messages

_REMOTE = ("http://", "https://", "hf://", "s3://", "gs://", "ftp://")
_LONGEST_NAME = 4096
# How the base64 of JPEG, PNG, GIF, WebP and BMP files begins; a JPEG's looks like an absolute path.
_BASE64_STARTS = ("/9j/", "iVBORw0KGgo", "R0lGOD", "UklGR", "Qk")
_BASE64 = re.compile(r"[A-Za-z0-9+/]+={0,2}")
_SHORTEST_BASE64 = 64


@dataclass(frozen=True, slots=True)
class ImageFiles:
    """Where the image files that rows name may lie.

    Attributes:
        root: Folder that relative names are in.
        allowed: Folders that names must not lead out of, symbolic links followed; None for rows of a file of
            the user's own, which may name any file.
    """

    root: Path
    allowed: tuple[Path, ...] | None = field(default=None)

    def source(self, name: str) -> ImageSource:
        """The file of that name; it is not opened.

        Raises:
            RowError: It is outside the folders that are allowed (``outside-image-dir``).
        """
        path = self.root / name
        if self.allowed is not None:
            try:
                real = path.resolve()
            except (OSError, RuntimeError) as error:
                raise RowError("unreadable-image", f"{name}: {error}") from None
            if not any(real.is_relative_to(folder.resolve()) for folder in self.allowed):
                raise RowError(
                    "outside-image-dir",
                    f"{name} is a file outside the image folder, and rows from elsewhere may not name such",
                )
        return ImageSource(path=str(path))


def image_sources(value: Any, column: str, files: ImageFiles) -> tuple[ImageSource, ...]:
    """The images in a value: a path, a base64 text, bytes, a ``{"bytes", "path"}`` record, a list.

    Raises:
        RowError: The value is none of these (``bad-value``), base64 that cannot be decoded (``bad-base64``),
            a web address (``remote-image``), a record without bytes and path (``missing-image``), or a file
            that the row may not name (``outside-image-dir``).
    """
    if value is None or value == "":
        return ()
    if isinstance(value, (list, tuple)):
        return tuple(source for item in _flat(value, column) for source in image_sources(item, column, files))
    if isinstance(value, (bytes, bytearray)):
        return (ImageSource(data=bytes(value)),)
    if isinstance(value, Mapping):
        return (_from_record(value, column, files),)
    if not isinstance(value, str) or "\0" in value:
        raise RowError("bad-value", f"column {column} holds {type(value).__name__}, not an image or its path")
    data = _decoded(value, column)
    if data is not None:
        return (ImageSource(data=data),)
    if value.lower().startswith(_REMOTE):
        address = value if len(value) <= 200 else f"{value[:200]}..."
        raise RowError("remote-image", f"{address} is a web address; download the images first")
    if len(value) > _LONGEST_NAME:
        raise RowError("bad-value", f"column {column} holds a text of {len(value)} characters, no path")
    return (files.source(_file_name(value)),)


def _file_name(value: str) -> str:
    return value.removeprefix("file://")


def image_names(value: Any) -> Iterator[str]:
    """The names of files in a value of [`image_sources`], which is not checked."""
    if isinstance(value, (list, tuple)):
        for item in value:
            # At most one list deep in another, as there.
            for inner in item if isinstance(item, (list, tuple)) else (item,):
                yield from image_names(inner) if not isinstance(inner, (list, tuple)) else ()
    elif isinstance(value, Mapping):
        if value.get("bytes") is None and isinstance(value.get("path"), str):
            yield _file_name(value["path"])
    elif isinstance(value, str) and 0 < len(value) <= _LONGEST_NAME and not _is_base64(value):
        yield _file_name(value)


def place_images(
    prompt: Messages, given: tuple[ImageSource, ...], files: ImageFiles
) -> tuple[Messages, tuple[ImageSource, ...]]:
    """The prompt with a part for each image, and the images in the order of these parts.

    Images without a place of their own open the first user turn. Where every image part brings its image
    along, a column that names the same images says nothing new.

    Args:
        prompt: Messages whose contents are parts; an image part may bring its image along.
        given: The images of the row's column.
        files: Where files may lie.

    Raises:
        RowError: There is no image (``missing-image``), there are more places than images, or the column
            names other images than those that the messages bring (``image-count``).
    """
    parts_of_images = [part for message in prompt for part in message["content"] if part["type"] == "image"]
    places = sum("image" not in part for part in parts_of_images)
    if given and parts_of_images and not places:
        brought = [
            source for part in parts_of_images for source in image_sources(part["image"], "image", files)
        ]
        _check_equal(brought, given, files)
        given = ()
    if places > len(given):
        raise RowError("image-count", f"the prompt has {places} places for {len(given)} images")
    spare, waiting = given[: len(given) - places], iter(given[len(given) - places :])
    first = next(index for index, message in enumerate(prompt) if message["role"] == "user")
    placed: Messages = []
    images: list[ImageSource] = []
    for index, message in enumerate(prompt):
        parts: list[dict[str, Any]] = []
        if index == first:
            parts += [{"type": "image"} for _ in spare]
            images += spare
        for part in message["content"]:
            if part["type"] != "image":
                parts.append(part)
                continue
            found = image_sources(part["image"], "image", files) if "image" in part else (next(waiting),)
            parts += [{"type": "image"} for _ in found]
            images += found
        placed.append({"role": message["role"], "content": parts})
    if not images:
        raise RowError("missing-image", "the row has no image")
    return placed, tuple(images)


def _check_equal(brought: Sequence[ImageSource], given: Sequence[ImageSource], files: ImageFiles) -> None:
    """Complain unless the images of the messages are those of the column, in the same order."""
    same = len(brought) == len(given) and all(
        _same(one, other, files) for one, other in zip(brought, given, strict=True)
    )
    if not same:
        raise RowError(
            "image-count",
            f"the messages bring {counted(len(brought), 'image')} along, and the column of images names "
            f"{len(given)}, not the same in the same order; leave one of both out, or let image parts of the "
            "messages be places without an image for those of the column",
        )


def _same(one: ImageSource, other: ImageSource, files: ImageFiles) -> bool:
    """Whether two images are one, by their bytes or, without opening files, by their names."""
    if one.data is not None and other.data is not None:
        return one.data == other.data
    if one.path is None or other.path is None:
        return False
    return files.root / one.path == files.root / other.path


def _flat(values: Any, column: str) -> Iterator[Any]:
    """The values, at most one list deep in another (frames of a sequence), not nested without end."""
    for value in values:
        if not isinstance(value, (list, tuple)):
            yield value
        elif any(isinstance(item, (list, tuple)) for item in value):
            raise RowError("bad-value", f"column {column} holds lists in lists in lists")
        else:
            yield from value


def _from_record(value: Mapping[str, Any], column: str, files: ImageFiles) -> ImageSource:
    data, path = value.get("bytes"), value.get("path")
    if path is not None and not isinstance(path, str):
        raise RowError("bad-value", f"column {column} has a path of type {type(path).__name__}")
    if isinstance(data, str):
        decoded = _decoded(data, column, certain=True)
        assert decoded is not None, "either bytes or an exception"
        data = decoded
    if isinstance(data, (bytes, bytearray)):
        return ImageSource(path=path, data=bytes(data))
    if data is not None:
        raise RowError("bad-value", f"column {column} has bytes of type {type(data).__name__}")
    if not path:
        raise RowError("missing-image", f"column {column} has neither bytes nor a path")
    return image_sources(path, column, files)[0]


def _is_base64(value: str) -> bool:
    if value[:5].lower() == "data:":
        return True
    return len(value) >= _SHORTEST_BASE64 and value.startswith(_BASE64_STARTS) and "." not in value[-8:]


def _decoded(value: str, column: str, certain: bool = False) -> bytes | None:
    """Bytes of a base64 text or data address; None for a text that is neither.

    Args:
        value: The text.
        column: Where it stands, for messages.
        certain: Whether it can be nothing else than base64.
    """
    if not certain and not _is_base64(value):
        return None
    if value[:5].lower() == "data:":
        head, comma, value = value.partition(",")
        if not comma or not head.lower().endswith(";base64"):
            raise RowError("bad-base64", f"column {column} has a data: address that is not base64")
    value = "".join(value.split())
    if not _BASE64.fullmatch(value):
        raise RowError("bad-base64", f"column {column} has characters that are not base64")
    try:
        return base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError) as error:
        raise RowError("bad-base64", f"column {column}: {error}") from None
