"""Answers that differ from each other, put together from the sentences of a few real ones."""

from __future__ import annotations

import random
import re
from collections.abc import Sequence


def mix(texts: Sequence[str], count: int, sentences: int, seed: str) -> list[str]:
    """So many texts of so many sentences, each drawn anew from the sentences of ``texts``."""
    pool = sorted({part for text in texts for part in re.split(r"(?<=[.!?])\s+", text) if len(part) > 20})
    rng = random.Random(seed)
    return [" ".join(rng.sample(pool, sentences)) for _ in range(count)]
