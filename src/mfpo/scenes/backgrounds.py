"""Where scenes take place: five muted backgrounds that hold none of the kinds of objects.

Drawn at twice the size and averaged. Coordinates are shares of the picture's side, y down.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias, TypeVar

import numpy as np
from PIL import Image, ImageDraw

from mfpo.scenes.sprites.palette import RGB

Corner: TypeAlias = tuple[float, float]
_T = TypeVar("_T")

GROUND: dict[str, float] = {"kitchen": 0.57, "street": 0.55, "park": 0.55, "beach": 0.57, "bedroom": 0.57}
"""Height of the floor's, counter's or shore's far edge in each context; a picture's is within 0.05."""

WATER = 0.40
"""Height of the sea's horizon on the beach, within the same 0.05; the sea reaches from there to the shore."""

_SWAY = 0.05
_SUPERSAMPLING = 2


def draw_background(context: str, rng: np.random.Generator, size: int = 192) -> Image.Image:
    """Draw the background of a scene.

    Args:
        context: One of [`GROUND`].
        rng: Source of its variation: hues, height of the horizon, hills, clouds, windows, houses, tiles.
        size: Side of the picture in pixels.

    Returns:
        RGB picture, ``size`` x ``size``, the same for the same state of ``rng``.
    """
    ground = GROUND[context] + rng.uniform(-_SWAY, _SWAY)
    canvas = _Canvas(size * _SUPERSAMPLING, rng)
    _CONTEXTS[context](canvas, ground)
    return canvas.image.reduce(_SUPERSAMPLING)


class _Canvas:
    """A square picture painted in shares of its side, with hues that vary."""

    def __init__(self, side: int, rng: np.random.Generator) -> None:
        self.side = side
        self.rng = rng
        self.image = Image.new("RGB", (side, side))
        self.pen = ImageDraw.Draw(self.image)

    def vary(self, rgb: RGB, spread: float = 9) -> RGB:
        """A colour near the given one."""
        *tint, lightness = self.rng.uniform(-spread, spread, 4).tolist()
        red, green, blue = (value + shift + 0.6 * lightness for value, shift in zip(rgb, tint, strict=True))
        return _rgb(red, green, blue)

    def gradient(self, top: float, bottom: float, upper: RGB, lower: RGB) -> None:
        """Fill the full width from ``top`` to ``bottom`` with a vertical gradient."""
        y0, y1 = round(top * self.side), round(bottom * self.side)
        share = np.linspace(0, 1, max(y1 - y0, 1))[:, None]
        column = (1 - share) * np.asarray(upper) + share * np.asarray(lower)
        strip = Image.fromarray(np.rint(column).astype(np.uint8)[:, None, :])
        self.image.paste(strip.resize((self.side, strip.height), Image.Resampling.NEAREST), (0, y0))

    def box(self, x0: float, y0: float, x1: float, y1: float, rgb: RGB, radius: float = 0) -> None:
        """A filled rectangle."""
        s = self.side
        corners = (x0 * s, y0 * s, x1 * s, y1 * s)
        if radius:
            self.pen.rounded_rectangle(corners, radius * s, fill=rgb)
        else:
            self.pen.rectangle(corners, fill=rgb)

    def oval(self, cx: float, cy: float, rx: float, ry: float, rgb: RGB) -> None:
        """A filled ellipse."""
        s = self.side
        self.pen.ellipse(((cx - rx) * s, (cy - ry) * s, (cx + rx) * s, (cy + ry) * s), fill=rgb)

    def shape(self, corners: list[Corner], rgb: RGB) -> None:
        """A filled polygon."""
        self.pen.polygon([(x * self.side, y * self.side) for x, y in corners], fill=rgb)

    def line(self, corners: list[Corner], rgb: RGB, width: float = 0.006) -> None:
        """A line through the corners."""
        self.pen.line(
            [(x * self.side, y * self.side) for x, y in corners], fill=rgb, width=round(width * self.side)
        )

    def ridge(self, base: float, height: float, rgb: RGB, waves: float, phase: float | None = None) -> None:
        """Everything below a rolling line around ``base``; its phase (radians) is drawn when None."""
        phase = self.rng.uniform(0, 2 * np.pi) if phase is None else phase
        x = np.linspace(0, 1, 33)
        angle = 2 * np.pi * waves * x
        y = base + height * (0.65 * np.sin(angle + phase) + 0.35 * np.sin(2.3 * angle + 3 * phase))
        self.shape([*zip(x.tolist(), y.tolist(), strict=True), (1, 1), (0, 1)], rgb)

    def sky(self, horizon: float, upper: RGB, lower: RGB) -> None:
        """A pale sky with a few clouds."""
        upper, lower = self.vary(upper), self.vary(lower, 6)
        self.gradient(0, horizon + 0.1, upper, lower)
        for _ in range(self.rng.integers(2, 5)):
            x, y, r = (
                self.rng.uniform(0, 1),
                self.rng.uniform(0.05, 0.65) * horizon,
                self.rng.uniform(0.035, 0.06),
            )
            cloud = _mix(upper, (255, 255, 255), 0.6)
            for dx, dy, grow in ((-1.3, 0.3, 0.7), (0, 0, 1), (1.2, 0.25, 0.8)):
                self.oval(x + dx * r, y + dy * r, 1.25 * grow * r, grow * r, cloud)
            self.box(x - 2.1 * r, y + 0.2 * r, x + 2.1 * r, y + r, cloud, radius=0.4 * r)

    def specks(self, top: float, bottom: float, rgb: RGB, number: int, width: float, height: float) -> None:
        """Small marks on the ground, larger towards the bottom."""
        x, depth = self.rng.random(number), self.rng.random(number)
        for cx, share in zip(x.tolist(), depth.tolist(), strict=True):
            grow = 0.5 + 0.7 * share
            self.oval(cx, top + share * (bottom - top), grow * width, grow * height, rgb)


