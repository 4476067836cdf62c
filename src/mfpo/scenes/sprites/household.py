"""Chair, lamp, clock and book."""

from __future__ import annotations

from mfpo.scenes.sprites.palette import CREAM, GOLD, RUBBER
from mfpo.scenes.sprites.sketch import Points, Sketch, box, oval, poly, ribbon, spline, turn


def chair(s: Sketch) -> None:
    """A wooden chair at an angle, its back to the left."""
    s.stand(50, 95, 38)
    s.paint(ribbon([(42, 48), (43, 84)], 7), tone="dark", volume=0.5)
    s.paint(ribbon([(84, 52), (87, 87)], 7), tone="dark", volume=0.5)
    for y in (24, 37):
        s.paint(ribbon([(16, y + 4), (40, y - 3)], 7), tone="dark", volume=0.4)
    s.paint(ribbon([(38, 4), (42, 52)], 8), volume=0.5)
    s.paint(poly((11, 6), (42, -1), (43, 13), (12, 21), radius=5), volume=0.8)
    s.paint(ribbon([(15, 10), (18, 60), (15, 96)], 8), volume=0.5)
    s.paint(ribbon([(66, 62), (68, 97)], 8), volume=0.5)
    s.paint(poly((13, 57), (40, 46), (90, 51), (90, 57), (68, 69), (13, 64), radius=5), tone="dark", volume=0)
    s.paint(poly((13, 56), (40, 45), (90, 50), (68, 62), radius=5), tone="base", volume=0.8, outline=0.3)


def lamp(s: Sketch) -> None:
    """A table lamp with a wide shade."""
    s.stand(50, 97, 24)
    s.paint(box(46, 44, 54, 60), tones=GOLD, volume=0.8)
    s.paint(spline((44, 57), (56, 57), (66, 68), (68, 78), (58, 92), (42, 92), (32, 78), (34, 68)))
    s.gloss(turn(oval(41, 73, 3, 8), 12, (41, 73)), opacity=0.5)
    s.paint(box(33, 90, 67, 97, radius=3), tone="dark", volume=0.6)
    s.paint(poly((32, 3), (68, 3), (90, 50), (10, 50), radius=5))
    s.mark(poly((43, 0), (57, 0), (66, 55), (34, 55)), rgb=s.colour.light, opacity=0.55)
    s.mark(poly((5, 44), (95, 44), (95, 55), (5, 55)), rgb=s.colour.dark, opacity=0.75)
    s.mark(poly((5, 3), (95, 3), (95, 8), (5, 8)), rgb=s.colour.dark, opacity=0.6)


def clock(s: Sketch) -> None:
    """An alarm clock: two bells on top, ten past ten."""
    s.stand(50, 98, 30)
    for x, side in ((24, -1), (76, 1)):
        s.paint(ribbon([(50 + 22 * side, 84), (50 + 30 * side, 96)], 8), tone="dark", volume=0.6)
        s.paint(turn(oval(x, 22, 16, 14, 180, 360), 34 * side, (x, 22)), volume=0.9)
    s.paint(ribbon([(50, 18), (50, 8)], 5), tones=RUBBER, volume=0.4)
    s.paint(box(43, 2, 57, 9, radius=3), tones=RUBBER, volume=0.6)
    s.paint(oval(50, 56, 39))
    s.paint(oval(50, 56, 26.5), tones=CREAM, volume=0, outline=0.6)
    for hour in range(12):
        long = hour % 3 == 0
        tick = ribbon([(50, 32.5), (50, 37 if long else 35)], 2.4 if long else 1.6)
        s.mark(turn(tick, 30 * hour, (50, 56)), rgb=RUBBER.base)
    s.mark(turn(ribbon([(50, 57), (50, 43)], 4), -55, (50, 56)), rgb=RUBBER.dark)
    s.mark(turn(ribbon([(50, 57), (50, 37)], 3.2), 55, (50, 56)), rgb=RUBBER.dark)
    s.mark(oval(50, 56, 3.4), rgb=s.colour.dark)


def book(s: Sketch) -> None:
    """A closed book, its pages below the front cover."""
    s.stand(48, 97, 32)

    def tilt(outline: Points) -> Points:
        return turn(outline, 9)

    s.paint(tilt(box(16, 20, 86, 97, radius=6)), tone="dark", volume=0)
    s.paint(tilt(poly((20, 70), (84, 70), (84, 92), (24, 92), radius=3)), tones=CREAM, volume=0, outline=0)
    s.paint(tilt(box(74, 12, 84, 92, radius=2)), tones=CREAM, volume=0, outline=0)
    for y in (84.5, 88.5):
        s.mark(tilt(box(20, y, 90, y + 1.2)), rgb=CREAM.dark)
    s.paint(tilt(box(14, 3, 80, 82, radius=6)), volume=0.6)
    s.mark(tilt(box(14, 3, 25, 82)), rgb=s.colour.dark)
    s.mark(tilt(box(36, 18, 70, 42, radius=3)), rgb=s.colour.trim)
    s.mark(tilt(box(41, 24, 65, 27, radius=1)), tilt(box(45, 32, 61, 35, radius=1)), rgb=s.colour.dark)
    s.paint(
        tilt(poly((60, 80), (69, 80), (69, 101), (64.5, 97), (60, 101))), tones=GOLD, volume=0, outline=0.6
    )
