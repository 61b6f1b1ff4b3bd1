"""Food."""

from __future__ import annotations

from unimodal.world.drawings.canvas import BARK, CREAM, FIRE, LEAF, STEEL, WHITE, Canvas


def apple(canvas: Canvas) -> None:
    canvas.curve([(50, 30), (49, 16), (43, 6)], 6, BARK)
    canvas.blob([(52, 21), (62, 8), (84, 6), (72, 22)], LEAF)
    outline = [(50, 30), (66, 23), (88, 32), (95, 56), (82, 86), (64, 97), (50, 92)]
    canvas.blob([*outline, *[(100 - x, y) for x, y in outline[-2:0:-1]]], canvas.color)
    canvas.blob([(20, 46), (30, 36), (33, 42), (24, 58)], WHITE)


def pear(canvas: Canvas) -> None:
    canvas.curve([(50, 20), (51, 11), (55, 6)], 5.5, BARK)
    canvas.blob([(54, 15), (66, 4), (86, 6), (74, 18)], LEAF)
    outline = [(50, 14), (62, 20), (67, 40), (84, 62), (84, 84), (68, 96), (50, 97)]
    canvas.blob([*outline, *[(100 - x, y) for x, y in outline[-2:0:-1]]], canvas.color)
    canvas.blob([(25, 68), (33, 56), (37, 60), (32, 74), (28, 80)], WHITE)


def cake(canvas: Canvas) -> None:
    for x in (30, 50, 70):
        canvas.rectangle(x - 3, 14, x + 3, 36, WHITE)
        canvas.blob([(x, 2), (x + 4, 9), (x, 14), (x - 4, 9)], FIRE)
    canvas.rectangle(16, 32, 84, 64, canvas.color, radius=6)
    canvas.rectangle(4, 58, 96, 92, canvas.color, radius=6)
    canvas.rectangle(1, 90, 99, 97, STEEL, radius=3)
    for left, right, y in ((16, 84, 32), (4, 96, 58)):
        canvas.rectangle(left, y, right, y + 7, CREAM, radius=3)
        drops = round((right - left) / 11.4)
        for i in range(drops):
            x = left + (right - left) * (i + 0.5) / drops
            canvas.ellipse(x, y + 7, 4.6, 5 + 3 * (i % 2), CREAM)
    for x in (14, 32, 50, 68, 86):
        canvas.circle(x, 82, 3.4, canvas.tint)


FOOD = {"apple": apple, "pear": pear, "cake": cake}
