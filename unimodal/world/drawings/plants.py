"""Plants."""

from __future__ import annotations

import math

from unimodal.world.drawings.canvas import BARK, CLAY, CREAM, INK, LEAF, WHITE, Canvas


def tree(canvas: Canvas) -> None:
    canvas.polygon([(42, 55), (58, 55), (64, 97), (36, 97)], BARK)
    for x, y, radius in ((26, 48, 23), (74, 48, 23), (34, 26, 22), (66, 26, 22), (50, 52, 25), (50, 30, 27)):
        canvas.circle(x, y, radius, canvas.color)
    for x, y in ((30, 48), (64, 22), (71, 53), (44, 32), (51, 62)):
        canvas.circle(x, y, 4.5, canvas.tint)


def flower(canvas: Canvas) -> None:
    canvas.rectangle(46.5, 60, 53.5, 97, LEAF)
    canvas.blob([(49, 94), (32, 92), (18, 78), (36, 78)], LEAF)
    canvas.blob([(51, 94), (68, 92), (82, 78), (64, 78)], LEAF)
    for petal in range(6):
        angle = math.radians(60 * petal - 90)
        canvas.circle(50 + 24 * math.cos(angle), 42 + 23 * math.sin(angle), 15.5, canvas.color)
    canvas.circle(50, 42, 14, INK)
    canvas.circle(50, 42, 11.5, CREAM)


def mushroom(canvas: Canvas) -> None:
    canvas.blob([(38, 50), (62, 50), (66, 92), (50, 97), (34, 92)], CREAM)
    canvas.pie(50, 60, 47, 180, 360, canvas.color, height=56)
    canvas.rectangle(3, 55, 97, 68, canvas.color, radius=6)
    for x, y, radius in ((50, 25, 9), (24, 44, 8), (76, 44, 8), (50, 53, 6)):
        canvas.circle(x, y, radius, WHITE)


def cactus(canvas: Canvas) -> None:
    canvas.polygon([(26, 76), (74, 76), (68, 97), (32, 97)], CLAY)
    canvas.rectangle(22, 71, 78, 80, CLAY, radius=2)
    canvas.rectangle(34, 4, 66, 72, canvas.color, radius=16)
    for side in (-1, 1):
        top = 26 if side < 0 else 16
        canvas.line([(50 + 24 * side, 52 + top - 26), (50 + 38 * side, 52 + top - 26)], 15, canvas.color)
        canvas.line([(50 + 38 * side, 52 + top - 26), (50 + 38 * side, top + 2)], 15, canvas.color)
        canvas.line([(50 + 18 * side, 52 + top - 26), (50 + 24 * side, 52 + top - 26)], 15, canvas.color)
    for x in (42, 50, 58):
        canvas.line([(x, 16), (x, 66)], 1.8, canvas.tint)
    for x, y in ((46, 24), (54, 36), (46, 48), (54, 60), (12, 34), (88, 26)):
        canvas.line([(x - 3, y - 2), (x + 3, y + 2)], 1.8, WHITE)
        canvas.line([(x + 3, y - 2), (x - 3, y + 2)], 1.8, WHITE)


PLANTS = {"tree": tree, "flower": flower, "mushroom": mushroom, "cactus": cactus}
