"""The tones of every colour and material in the scene world."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

RGB: TypeAlias = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Tones:
    """One colour under a lamp at the upper left.

    Attributes:
        base: The colour itself; most of a shape.
        light: Where the light falls.
        dark: Where it doesn't.
        outline: Contour, in a deeper tone of the same colour.
        trim: What stripes and labels on an object of this colour are painted in.
    """

    base: RGB
    light: RGB
    dark: RGB
    outline: RGB
    trim: RGB = (252, 247, 235)


COLOURS: dict[str, Tones] = {
    "red": Tones((222, 56, 54), (247, 118, 104), (174, 32, 46), (116, 18, 34)),
    "orange": Tones((246, 138, 34), (255, 182, 98), (212, 98, 16), (146, 62, 10)),
    "yellow": Tones((251, 213, 46), (255, 238, 134), (226, 172, 20), (154, 108, 8)),
    "green": Tones((58, 166, 78), (122, 206, 122), (32, 122, 64), (14, 76, 44)),
    "blue": Tones((50, 112, 222), (122, 174, 250), (28, 76, 170), (16, 42, 108)),
    "purple": Tones((146, 80, 200), (192, 142, 234), (104, 48, 156), (62, 24, 102)),
    "white": Tones((246, 247, 250), (255, 255, 255), (208, 213, 224), (116, 123, 142), (178, 188, 206)),
    "black": Tones((52, 53, 62), (108, 111, 126), (34, 34, 42), (10, 10, 16)),
}
"""The eight colours an object may have, by name."""

WOOD = Tones((168, 116, 76), (202, 154, 112), (128, 82, 52), (84, 50, 30))
STEEL = Tones((182, 190, 202), (222, 228, 236), (136, 146, 162), (84, 92, 108))
RUBBER = Tones((66, 68, 80), (112, 116, 130), (44, 45, 54), (24, 24, 32))
GLASS = Tones((190, 226, 242), (232, 247, 253), (148, 194, 218), (62, 92, 118))
LEAF = Tones((104, 172, 84), (156, 208, 120), (68, 130, 62), (34, 82, 40))
CREAM = Tones((252, 246, 230), (255, 255, 250), (222, 210, 184), (122, 108, 88))
GOLD = Tones((252, 204, 72), (255, 234, 150), (222, 160, 36), (140, 92, 16))
