"""The objects of the scene world: 24 kinds in eight colours, drawn once and cached."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

from PIL import Image

from mfpo.scenes.sprites import animals, household, kitchen, outdoors, vehicles
from mfpo.scenes.sprites.palette import COLOURS
from mfpo.scenes.sprites.sketch import Sketch

__all__ = ["COLOURS", "KINDS", "draw_sprite"]

KINDS: dict[str, Callable[[Sketch], None]] = {
    "mug": kitchen.mug,
    "plate": kitchen.plate,
    "bottle": kitchen.bottle,
    "apple": kitchen.apple,
    "pot": kitchen.pot,
    "knife": kitchen.knife,
    "car": vehicles.car,
    "bus": vehicles.bus,
    "bicycle": vehicles.bicycle,
    "sign": outdoors.sign,
    "tree": outdoors.tree,
    "dog": animals.dog,
    "bench": outdoors.bench,
    "kite": outdoors.kite,
    "flower": outdoors.flower,
    "ball": outdoors.ball,
    "boat": vehicles.boat,
    "umbrella": outdoors.umbrella,
    "bucket": outdoors.bucket,
    "chair": household.chair,
    "lamp": household.lamp,
    "clock": household.clock,
    "book": household.book,
    "cat": animals.cat,
}
"""How each kind is drawn, by name."""

SUPERSAMPLING = 3
SMALLEST_DRAWING = 128
"""Longer side in pixels below which a sprite is a larger drawing made smaller: thin lines stay even."""


def draw_sprite(kind: str, colour: str, size: int = 256) -> Image.Image:
    """Draw one object.

    Args:
        kind: One of [`KINDS`].
        colour: One of [`COLOURS`].
        size: Length in pixels of its longer side.

    Returns:
        RGBA, transparent background, cropped to the object and its contact shadow. The shadow's alpha stays
        below 128, so ``alpha >= 128`` is the object itself. The caller owns the image.
    """
    return _sprite(kind, colour, size).copy()


@lru_cache(maxsize=4096)
def _sprite(kind: str, colour: str, size: int) -> Image.Image:
    drawing = _drawing(kind, colour, max(size, SMALLEST_DRAWING))
    ratio = size / max(drawing.size)
    shape = (max(1, round(drawing.width * ratio)), max(1, round(drawing.height * ratio)))
    return drawing.resize(shape, Image.Resampling.BOX if ratio < 1 else Image.Resampling.BICUBIC)


@lru_cache(maxsize=256)
def _drawing(kind: str, colour: str, side: int) -> Image.Image:
    sketch = Sketch(COLOURS[colour], scale=side * SUPERSAMPLING / 100)
    KINDS[kind](sketch)
    return sketch.finish()
