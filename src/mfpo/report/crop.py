"""Which part of a picture a model sees: some image processors cut off what lies outside a central square."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from PIL import Image

from mfpo.preferences.rejected import picture_of
from mfpo.records import Box

_UNSURE = 0.03
"""Share of a side that may seem to be cut off where nothing is: positions are known to half a pixel of the
model's input."""


@lru_cache(maxsize=256)
def seen_part(image_processor: Any, size: tuple[int, int]) -> Box | None:
    """The part of a picture that the model's overview shows, found by what becomes of a picture of positions.

    Args:
        image_processor: The model's.
        size: (width, height) of the picture.

    Returns:
        (left, top, right, bottom) in shares of the width and the height; None where it is the whole picture.

    Raises:
        UserError: The processor's layout is not known.
    """
    width, height = size
    if min(size) < 2:
        return None
    positions = np.zeros((height, width, 3), dtype=np.uint8)
    positions[..., 0] = np.linspace(0, 255, width)[None].round()
    positions[..., 1] = np.linspace(0, 255, height)[:, None].round()
    positions[..., 2] = 255  # what a processor pads with is less blue
    inputs = dict(image_processor(images=[Image.fromarray(positions)], return_tensors="pt"))
    shown = np.asarray(picture_of(image_processor, inputs))
    found = shown[shown[..., 2] > 240][:, :2] / 255
    if not len(found):
        return None
    (left, top), (right, bottom) = found.min(axis=0).tolist(), found.max(axis=0).tolist()
    if max(left, top, 1 - right, 1 - bottom) < _UNSURE:
        return None
    return left, top, right, bottom


def seen_in_words(part: Box) -> str:
    """The part in a sentence, such as ``the middle 75% of the width``."""
    left, top, right, bottom = part
    sides = ((right - left, "width"), (bottom - top, "height"))
    kept = [f"{100 * share:.0f}% of the {name}" for share, name in sides if share < 1 - _UNSURE]
    return f"the middle {' and '.join(kept)}"
