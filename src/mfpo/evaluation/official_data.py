"""Where a benchmark's files are: in the user's folder, in the cache, or at their official place."""

from __future__ import annotations

import hashlib
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mfpo.data.cache import default_cache
from mfpo.data.files import write_atomic
from mfpo.errors import UserError

_TIMEOUT_S = 30
_MAX_BYTES = 256 * 2**20


@dataclass(frozen=True, slots=True)
class DataFile:
    """A file of a benchmark.

    Attributes:
        places: Paths below the data folder where it may be, the usual one first; the last part of the first
            is its name.
        licence: Under what terms it may be used.
        url: Its official place; empty if it cannot be fetched as a single file.
        sha256: Of the official content, in hexadecimal; what is fetched must have it.
        how: How to get it by hand, where there is no single file to fetch.
    """

    places: tuple[str, ...]
    licence: str
    url: str = ""
    sha256: str = ""
    how: str = ""

    @property
    def name(self) -> str:
        """File name, for people."""
        return Path(self.places[0]).name


def locate(file: DataFile, data_dir: str | None) -> Path:
    """The file in ``data_dir``, in a folder beside it, in the cache, or fetched from its official place.

    Args:
        file: What is wanted.
        data_dir: The user's folder; when None, the cache and the official place are tried.

    Raises:
        UserError: It is nowhere, and how to get it.
    """
    found = find(file.places, data_dir, _cure(file))
    if found is not None:
        return found
    if data_dir is not None:
        tried = ", ".join(file.places[:3])
        raise UserError(
            f"{file.name} is not there (looked for {tried})", f"--data_dir {data_dir}", _cure(file)
        )
    if not file.url:
        raise UserError(f"{file.name} is needed", where="--data_dir", fix=_cure(file))
    cached = default_cache() / "benchmarks" / f"{file.sha256[:16]}-{file.name}"
    if not cached.is_file():
        _fetch(file, cached)
    return cached


def find(places: Sequence[str], data_dir: str | None, cure: str = "") -> Path | None:
    """The first of several paths that exists below a folder or beside it; None if none does.

    Args:
        places: The paths.
        data_dir: The folder; None has nothing.
        cure: How to get the files, for the error.

    Raises:
        UserError: There is no such folder.
    """
    if data_dir is None:
        return None
    folder = Path(data_dir)
    if not folder.exists():
        fix = f"check the path, or {cure}" if cure else "check the path"
        raise UserError("the folder does not exist", where=f"--data_dir {data_dir}", fix=fix)
    for base in (folder, folder.parent):
        for place in places:
            if (base / place).exists() and (base is folder or "/" in place):
                return base / place
    return None


def sha256_of(path: Path) -> str:
    """First 16 hex digits of the file's SHA-256, as scores record it."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()[:16]


def _fetch(file: DataFile, path: Path) -> None:
    if os.environ.get("HF_HUB_OFFLINE", "").upper() in {"1", "ON", "YES", "TRUE"}:
        raise UserError(f"{file.name} is needed, and HF_HUB_OFFLINE forbids to fetch it", fix=_cure(file))
    try:
        with urllib.request.urlopen(file.url, timeout=_TIMEOUT_S) as response:
            data = response.read(_MAX_BYTES)
    except (urllib.error.URLError, OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise UserError(f"{file.name} cannot be fetched: {reason}", file.url, _cure(file)) from None
    found = hashlib.sha256(data).hexdigest()
    if found != file.sha256:
        raise UserError(
            f"{file.name} is not what it was: sha256 {found[:16]}..., expected {file.sha256[:16]}...",
            file.url,
            "get the file yourself and name its folder with --data_dir",
        )
    write_atomic(path, data)


def _cure(file: DataFile) -> str:
    get = f"get {file.url}" if file.url else file.how
    return f"{get} (licence: {file.licence}) and name its folder with --data_dir"
