"""Sign, tree, bench, kite, flower, ball, umbrella and bucket."""

from __future__ import annotations

import numpy as np

from mfpo.scenes.sprites.palette import COLOURS, GOLD, LEAF, RUBBER, STEEL, WOOD
from mfpo.scenes.sprites.sketch import Points, Sketch, box, mirror, oval, poly, ribbon, spline, turn


def sign(s: Sketch) -> None:
    """An octagonal road sign on a pole."""

    def octagon(radius: float) -> Points:
        corners = turn(oval(50, 36, radius)[:-1:8], 22.5, (50, 36))
        return poly(*[(x, y) for x, y in corners], radius=3)

    s.stand(50, 99, 13)
    s.paint(box(46, 60, 54, 99, radius=1), tones=STEEL)
    s.paint(octagon(37), volume=0.4)
    s.mark(octagon(33.5), rgb=s.colour.trim)
    s.mark(octagon(30), rgb=s.colour.base)
    s.mark(box(32, 30, 68, 42, radius=2), rgb=s.colour.trim)


def tree(s: Sketch) -> None:
    """A fir tree of three tiers."""
    s.stand(50, 97, 22)
    s.paint(box(43, 78, 57, 97, radius=3), tones=WOOD)
    for top, bottom, half in ((36, 84, 39), (18, 61, 31), (0, 38, 23)):
        edge = spline(
            (50 + half, bottom - 4), (50 + half * 0.55, bottom + 1), (50, bottom + 3),
            (50 - half * 0.55, bottom + 1), (50 - half, bottom - 4), closed=False,
        )  # fmt: skip
        right = spline(
            (50, top), (50 + half * 0.42, top + (bottom - top) * 0.55), (50 + half, bottom - 4), closed=False
        )
        s.paint(np.concatenate([right, edge, mirror(right)[::-1]]))
        s.gloss(
            oval(50 - half * 0.36, bottom - 13, 2.2), oval(50 - half * 0.05, bottom - 8, 1.6), opacity=0.45
        )


def bench(s: Sketch) -> None:
    """A park bench with iron legs."""
    s.stand(50, 92, 44)
    parts = (
        ribbon([(17, 12), (17, 90)], 5),
        ribbon([(9, 62), (7, 92)], 6),
        ribbon(spline((17, 42), (8, 40), (4, 45), (8, 62), closed=False), 5),
    )
    for part in parts:
        s.paint(part, tones=RUBBER, volume=0.4, outline=0.8)
        s.paint(mirror(part), tones=RUBBER, volume=0.4, outline=0.8)
    for y in (12, 29):
        s.paint(box(3, y, 97, y + 12, radius=3), volume=0.8)
    s.paint(poly((9, 51), (91, 51), (98, 60), (2, 60), radius=1), tone="light", volume=0)
    s.paint(box(1, 60, 99, 70, radius=3), volume=0.8)


def kite(s: Sketch) -> None:
    """A flying kite with a tail of bows."""
    top, right, bottom, left, middle = (68, 0), (94, 37), (44, 70), (32, 17), (61, 28)
    tail = spline(bottom, (46, 82), (37, 90), (24, 87), (12, 96), closed=False)
    s.paint(ribbon(tail, 1.8), tones=STEEL, tone="dark", volume=0, outline=0.4)
    for x, y, degrees in ((43, 87, -40), (19, 90, 25)):
        bow = [turn(poly((x, y), (x + d, y - 6), (x + d, y + 6), radius=1), degrees, (x, y)) for d in (-9, 9)]
        s.paint(*bow, volume=0.3, outline=0.7)
    s.paint(poly(top, right, bottom, left, radius=2), volume=0)
    s.mark(poly(top, left, middle), poly(right, bottom, middle), rgb=s.colour.light)
    s.mark(poly(bottom, left, middle), rgb=s.colour.dark, opacity=0.35)
    s.mark(ribbon([top, bottom], 1.8), ribbon([left, right], 1.8), rgb=s.colour.outline)


