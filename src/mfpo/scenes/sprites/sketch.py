"""Drawing primitives: outlines as arrays of points, and a canvas that paints them with soft shading.

Coordinates are in units of a 100 x 100 square, x to the right and y down; a little beyond it is still drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageChops, ImageDraw, ImageFilter, ImageOps

from mfpo.scenes.sprites.palette import RGB, Tones

Points: TypeAlias = NDArray[np.float64]
"""Closed outline, [n, 2] in units."""

MARGIN = 8.0
"""Units drawn on each side of the square."""

OUTLINE = 2.0
"""Width of a contour in units."""

SHADOW: RGB = (38, 34, 58)
SHADOW_OPACITY = 0.36


def oval(
    cx: float, cy: float, rx: float, ry: float | None = None, start: float = 0, stop: float = 360
) -> Points:
    """An ellipse, or the part of one from ``start`` to ``stop`` degrees (0 is right, 90 is down)."""
    angle = np.radians(np.linspace(start, stop, 65))
    return np.stack([cx + rx * np.cos(angle), cy + (rx if ry is None else ry) * np.sin(angle)], axis=1)


def poly(*corners: tuple[float, float], radius: float = 0) -> Points:
    """A polygon with corners rounded by ``radius``, which shrinks where an edge is too short for it."""
    points = np.asarray(corners, dtype=np.float64)
    if not radius:
        return points
    t = np.linspace(0, 1, 8)[:, None]
    rounded = []
    for before, corner, after in zip(np.roll(points, 1, 0), points, np.roll(points, -1, 0), strict=True):
        ends = []
        for other in (before, after):
            length = float(np.hypot(*(other - corner)))
            ends.append(corner + (other - corner) * min(radius / max(length, 1e-9), 0.5))
        rounded.append((1 - t) ** 2 * ends[0] + 2 * t * (1 - t) * corner + t**2 * ends[1])
    return np.concatenate(rounded)


def box(x0: float, y0: float, x1: float, y1: float, radius: float = 0) -> Points:
    """An upright rectangle with rounded corners."""
    return poly((x0, y0), (x1, y0), (x1, y1), (x0, y1), radius=radius)


def spline(*knots: tuple[float, float], closed: bool = True) -> Points:
    """A smooth (Catmull-Rom) curve through the knots."""
    points = np.asarray(knots, dtype=np.float64)
    if closed:
        padded = np.concatenate([points[-1:], points, points[:2]])
    else:
        padded = np.concatenate([points[:1], points, points[-1:]])
    t = np.linspace(0, 1, 10, endpoint=False)[:, None]
    pieces = [
        0.5 * (2 * b + (c - a) * t + (2 * a - 5 * b + 4 * c - d) * t**2 + (3 * b - a - 3 * c + d) * t**3)
        for a, b, c, d in zip(padded, padded[1:], padded[2:], padded[3:], strict=False)
    ]
    return np.concatenate(pieces if closed else [*pieces, points[-1:]])


def ribbon(
    path: Points | Sequence[tuple[float, float]], width: float, end_width: float | None = None
) -> Points:
    """The outline of a stroke along an open path, with round ends; the width may change to ``end_width``."""
    points = np.asarray(path, dtype=np.float64)
    ahead = np.gradient(points, axis=0)
    ahead /= np.maximum(np.hypot(ahead[:, 0], ahead[:, 1]), 1e-9)[:, None]
    half = np.linspace(width, width if end_width is None else end_width, len(points))[:, None] / 2
    normal = np.stack([-ahead[:, 1], ahead[:, 0]], axis=1)

    def cap(index: int, sign: int) -> Points:
        turn = np.radians(np.linspace(90, -90, 10))[:, None]
        return points[index] + half[index] * sign * (
            np.cos(turn) * ahead[index] + np.sin(turn) * normal[index]
        )

    return np.concatenate([points + half * normal, cap(-1, 1), (points - half * normal)[::-1], cap(0, -1)])


def turn(outline: Points, degrees: float, about: tuple[float, float] = (50, 50)) -> Points:
    """The outline turned clockwise about a point."""
    c, s = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    centre = np.asarray(about)
    return (outline - centre) @ np.array([[c, s], [-s, c]]) + centre


def mirror(outline: Points, axis: float = 50) -> Points:
    """The outline mirrored left to right at ``x = axis``."""
    return np.stack([2 * axis - outline[:, 0], outline[:, 1]], axis=1)


def ring(cx: float, cy: float, radius: float, width: float) -> Points:
    """A circle drawn with a thick line."""
    return np.concatenate([oval(cx, cy, radius + width / 2), oval(cx, cy, radius - width / 2)[::-1]])


@dataclass(frozen=True, slots=True)
class _Mask:
    """A part of the canvas, with its upper left corner in pixels."""

    image: Image.Image
    corner: tuple[int, int]


class Sketch:
    """A transparent canvas on which one object is painted, back to front.

    Args:
        colour: Tones of the object; the ones a shape gets unless it names others.
        scale: Pixels per unit.
    """

    def __init__(self, colour: Tones, scale: float) -> None:
        self.colour = colour
        self._scale = scale
        side = round((100 + 2 * MARGIN) * scale)
        self._image = Image.new("RGBA", (side, side))
        self._shadow = Image.new("L", (side, side))
        self._surface = _Mask(Image.new("L", (1, 1)), (0, 0))

    def paint(
        self,
        *shapes: Points,
        tones: Tones | None = None,
        tone: str = "base",
        volume: float = 1,
        outline: float = 1,
    ) -> None:
        """Paint the union of some shapes: contour, fill, light at the upper left, shade at the lower right.

        Args:
            shapes: Outlines that become one surface; the contour runs around all of them.
            tones: Material; the object's colour when None.
            tone: Which of its tones fills the surface: ``base``, ``light`` or ``dark``.
            volume: How round it looks: 0 is flat, 1 usual.
            outline: Contour width relative to the usual one.
        """
        tones = tones or self.colour
        fill: RGB = getattr(tones, tone)
        if outline:
            self._fill(self._draw(shapes, OUTLINE * outline), tones.outline)
        self._surface = self._draw(shapes)
        self._fill(self._surface, fill)
        if volume:
            self.shade(tones, volume)

    def shade(self, tones: Tones | None = None, volume: float = 1, strength: float = 0.8) -> None:
        """Light and shade the surface painted last; ``paint`` does it unless its ``volume`` is 0."""
        tones = tones or self.colour
        surface = self._surface
        depth = volume * 0.13 * min(surface.image.size)
        self._fill(_Mask(_rim(surface.image, depth, strength), surface.corner), tones.dark)
        self._fill(_Mask(_rim(surface.image, -depth, strength), surface.corner), tones.light)

    def mark(self, *shapes: Points, rgb: RGB, opacity: float = 1) -> None:
        """Colour a part of the surface painted last: a stripe, a highlight, a window's gleam; no contour."""
        surface = self._surface
        part = Image.new("L", surface.image.size)
        draw = ImageDraw.Draw(part)
        for shape in shapes:
            draw.polygon(self._pixels(shape, surface.corner), fill=round(255 * opacity))
        self._fill(_Mask(ImageChops.darker(part, surface.image), surface.corner), rgb)

    def gloss(self, *shapes: Points, opacity: float = 0.5) -> None:
        """A highlight on the surface painted last."""
        self.mark(*shapes, rgb=(255, 255, 255), opacity=opacity)

    def stand(self, x: float, y: float, half_width: float) -> None:
        """Cast a soft contact shadow on the ground below ``(x, y)``."""
        outline = self._pixels(oval(x, y, half_width, max(1.8, 0.07 * half_width)))
        ImageDraw.Draw(self._shadow).polygon(outline, fill=round(255 * SHADOW_OPACITY))

    def finish(self) -> Image.Image:
        """The object over its shadow, RGBA, cropped to what is visible."""
        under = Image.new("RGBA", self._image.size, (*SHADOW, 0))
        under.putalpha(self._shadow.filter(ImageFilter.BoxBlur(self._scale)))
        image = Image.alpha_composite(under, self._image)
        return image.crop(image.getchannel("A").getbbox())

    def _pixels(self, outline: Points, corner: tuple[int, int] = (0, 0)) -> list[tuple[float, float]]:
        return [(x, y) for x, y in ((outline + MARGIN) * self._scale - corner).tolist()]

    def _fill(self, mask: _Mask, rgb: RGB) -> None:
        self._image.paste((*rgb, 255), mask.corner, mask.image)

    def _draw(self, shapes: Sequence[Points], grow: float = 0) -> _Mask:
        """The union of the shapes, grown by some units; what is grown gets rounder corners."""
        reach = grow * self._scale
        pad = math.ceil(2 * reach)
        points = (np.concatenate(shapes) + MARGIN) * self._scale
        low, high = np.floor(points.min(0)) - pad, np.ceil(points.max(0)) + pad + 1
        corner = (int(low[0]), int(low[1]))
        mask = Image.new("L", (int(high[0]) - corner[0], int(high[1]) - corner[1]))
        draw = ImageDraw.Draw(mask)
        for shape in shapes:
            draw.polygon(self._pixels(shape, corner), fill=255)
        if reach:
            # At 1.28 sigma outside a straight edge a Gaussian blur has fallen to a tenth.
            blurred = mask.filter(ImageFilter.GaussianBlur(reach / 1.28))
            mask = blurred.point(lambda value: 255 if value >= 25 else 0)
        return _Mask(mask, corner)


def _rim(surface: Image.Image, depth: float, strength: float) -> Image.Image:
    """Mask of the surface's lower right rim (upper left for a negative depth), fading inwards."""
    pad = int(abs(depth) * 3) + 2
    part = ImageOps.expand(surface, pad)
    moved = ImageChops.offset(part, -round(depth), -round(depth)).filter(
        ImageFilter.BoxBlur(abs(depth) * 0.7)
    )
    rim = ImageChops.subtract(part, moved).point(lambda value: round(value * strength))
    return ImageOps.crop(rim, pad)
