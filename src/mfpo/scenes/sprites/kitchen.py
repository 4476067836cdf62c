"""Mug, plate, bottle, apple, pot and knife."""

from __future__ import annotations

from mfpo.scenes.sprites.palette import LEAF, STEEL, WOOD
from mfpo.scenes.sprites.sketch import Points, Sketch, box, oval, poly, ribbon, spline, turn


def mug(s: Sketch) -> None:
    """A coffee mug, seen slightly from above, its handle to the right."""
    s.stand(42, 93, 32)
    s.paint(ribbon(spline((68, 38), (88, 36), (94, 52), (84, 70), (64, 74), closed=False), 9), volume=0.6)
    s.paint(poly((10, 20), (74, 20), (69, 86), (58, 93), (26, 93), (15, 86), radius=8), oval(42, 20, 32, 9))
    s.gloss(poly((18, 36), (26, 38), (28, 80), (22, 78), radius=4), opacity=0.45)
    s.paint(oval(42, 20, 32, 9), tone="light", volume=0, outline=0.5)
    s.paint(oval(42, 21, 26.5, 6.5), tone="dark", volume=0, outline=0)
    s.mark(oval(42, 24.5, 24, 5.5), rgb=WOOD.dark)


def plate(s: Sketch) -> None:
    """A plate on a table."""
    s.stand(50, 71, 34)
    s.paint(oval(50, 49, 49, 22.5), tone="dark", volume=0)
    s.paint(oval(50, 45, 49, 22.5), volume=0.7)
    s.mark(oval(50, 44.5, 43, 19), rgb=s.colour.trim)
    s.mark(oval(50, 44.5, 40.5, 17.6), rgb=s.colour.base)
    s.paint(oval(50, 46, 31, 12.2), volume=0.8, outline=0.45)
    s.gloss(oval(36, 42, 9, 2.6), opacity=0.55)


def bottle(s: Sketch) -> None:
    """A glass bottle with a label."""
    s.stand(50, 97, 24)
    s.paint(poly((42, 8), (58, 8), (58, 30), (73, 46), (73, 98), (27, 98), (27, 46), (42, 30), radius=9))
    s.mark(box(20, 56, 80, 80), rgb=s.colour.trim)
    s.mark(box(20, 59, 80, 61), box(20, 75, 80, 77), rgb=s.colour.dark)
    s.mark(oval(50, 68, 5.5), rgb=s.colour.base)
    s.gloss(poly((33, 46), (38, 42), (38, 92), (33, 92), radius=3), opacity=0.5)
    s.gloss(box(44.5, 14, 48, 32, radius=2), opacity=0.5)
    s.paint(box(40, 2, 60, 12, radius=3), tones=STEEL, volume=0.8)


def apple(s: Sketch) -> None:
    """An apple with a leaf."""
    s.stand(50, 95, 28)
    s.paint(
        spline(
            (50, 27), (66, 19), (85, 26), (93, 48), (84, 76), (66, 95), (50, 92),
            (34, 95), (16, 76), (7, 48), (15, 26), (34, 19),
        )
    )  # fmt: skip
    s.mark(oval(50, 25, 13, 5), rgb=s.colour.dark)
    s.gloss(turn(oval(27, 42, 5.5, 11), 20, (27, 42)), opacity=0.6)
    s.paint(ribbon(spline((50, 28), (50, 18), (55, 7), closed=False), 5), tones=WOOD, volume=0.5, outline=0.8)
    s.paint(spline((54, 17), (62, 6), (76, 3), (84, 6), (76, 16), (64, 20)), tones=LEAF, outline=0.8)
    s.mark(ribbon([(55, 16), (80, 7)], 1.6), rgb=LEAF.dark)


def pot(s: Sketch) -> None:
    """A cooking pot with a lid and two handles."""
    s.stand(50, 92, 34)
    for x0, x1 in ((0, 18), (82, 100)):
        s.paint(box(x0, 50, x1, 63, radius=5), tone="dark", volume=0.6)
        s.mark(box(x0 + 5, 54.5, x1 - 5, 58.5, radius=2), rgb=s.colour.outline)
    s.paint(poly((11, 44), (89, 44), (87, 82), (76, 92), (24, 92), (13, 82), radius=10))
    s.gloss(box(20, 54, 27, 80, radius=3), opacity=0.45)
    s.paint(oval(50, 42, 40, 22, 180, 360), tone="base")
    s.gloss(turn(oval(32, 30, 9, 2.6), -24, (32, 30)), opacity=0.5)
    s.paint(box(8, 40, 92, 48, radius=4), tone="light", volume=0.5)
    s.paint(oval(50, 17, 9, 6.5), tone="dark")


def knife(s: Sketch) -> None:
    """A kitchen knife, its point to the upper right."""

    def tilt(outline: Points) -> Points:
        return turn(outline, -35)

    s.paint(
        tilt(spline((36, 38), (60, 37), (90, 39), (106, 46), (92, 59), (70, 64), (42, 64), (36, 62))),
        volume=0.5,
    )
    s.mark(
        tilt(spline((36, 58), (70, 58), (92, 53), (108, 44), (106, 60), (70, 70), (36, 70))),
        rgb=s.colour.light,
    )
    s.gloss(tilt(ribbon([(44, 43), (88, 43.5)], 2.4)), opacity=0.55)
    s.paint(tilt(poly((-6, 38), (36, 38), (36, 53), (-4, 56), radius=6)), tone="dark", volume=0.8)
    for x in (4, 16, 28):
        s.mark(tilt(oval(x, 46, 2.3)), rgb=STEEL.light)
    s.paint(tilt(box(33, 36.5, 40, 64, radius=2)), tones=STEEL, volume=0.8)