def flower(s: Sketch) -> None:
    """A flower with six petals, a stem and two leaves."""
    s.stand(50, 99, 13)
    stem = spline((50, 40), (48, 70), (51, 98), closed=False)
    s.paint(ribbon(stem, 5), tones=LEAF, volume=0.4, outline=0.8)
    leaf = spline((51, 88), (58, 74), (72, 68), (80, 70), (74, 82), (62, 90))
    s.paint(leaf, tones=LEAF, volume=0.8, outline=0.8)
    s.paint(turn(mirror(leaf), 8, (50, 88)), tones=LEAF, volume=0.8, outline=0.8)
    for degrees in range(0, 360, 60):
        s.paint(turn(oval(50, 15, 14.5, 16), degrees, (50, 35)), outline=0.8)
    s.paint(oval(50, 35, 11), tones=WOOD if s.colour is COLOURS["yellow"] else GOLD, outline=0.7)


def ball(s: Sketch) -> None:
    """A beach ball."""
    s.stand(50, 97, 28)
    s.paint(oval(50, 50, 47), volume=0)
    pole = (36.0, 30.0)
    rim = turn(oval(50, 50, 50), 20)

    def meridian(index: int) -> Points:
        (x0, y0), (x1, y1) = pole, rim[index]
        bend = ((x0 + x1) / 2 + 0.12 * (y1 - y0), (y0 + y1) / 2 - 0.12 * (x1 - x0))
        return spline(pole, bend, (x1, y1), closed=False)

    for start in (0, 21, 42):
        wedge = [meridian(start), rim[start : start + 9], meridian(start + 8)[::-1]]
        s.mark(np.concatenate(wedge), rgb=s.colour.trim)
    s.shade(volume=1.2, strength=0.4)
    s.mark(oval(*pole, 6, 5), rgb=s.colour.dark)
    s.gloss(turn(oval(26, 24, 9, 5), -40, (26, 24)), opacity=0.6)


def umbrella(s: Sketch) -> None:
    """An open umbrella with a crook."""
    s.stand(55, 98, 14)
    stick = np.concatenate([poly((50, 2), (50, 30), (50, 60), (50, 84)), oval(58, 87, 8, 8, 180, 10)])
    s.paint(ribbon(stick, 4.5), tones=WOOD, volume=0.4)
    hem = [oval(x, 52, 12, 7, 0, -180) for x in (86, 62, 38, 14)]
    s.paint(np.concatenate([oval(50, 52, 48, 44, 180, 360), *hem]), volume=0.9)
    for side in (-1, 1):
        rib = spline((50, 8), (50 + 17 * side, 22), (50 + 24 * side, 47), closed=False)
        s.mark(ribbon(rib, 1.6), rgb=s.colour.outline, opacity=0.8)
    s.mark(ribbon([(50, 8), (50, 46)], 1.6), rgb=s.colour.outline, opacity=0.8)
    s.gloss(turn(oval(22, 30, 4, 8), 40, (22, 30)), opacity=0.4)


def bucket(s: Sketch) -> None:
    """A pail with its handle up and a star on it."""
    s.stand(50, 97, 27)
    s.paint(ribbon(oval(50, 42, 38, 38, 180, 360), 4), tones=STEEL, volume=0.3, outline=0.8)
    s.paint(box(40, 0, 60, 8, radius=3), tone="dark", volume=0.5)
    s.paint(poly((14, 42), (86, 42), (74, 97), (26, 97), radius=7))
    radii = np.where(np.arange(10) % 2 == 0, 14, 6)[:, None]
    spikes = turn(oval(0, 0, 1)[[round(6.4 * i) for i in range(10)]], -90, (0, 0)) * radii + (50, 71)
    s.mark(poly(*[(x, y) for x, y in spikes], radius=1.5), rgb=s.colour.trim)
    s.gloss(poly((24, 54), (29, 54), (34, 90), (30, 90), radius=2), opacity=0.4)
    s.paint(box(8, 36, 92, 47, radius=5), tone="light", volume=0.6)
