"""Food."""

from __future__ import annotations

from unimodal.world.drawings.canvas import BARK, LEAF, WHITE, Canvas


def apple(canvas: Canvas) -> None:
    canvas.curve([(50, 30), (49, 16), (43, 6)], 6, BARK)
    canvas.blob([(52, 21), (62, 8), (84, 6), (72, 22)], LEAF)
    outline = [(50, 30), (66, 23), (88, 32), (95, 56), (82, 86), (64, 97), (50, 92)]
    canvas.blob([*outline, *[(100 - x, y) for x, y in outline[-2:0:-1]]], canvas.color)
    canvas.blob([(20, 46), (30, 36), (33, 42), (24, 58)], WHITE)


FOOD = {"apple": apple}
