"""Where results that several runs can share are kept on this machine."""

from __future__ import annotations

import os
from pathlib import Path


def default_cache() -> Path:
    """``$MFPO_CACHE``, else ``mfpo`` in the user's cache folder."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("MFPO_CACHE") or Path(base) / "mfpo")