def _kitchen(c: _Canvas, ground: float) -> None:
    wall = c.vary(_pick(c, (204, 220, 216), (228, 216, 196), (210, 216, 232), (226, 210, 212)), 6)
    counter = c.vary(_pick(c, (200, 172, 144), (188, 182, 178), (208, 188, 162)), 8)
    rows = int(c.rng.integers(5, 8))
    high, wide = ground / rows, ground / rows * _pick(c, 1.0, 1.6)
    shift = c.rng.random()
    accent = c.vary(_mix(wall, (150, 170, 190), 0.3), 10)
    c.box(0, 0, 1, ground, _mix(wall, (255, 255, 255), 0.55))
    for row in range(rows):
        for column in range(-2, round(1 / wide) + 1):
            left, top = (column + shift + 0.5 * (row % 2)) * wide, row * high
            tile = accent if row == rows - 2 else wall
            tile = _mix(
                tile, (255, 255, 255) if c.rng.random() < 0.5 else (120, 120, 140), c.rng.uniform(0, 0.09)
            )
            c.box(left + 0.005, top + 0.005, left + wide - 0.005, top + high - 0.005, tile)
    if c.rng.random() < 0.6:
        _window(c, c.rng.uniform(0.1, 0.6), c.rng.uniform(0.03, 0.08), 0.3, 0.26)
    c.gradient(ground, 1, _mix(counter, (255, 255, 255), 0.2), _mix(counter, (90, 60, 50), 0.08))
    c.box(0, ground - 0.005, 1, ground + 0.014, _mix(counter, (255, 255, 255), 0.45))
    for share in np.linspace(0.16, 0.82, 4).tolist():
        seam = ground + share * (1 - ground)
        c.line([(0, seam), (1, seam)], _mix(counter, (80, 50, 40), 0.16), 0.004)
    for _ in range(16):
        x, y, long = c.rng.uniform(-0.1, 1), c.rng.uniform(ground + 0.04, 0.99), c.rng.uniform(0.06, 0.2)
        c.line([(x, y), (x + long, y)], _mix(counter, (90, 60, 50), c.rng.uniform(0.04, 0.12)), 0.005)


