"""Settings of `mfpo train` with a name: what the paper does, and what did better on scenes."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "mfpo": {
            "objective": "mfpo",
            "stages": "easy_to_hard",
            "noise_scope": None,
            "image_loss": None,
            "image_weight": None,
        },
        "grounded": {
            "objective": "mfpo",
            "stages": "none",
            "noise_scope": "erase",
            "image_loss": "hinge",
            "image_weight": 0.1,
        },
    }
)
"""Every recipe names the same settings, so that one undoes another. ``mfpo`` is the paper's and the
default. ``grounded`` asks less of the image term, and for something else: a tenth of its weight, until
the chosen answer is told by a margin of 1 from the same answer about a picture whose key regions are
filled from around them, all rows at once. It was chosen on validation scenes; docs/findings.md has the
numbers.
"""
