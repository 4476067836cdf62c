"""Dog and cat."""

from __future__ import annotations

from mfpo.scenes.sprites.palette import GOLD, RUBBER
from mfpo.scenes.sprites.sketch import Sketch, box, mirror, oval, poly, ribbon, spline, turn


def dog(s: Sketch) -> None:
    """A standing dog, looking to the right, its tail up."""
    s.stand(46, 95, 38)
    s.paint(box(26, 62, 36, 92, radius=4), box(57, 62, 67, 92, radius=4), tone="dark", volume=0.5)
    s.paint(
        ribbon(spline((18, 50), (6, 40), (4, 22), closed=False), 9, 5),
        spline(
            (12, 52), (26, 42), (48, 44), (62, 38), (76, 44), (78, 58), (68, 70), (44, 68), (26, 71), (13, 66)
        ),
        poly((12, 56), (30, 60), (26, 95), (13, 95), radius=5),
        poly((62, 58), (77, 54), (76, 95), (64, 95), radius=5),
        spline((60, 24), (72, 12), (86, 14), (92, 25), (102, 31), (100, 42), (86, 45), (78, 52), (60, 48)),
        volume=0.7,
    )
    s.mark(oval(44, 71, 20, 5), rgb=s.colour.light, opacity=0.6)
    s.paint(oval(100, 30, 4.5, 4), tones=RUBBER, outline=0.5)
    s.paint(
        spline((70, 13), (61, 17), (55, 34), (59, 45), (68, 42), (75, 26)),
        tone="dark",
        volume=0.6,
        outline=0.8,
    )
    _eye(s, 83, 25, 3.4)
    s.paint(ribbon([(61, 50), (79, 54)], 5), tones=GOLD, volume=0.5, outline=0.6)


def cat(s: Sketch) -> None:
    """A sitting cat, facing us."""
    s.stand(52, 97, 34)
    tail = spline((66, 90), (84, 90), (93, 78), (88, 64), (92, 54), closed=False)
    s.paint(ribbon(tail, 11, 8), volume=0.4)
    s.paint(
        spline((50, 44), (64, 50), (74, 72), (76, 90), (66, 97), (34, 97), (24, 90), (26, 72), (36, 50)),
        volume=0.8,
    )
    s.mark(spline((50, 54), (59, 62), (60, 78), (50, 84), (40, 78), (41, 62)), rgb=s.colour.light)
    for x in (43, 57):
        s.paint(box(x - 6.5, 74, x + 6.5, 98, radius=6), volume=0.5, outline=0.5)
    ear = poly((21, 32), (23, -1), (47, 13), radius=4)
    s.paint(
        ear,
        mirror(ear),
        spline((50, 8), (68, 11), (78, 28), (70, 46), (50, 51), (30, 46), (22, 28), (32, 11)),
    )
    inner = poly((26.5, 20), (27, 6), (37, 12), radius=2)
    s.mark(inner, mirror(inner), rgb=s.colour.dark)
    _eye(s, 38.5, 29, 5.2)
    _eye(s, 61.5, 29, 5.2)
    s.paint(poly((46, 36), (54, 36), (50, 41), radius=1.5), tones=RUBBER, volume=0, outline=0)
    whiskers = [turn(ribbon([(15, 40), (31, 38.5)], 1.3), d, (31, 38.5)) for d in (-4, 12)]
    s.paint(*whiskers, *map(mirror, whiskers), tones=RUBBER, tone="light", volume=0, outline=0)


def _eye(s: Sketch, x: float, y: float, radius: float) -> None:
    """A bright eye, so that it shows on every colour."""
    s.paint(oval(x, y, radius), tones=GOLD, tone="light", volume=0, outline=0.35)
    s.mark(oval(x + 0.1 * radius, y, 0.62 * radius, 0.78 * radius), rgb=RUBBER.dark)
    s.gloss(oval(x + 0.3 * radius, y - 0.35 * radius, 0.25 * radius), opacity=1)
