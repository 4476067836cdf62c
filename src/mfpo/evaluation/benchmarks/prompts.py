"""The official scripts' prompts for judges: data, kept as files and sent character by character."""

from __future__ import annotations

from functools import cache
from pathlib import Path

FOLDER = Path(__file__).parent / "data"


@cache
def read_prompt(name: str) -> str:
    """A prompt by its file name; its source and licence stand in ``LICENSES.md`` beside it."""
    return (FOLDER / name).read_bytes().decode()
