"""Small preference rows in memory, for tests of everything that takes rows."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from mfpo.preferences.regions.masks import encode_rle
from mfpo.records import ImageSource, Noise, PreferencePair, Region, assistant_message, user_message

SIDE = 40
WORDS = ["a", "red", "blue", "green", "mug", "plate", "apple", "kitchen", "with", "and", "the", "image"]


def png(pixels: np.ndarray) -> ImageSource:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return ImageSource(data=buffer.getvalue())


def make_pair(index: int, **changes: object) -> PreferencePair:
    """Row number ``index``: a random picture with one region, and answers of differing lengths."""
    rng = np.random.default_rng(index)
    mask = np.zeros((SIDE, SIDE), dtype=bool)
    mask[8:24, 10:30] = True
    fields: dict[str, object] = {
        "id": f"{index:016x}",
        "images": (png(rng.integers(0, 256, (SIDE, SIDE, 3), dtype=np.uint8)),),
        "prompt": user_message(
            "Describe the image." if index % 2 else "What is in the kitchen with the mug?"
        ),
        "chosen": assistant_message(" ".join(rng.choice(WORDS, 3 + index % 5)).capitalize() + "."),
        "rejected": assistant_message(" ".join(rng.choice(WORDS, 2 + index % 4)).capitalize() + "."),
        "regions": (Region("mug", (10.0, 8.0, 30.0, 24.0), 1.0, encode_rle(mask), (SIDE, SIDE)),),
        "noise": Noise(seed=index),
    }
    return PreferencePair(**{**fields, **changes})  # type: ignore[arg-type]


def make_pairs(count: int) -> list[PreferencePair]:
    return [make_pair(index) for index in range(count)]