def _street(c: _Canvas, ground: float) -> None:
    c.sky(ground, (186, 208, 226), (224, 226, 226))
    houses = ((204, 184, 176), (188, 196, 206), (212, 202, 182), (192, 202, 192), (200, 188, 204))
    _skyline(
        c, ground, 0.12, (0.30, 0.5), [_mix(c.vary(house), (205, 214, 226), 0.65) for house in houses], False
    )
    _skyline(c, ground, 0.2, (0.14, 0.34), [c.vary(house) for house in houses], True)
    pavement, road = c.vary((200, 196, 192), 7), c.vary((150, 152, 164), 8)
    kerb = ground + 0.1
    c.gradient(ground, kerb, _mix(pavement, (120, 116, 120), 0.12), pavement)
    slabs = np.linspace(-0.3, 1.3, 13) + c.rng.uniform(-0.05, 0.05)
    for x in slabs.tolist():
        c.line([(x, ground), (0.5 + (x - 0.5) * 1.25, kerb)], _mix(pavement, (110, 106, 116), 0.22), 0.005)
    c.gradient(kerb, 1, road, _mix(road, (90, 90, 110), 0.18))
    c.box(0, kerb - 0.004, 1, kerb + 0.014, _mix(pavement, (255, 255, 255), 0.35))
    c.box(0, kerb + 0.014, 1, kerb + 0.026, _mix(road, (60, 60, 80), 0.3))
    middle, start = (kerb + 1) / 2 + 0.02, c.rng.uniform(-0.2, 0)
    for x in np.arange(start, 1, 0.26).tolist():
        dash = [(x + 0.02, middle), (x + 0.14, middle), (x + 0.12, middle + 0.022), (x, middle + 0.022)]
        c.shape(dash, _mix(road, (250, 246, 230), 0.6))


def _skyline(
    c: _Canvas, ground: float, width: float, height: Corner, colours: list[RGB], windows: bool
) -> None:
    """A row of houses; windows in even columns."""
    left = -c.rng.uniform(0, width)
    while left < 1:
        right = left + width * c.rng.uniform(0.75, 1.3)
        top = ground - c.rng.uniform(*height)
        colour = colours[c.rng.integers(len(colours))]
        c.box(left, top, right, ground, colour)
        if windows:
            c.box(left, top, right, top + 0.014, _mix(colour, (90, 84, 100), 0.25))
            pane = _mix(colour, (104, 124, 150), 0.4)
            columns = max(2, round((right - left) / 0.065))
            step = (right - left) / columns
            for y in np.arange(top + 0.04, ground - 0.04, 0.062).tolist():
                for column in range(columns):
                    x = left + (column + 0.5) * step
                    c.box(x - 0.014, y, x + 0.014, y + 0.034, pane)
        left = right


def _park(c: _Canvas, ground: float) -> None:
    c.sky(ground, (184, 214, 234), (226, 236, 234))
    grass = c.vary((184, 208, 156), 8)
    c.ridge(
        ground - c.rng.uniform(0.1, 0.16), 0.035, _mix(grass, (186, 212, 226), 0.6), c.rng.uniform(0.8, 1.6)
    )
    c.ridge(
        ground - c.rng.uniform(0.04, 0.08), 0.028, _mix(grass, (172, 206, 200), 0.45), c.rng.uniform(0.7, 1.3)
    )
    c.ridge(ground, 0.012, _mix(grass, (255, 255, 230), 0.12), 0.8)
    c.gradient(ground + 0.035, 1, _mix(grass, (255, 255, 230), 0.12), _mix(grass, (110, 150, 100), 0.14))
    if c.rng.random() < 0.7:
        _path(c, ground)
    for colour in (_mix(grass, (100, 140, 90), 0.28), _mix(grass, (255, 255, 220), 0.35)):
        for _ in range(22):
            x, y = c.rng.uniform(0, 1), c.rng.uniform(ground + 0.06, 0.98)
            tall = 0.01 + 0.02 * (y - ground)
            c.line([(x - 0.008, y - tall), (x, y), (x + 0.001, y - 1.3 * tall)], colour, 0.005)
            c.line([(x, y), (x + 0.009, y - 0.9 * tall)], colour, 0.005)


