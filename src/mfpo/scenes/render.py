"""Scenes to pictures with exact masks."""

from __future__ import annotations

import io
from dataclasses import dataclass, field
from functools import lru_cache

import numpy as np
from PIL import Image

from mfpo.scenes.backgrounds import draw_background
from mfpo.scenes.sprites import draw_sprite
from mfpo.scenes.world import Scene, SceneObject

_SPRITE_SIZE = 160


@dataclass(frozen=True, slots=True)
class Drawing:
    """A drawn scene.

    Attributes:
        image: The picture, RGB.
        masks: The visible pixels of each kind, bool [height, width]; what a nearer object hides is not in it.
    """

    image: Image.Image
    masks: dict[str, np.ndarray] = field(repr=False)

    def png(self) -> bytes:
        """The picture as PNG bytes, the same for the same pixels."""
        buffer = io.BytesIO()
        self.image.save(buffer, format="PNG", compress_level=6)
        return buffer.getvalue()


@lru_cache(maxsize=4096)
def picture_png(scene: Scene, size: int = 192) -> bytes:
    """A scene's picture as PNG bytes.

    Drawing takes several times as long as decoding 20 kB, and one process asks several models about the same
    scenes; so pictures are kept.
    """
    return draw(scene, size).png()


def draw(scene: Scene, size: int = 192) -> Drawing:
    """Draw a scene.

    Args:
        scene: What to draw.
        size: Side of the picture in pixels.

    Returns:
        The picture and the exact mask of each object, both the same for the same scene and size.
    """
    picture = draw_background(scene.context, np.random.default_rng(scene.background_seed), size)
    masks: dict[str, np.ndarray] = {}
    for item in scene.objects:
        sprite, corner = _placed(item, size)
        picture.paste(sprite, corner, sprite)
        mask = np.zeros((size, size), bool)
        opaque = np.asarray(sprite.getchannel("A")) >= 128
        left, top = max(corner[0], 0), max(corner[1], 0)
        right, bottom = min(corner[0] + sprite.width, size), min(corner[1] + sprite.height, size)
        mask[top:bottom, left:right] = opaque[
            top - corner[1] : bottom - corner[1], left - corner[0] : right - corner[0]
        ]
        for hidden in masks.values():
            hidden &= ~mask
        masks[item.kind] = mask
    return Drawing(picture, masks)


def _placed(item: SceneObject, size: int) -> tuple[Image.Image, tuple[int, int]]:
    """The object's sprite at its size and the corner to paste it at."""
    sprite = draw_sprite(item.kind, item.colour, _SPRITE_SIZE)
    scale = item.size * size / max(sprite.size)
    width, height = (max(1, round(side * scale)) for side in sprite.size)
    sprite = sprite.resize((width, height), Image.Resampling.LANCZOS, reducing_gap=2.0)
    return sprite, (round(item.x * size - width / 2), round(item.y * size) - height)
