"""What a stored result depends on besides its inputs: the code that made it, and its libraries."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from functools import lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow")
"""Libraries whose versions may change pixels, tokens or log-probabilities."""
_PACKAGE = Path(__file__).parents[1]


@lru_cache
def code_digest(parts: tuple[str, ...] = ("",)) -> str:
    """SHA-256 over the source of modules or subpackages of this package, word lists and prompts included.

    Args:
        parts: Paths within the package, such as ``scenes`` or ``preferences/noise.py``; the whole package by
            default.
    """
    root = _PACKAGE
    digest = hashlib.sha256()
    for part in parts:
        path = root / part
        for file in [path] if path.is_file() else sorted(path.rglob("*")):
            if not file.is_file() or file.suffix == ".pyc":
                continue
            digest.update(file.relative_to(root).as_posix().encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()


def library_versions(libraries: Sequence[str] = LIBRARIES) -> dict[str, str]:
    """Installed version of each library, empty where it is missing."""
    found = {}
    for name in libraries:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = ""
    return found