def _path(c: _Canvas, ground: float) -> None:
    """A path that winds towards the horizon."""
    share = np.linspace(0, 1, 25)
    start, end, bend = c.rng.uniform(0.1, 0.9), c.rng.uniform(0.3, 0.7), c.rng.uniform(-0.22, 0.22)
    centre = start + (end - start) * share + bend * np.sin(np.pi * share)
    y, half = 1 - (1 - ground - 0.03) * share**0.75, 0.15 * (1 - share) ** 1.3 + 0.008
    left = list(zip((centre - half).tolist(), y.tolist(), strict=True))
    right = list(zip((centre + half).tolist(), y.tolist(), strict=True))
    c.shape([*left, *right[::-1]], c.vary((222, 212, 186), 6))


def _beach(c: _Canvas, ground: float) -> None:
    horizon = WATER + (ground - GROUND["beach"])
    c.sky(horizon, (180, 214, 236), (232, 236, 230))
    sea, sand = c.vary((140, 190, 206), 8), c.vary((232, 216, 180), 6)
    if c.rng.random() < 0.5:
        side = c.rng.uniform(-0.1, 1.1)
        island = _mix(sea, (170, 180, 176), 0.6)
        c.oval(side, horizon, c.rng.uniform(0.18, 0.35), c.rng.uniform(0.03, 0.06), island)
    c.gradient(horizon, 1, _mix(sea, (96, 150, 180), 0.25), _mix(sea, (220, 240, 236), 0.3))
    for _ in range(14):
        x, y = c.rng.uniform(-0.05, 1), c.rng.uniform(horizon + 0.015, ground - 0.02)
        long = 0.03 + 0.35 * (y - horizon)
        c.line([(x, y), (x + long, y)], _mix(sea, (255, 255, 255), 0.4), 0.005)
    phase = c.rng.uniform(0, 2 * np.pi)
    for lift, colour in (
        (0.022, (244, 248, 246)),
        (0.008, _mix(sand, (150, 130, 110), 0.22)),
        (-0.016, sand),
    ):
        c.ridge(ground + 0.012 - lift, 0.01, colour, 1.1, phase)
    c.gradient(ground + 0.05, 1, sand, _mix(sand, (190, 160, 120), 0.2))
    c.specks(ground + 0.07, 0.99, _mix(sand, (150, 120, 90), 0.28), 45, 0.005, 0.003)
    c.specks(ground + 0.07, 0.99, _mix(sand, (255, 255, 250), 0.5), 30, 0.028, 0.004)


def _bedroom(c: _Canvas, ground: float) -> None:
    wall = c.vary(_pick(c, (216, 206, 224), (204, 216, 226), (228, 212, 206), (208, 220, 206)), 6)
    floor = c.vary(_pick(c, (196, 164, 134), (182, 158, 142), (206, 182, 150)), 7)
    c.gradient(0, ground, _mix(wall, (255, 255, 255), 0.15), wall)
    stripes = int(c.rng.integers(9, 15))
    offset = c.rng.random()
    for stripe in range(-1, stripes):
        x = (stripe + offset) / stripes
        c.box(x, 0, x + 0.45 / stripes, ground, _mix(wall, (255, 255, 255), 0.22))
    _window(c, c.rng.uniform(0.08, 0.58), c.rng.uniform(0.05, 0.1), 0.32, 0.3, curtains=True)
    c.gradient(ground, 1, _mix(floor, (255, 255, 255), 0.12), _mix(floor, (110, 80, 70), 0.1))
    seam = _mix(floor, (90, 60, 50), 0.2)
    for x in np.linspace(-0.9, 1.9, 20).tolist():
        c.line([(0.5 + (x - 0.5) * 0.7, ground), (0.5 + (x - 0.5) * 1.5, 1)], seam, 0.004)
    c.box(0, ground - 0.03, 1, ground + 0.006, _mix(wall, (255, 255, 255), 0.55))
    c.box(0, ground + 0.006, 1, ground + 0.012, _mix(floor, (80, 60, 60), 0.3))
    if c.rng.random() < 0.75:
        _rug(c, ground)


