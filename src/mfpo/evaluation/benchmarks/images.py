"""A benchmark's pictures, from the user's data folder."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

from mfpo.data.images import open_image
from mfpo.errors import UserError
from mfpo.records import ImageSource

if TYPE_CHECKING:
    from PIL.Image import Image

ENDINGS = frozenset((".jpg", ".jpeg", ".png", ".webp"))
"""Endings of pictures, in lower case."""


def open_picture(names: Sequence[str], data_dir: str | None, folders: Sequence[str], how: str) -> Image:
    """A picture by its file name, RGB.

    Args:
        names: File names that it may have.
        data_dir: The user's folder.
        folders: Folders below it where the pictures may be; the folder itself and those beside count too.
        how: Where to get them.

    Raises:
        UserError: It is not there.
        RowError: It cannot be decoded.
    """
    for folder in _folders(data_dir, tuple(folders)):
        for name in names:
            if (folder / name).is_file():
                return open_image(ImageSource(path=str(folder / name)))
    raise _missing(f"the picture {names[0]}", data_dir, folders, how)


def list_pictures(data_dir: str | None, folders: Sequence[str], how: str) -> list[str]:
    """Names of all pictures in the first folder that has any, sorted.

    Raises:
        UserError: None has.
    """
    for folder in _folders(data_dir, tuple(folders)):
        names = sorted(file.name for file in folder.iterdir() if file.suffix.lower() in ENDINGS)
        if names:
            return names
    raise _missing("no picture", data_dir, folders, how)


def _missing(what: str, data_dir: str | None, folders: Sequence[str], how: str) -> UserError:
    where = f"--data_dir {data_dir}" if data_dir else "--data_dir"
    verb = "is there" if what.startswith("no ") else "is not there"
    return UserError(f"{what} {verb} (looked in {', '.join(folders)})", where, how)


@lru_cache(maxsize=8)
def _folders(data_dir: str | None, folders: tuple[str, ...]) -> list[Path]:
    if data_dir is None:
        return []
    base = Path(data_dir)
    below = [base / folder for folder in folders]
    beside = [base.parent / folder for folder in folders]
    return [folder for folder in (base, *below, *beside) if folder.is_dir()]
