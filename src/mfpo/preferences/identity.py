"""What a built dataset depends on: the settings, the files, the code."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mfpo.data.sources import Outline, Source
from mfpo.errors import UserError
from mfpo.preferences.config import BuildConfig
from mfpo.version import __version__

HASHED_BYTES = 256 * 2**20

FREE = (
    "output_dir",
    "num_workers",
    "max_workers",
    "engine",
    "inspect",
    "dry_run",
    "overwrite",
    "check_regions",
    "push_to_hub",
    "hub_private_repo",
)
"""Settings that do not change the rows."""


def build_fingerprint(config: BuildConfig, source: Source, outline: Outline) -> str:
    """Identifies the rows that a configuration makes of its files as they are now.

    Data and annotation files count by their content, large ones by size and time of change, and so do the
    image files that rows name.

    Args:
        config: The settings.
        source: The source they name.
        outline: What is known of it.

    Raises:
        UserError: A file cannot be read.
    """
    settings = row_settings(config)
    settings["regions"] = config.backend
    settings["columns"] = asdict(source.mapping)
    if source.files:
        # What is in the files counts, not where they lie.
        settings["dataset"] = [_file_stamp(path) for path in source.files]
    if config.backend != "annotations":
        # Then they are only compared with, and a dataset that was built without them can be checked later.
        settings["annotations"] = settings["box_format"] = None
    elif config.annotations is not None:
        settings["annotations"] = _file_stamp(Path(config.annotations))
    settings["images"] = outline.stamp
    text = json.dumps([__version__, settings], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def row_settings(config: BuildConfig) -> dict[str, Any]:
    """The settings that change the rows, by name."""
    return {name: value for name, value in asdict(config).items() if name not in FREE}


def _file_stamp(path: Path) -> str:
    """Identifies a file's content; for a large file its size and time of change must do."""
    try:
        status = path.stat()
        if status.st_size > HASHED_BYTES:
            return f"{path.name} {status.st_size} {status.st_mtime_ns}"
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise UserError(f"the file cannot be read: {error.strerror}", where=str(path)) from None