def _rug(c: _Canvas, ground: float) -> None:
    colour = c.vary(_pick(c, (206, 186, 190), (186, 196, 206), (200, 204, 184)), 6)
    top, bottom = ground + c.rng.uniform(0.08, 0.14), c.rng.uniform(0.9, 0.98)
    left, right = c.rng.uniform(0.05, 0.25), c.rng.uniform(0.75, 0.95)
    for inset, shade in ((0.0, 0.0), (0.022, 0.35), (0.034, 0.1)):
        x0, x1, y0, y1 = left + inset, right - inset, top + 0.6 * inset, bottom - 0.8 * inset
        lean = 0.22 * (y1 - y0)
        c.shape([(x0 + lean, y0), (x1 - lean, y0), (x1, y1), (x0, y1)], _mix(colour, (255, 255, 255), shade))


def _window(c: _Canvas, left: float, top: float, width: float, height: float, curtains: bool = False) -> None:
    """A window with four panes, perhaps with curtains."""
    frame, sky = (240, 236, 230), c.vary((192, 216, 232), 8)
    right, bottom = left + width, top + height
    shadow = _mix(frame, (130, 120, 130), 0.2)
    c.box(left - 0.018, top - 0.018, right + 0.018, bottom + 0.018, shadow)
    c.box(left - 0.013, top - 0.013, right + 0.013, bottom + 0.013, frame)
    c.box(left, top, right, bottom, sky)
    hills = [
        (left, top + 0.8 * height),
        (left + 0.5 * width, top + 0.68 * height),
        (right, top + 0.78 * height),
    ]
    c.shape([*hills, (right, bottom), (left, bottom)], _mix(sky, (176, 200, 168), 0.7))
    for start, end in ((0.12, 0.24), (0.3, 0.35)):
        x0, x1, lean, low = left + start * width, left + end * width, 0.2 * width, top + 0.6 * height
        gleam = [(x0 + lean, top), (x1 + lean, top), (x1, low), (x0, low)]
        c.shape(gleam, _mix(sky, (255, 255, 255), 0.45))
    middle, bar = left + width / 2, top + 0.45 * height
    c.box(middle - 0.006, top, middle + 0.006, bottom, frame)
    c.box(left, bar - 0.006, right, bar + 0.006, frame)
    c.box(left - 0.03, bottom + 0.012, right + 0.03, bottom + 0.03, _mix(frame, (150, 140, 140), 0.12))
    if curtains:
        _curtains(c, left, top, right, bottom)


def _curtains(c: _Canvas, left: float, top: float, right: float, bottom: float) -> None:
    """Two curtains, gathered below the middle, on a rod."""
    cloth = c.vary(_pick(c, (214, 190, 186), (190, 200, 214), (206, 208, 184), (208, 196, 214)), 6)
    fold, hem = _mix(cloth, (110, 100, 120), 0.16), bottom + 0.03
    for edge, inward in ((left - 0.05, 1), (right + 0.05, -1)):
        upper, waist, lower = edge + inward * 0.12, edge + inward * 0.06, edge + inward * 0.1
        outer = [(edge, top - 0.02), (upper, top - 0.02)]
        c.shape([*outer, (waist, hem - 0.1), (lower, hem), (edge, hem)], cloth)
        for share in (0.25, 0.55):
            x = edge + inward * 0.09 * share
            c.line([(x + inward * 0.01, top), (x, hem - 0.1), (x, hem - 0.005)], fold, 0.006)
    c.box(left - 0.08, top - 0.036, right + 0.08, top - 0.02, _mix(cloth, (110, 90, 80), 0.4), 0.008)


def _pick(c: _Canvas, *choices: _T) -> _T:
    return choices[c.rng.integers(len(choices))]


def _mix(a: RGB, b: RGB, share: float) -> RGB:
    """The colour ``share`` of the way from ``a`` to ``b``."""
    red, green, blue = ((1 - share) * x + share * y for x, y in zip(a, b, strict=True))
    return _rgb(red, green, blue)


def _rgb(red: float, green: float, blue: float) -> RGB:
    return min(max(round(red), 0), 255), min(max(round(green), 0), 255), min(max(round(blue), 0), 255)


_CONTEXTS: dict[str, Callable[[_Canvas, float], None]] = {
    "kitchen": _kitchen,
    "street": _street,
    "park": _park,
    "beach": _beach,
    "bedroom": _bedroom,
}
