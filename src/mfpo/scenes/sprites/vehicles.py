"""Car, bus, bicycle and boat."""

from __future__ import annotations

import numpy as np

from mfpo.scenes.sprites.palette import CREAM, GLASS, GOLD, RUBBER, STEEL, WOOD
from mfpo.scenes.sprites.sketch import Points, Sketch, box, oval, poly, ribbon, ring, spline


def car(s: Sketch) -> None:
    """A small car, driving to the right."""
    s.stand(50, 86, 46)
    s.paint(
        spline(
            (2, 66), (5, 54), (18, 50), (28, 36), (38, 27), (56, 25), (70, 29), (82, 47),
            (95, 53), (99, 66), (96, 76), (50, 78), (4, 76),
        )
    )  # fmt: skip
    s.mark(box(0, 68, 100, 71), rgb=s.colour.dark)
    s.mark(oval(24, 76, 14), oval(76, 76, 14), rgb=s.colour.outline)
    s.mark(ribbon([(51, 48), (51, 68)], 1.4), box(56, 54, 63, 56.5, radius=1), rgb=s.colour.outline)
    s.mark(oval(95, 58, 5, 4), rgb=GOLD.light)
    s.mark(oval(4, 60, 4, 4), rgb=(236, 84, 70))
    rear = poly((28, 48), (38, 33), (48, 32), (48, 48), radius=3)
    front = poly((54, 48), (54, 32), (66, 34), (75, 48), radius=3)
    for window in (rear, front):
        s.paint(window, tones=GLASS, volume=0.6, outline=0.5)
        s.gloss(
            poly((40, 30), (46, 30), (36, 50), (30, 50)),
            poly((64, 30), (68, 30), (60, 50), (56, 50)),
            opacity=0.6,
        )
    _wheels(s, (24, 76), 10.5)
    _wheels(s, (76, 76), 10.5)


def bus(s: Sketch) -> None:
    """A city bus, driving to the right."""
    s.stand(50, 90, 46)
    s.paint(box(2, 12, 98, 80, radius=10), volume=0.7)
    s.mark(box(0, 55, 100, 60), rgb=s.colour.trim)
    s.mark(box(0, 70, 100, 73), rgb=s.colour.dark)
    s.mark(oval(25, 80, 13), oval(80, 80, 13), rgb=s.colour.outline)
    s.mark(oval(97, 67, 4, 4), rgb=GOLD.light)
    for x in (9, 26, 43):
        s.paint(box(x, 24, x + 12, 44, radius=3), tones=GLASS, volume=0.6, outline=0.5)
        s.gloss(poly((x + 7, 22), (x + 11, 22), (x + 4, 48), (x, 48)), opacity=0.6)
    s.paint(box(59, 20, 73, 74, radius=3), tone="dark", volume=0.3, outline=0.5)
    for left in (61.5, 67.5):
        s.paint(box(left, 25, left + 3.5, 50, radius=1), tones=GLASS, volume=0.3, outline=0.3)
    s.paint(poly((78, 22), (94, 22), (95, 50), (78, 50), radius=3), tones=GLASS, volume=0.5, outline=0.5)
    _wheels(s, (25, 80), 10)
    _wheels(s, (80, 80), 10)


def _wheels(s: Sketch, centre: tuple[float, float], radius: float) -> None:
    s.paint(oval(*centre, radius), tones=RUBBER, volume=0.6)
    s.paint(oval(*centre, 0.48 * radius), tones=STEEL, volume=0.8, outline=0.3)


def bicycle(s: Sketch) -> None:
    """A bicycle; its tyres have the colour of the frame."""
    s.stand(50, 90, 42)
    for x in (23, 77):
        rim = oval(x, 66, 19)
        spokes = [ribbon(rim[[i, i + 32]], 1) for i in range(4, 36, 8)]
        s.paint(*spokes, tones=STEEL, tone="dark", volume=0, outline=0)
        s.paint(ring(x, 66, 20, 6), volume=0, outline=0.7)
    crank, saddle, head, front, rear = (45, 66), (38, 36), (68, 38), (77, 66), (23, 66)
    tubes = ((crank, saddle), (saddle, head), (crank, head), ((65, 26), front), (crank, rear), (saddle, rear))
    s.paint(*(ribbon(tube, 5.5) for tube in tubes), volume=0, outline=0.7)
    seat = ribbon([(29, 31), (46, 32)], 5.5, 3.5), ribbon([(37, 36), (37, 31)], 3)
    s.paint(*seat, tones=RUBBER, volume=0.4, outline=0.7)
    bar = spline((56, 22), (66, 22), (75, 26), (74, 32), closed=False)
    s.paint(ribbon(bar, 4), tones=RUBBER, volume=0.3, outline=0.7)
    for x, y, radius in ((*crank, 5), (*front, 3), (*rear, 3)):
        s.paint(oval(x, y, radius), tones=STEEL, outline=0.6)


def boat(s: Sketch) -> None:
    """A sailing boat on the water."""
    s.paint(ribbon([(47, 4), (47, 72)], 4), tones=WOOD, volume=0.5, outline=0.8)
    s.paint(_sail((52, 6), (52, 62), (92, 62), 6), tones=CREAM, volume=0.8)
    s.mark(poly((50, 38), (100, 38), (100, 49), (50, 49)), rgb=s.colour.base)
    s.paint(_sail((42, 14), (42, 62), (10, 62), -4), tone="base", volume=0.8)
    s.paint(poly((2, 68), (98, 68), (84, 93), (18, 93), radius=9))
    s.mark(poly((0, 73), (100, 73), (100, 77), (0, 77)), rgb=s.colour.trim)
    s.paint(poly((47, 3), (47, -6), (62, -1)), volume=0.4, outline=0.7)


def _sail(
    head: tuple[float, float], tack: tuple[float, float], clew: tuple[float, float], belly: float
) -> Points:
    """A triangle whose free edge is filled by the wind."""
    middle = ((head[0] + clew[0]) / 2 + 1.6 * belly, (head[1] + clew[1]) / 2 - abs(belly))
    return np.concatenate([spline(head, middle, clew, closed=False), poly(clew, tack, head)])
